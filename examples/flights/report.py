"""The end of a run, for people and for programs."""

import shlex
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any

import msgspec

from examples.flights.circuit import Circuit
from examples.flights.desk_process import Arrivals
from examples.flights.screen import fall_line, lasting, opened, pace, times
from examples.flights.verdict import Verdict
from examples.flights.watch import PRIORITIES, Look
from examples.flights.worker import Fall
from genesis import Priority
from genesis.core.ports import Ledger

SCHEMA = 1
SHOWN_MAX = 30


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    store: Path
    speed: float
    scale: int
    over_http: bool
    """Whether the feed was posted, which begins at the beginning each time."""
    first: Look
    """Before the worker started."""
    last: Look
    """After it had ended."""
    seconds: float
    """From the start of the worker until nothing waited but alerts for the desk, or until it was told to end."""
    desk_s: float
    """From then until nothing waited at all."""
    desk: Arrivals
    outages: int
    """How often the desk was cut."""
    circuit: Circuit
    """Of the desk."""
    refused: int | None
    """Calls that its policy refused since the last start of the worker; None: not known, it was down at the end."""
    exit_code: int
    """Of the worker."""
    imbalance: str
    """What does not add up, by the counters and against the rows."""
    falls: list[Fall]
    kills_left: list[float]
    outages_left: list[float]
    """Times of kills and outages that the end came before."""
    verdict: Verdict | None
    """None: it was told to end before the feed did."""

    @property
    def ok(self) -> bool:
        """Whether all is as it must be."""
        equal = self.verdict is None or not self.verdict.differences
        return equal and not self.imbalance and not self.exit_code

    @property
    def deliveries(self) -> int:
        """Deliveries that components ended in this run. Those to the desk take as long as the desk does."""
        return _handled(self.last) - _handled(self.first)

    @property
    def events(self) -> int:
        """Events of this run: those that came in, and those that components emitted."""
        return _events(self.last.ledger) - _events(self.first.ledger)


def _handled(look: Look) -> int:
    return sum(look.head.ended_by_priority) - look.head.ended_by_priority[Priority.BACKGROUND]


def _events(ledger: Ledger) -> int:
    return ledger.accepted + ledger.emitted


# --- for people -------------------------------------------------------------------------------------------------------


def in_words(report: Report) -> str:
    """The summary."""
    ledger, seconds = report.last.ledger, report.seconds
    copies = f", {report.scale} copies of the world" if report.scale > 1 else ""
    lines = [
        f"New York, 7 to 10 February 2013, {pace(report.speed)}{copies}",
        "",
        f"offered {ledger.offered:,} = accepted {ledger.accepted:,} + refused {ledger.refused:,}"
        f" + duplicate {ledger.duplicate:,}",
        f"born {ledger.born:,} (external {ledger.external:,}, emitted {ledger.emitted:,}, timer {ledger.timer:,},"
        f" replay {ledger.replay:,})",
        f"  = done {ledger.done:,} + expired {ledger.expired:,} + dead {ledger.dead:,} + waiting {ledger.waiting:,}"
        f"; retries {ledger.retries:,}",
        "",
        *_table(report.last),
        "",
        f"time      {lasting(seconds)}: {report.events:,} events, {report.events / seconds:,.0f}/s;"
        f" {report.deliveries:,} deliveries, {report.deliveries / seconds:,.0f}/s",
        *_deaths(report),
        *_desk(report),
        f"ledger    {f'DOES NOT ADD UP: {report.imbalance}' if report.imbalance else 'adds up, rows counted'}",
        *_compared(report.verdict),
        *_by_hand(report),
        f"store     {report.store}",
    ]
    if report.exit_code:
        lines.append(f"worker    DID NOT END IN ORDER: exit code {report.exit_code}")
    if report.verdict is None and not report.over_http:
        lines.append(f"go on     ./dev demo {_again(report)}")
    else:
        lines.append(f"look      genesis status --store {shlex.quote(str(report.store))}")
    return "\n".join(lines)


def _table(look: Look) -> list[str]:
    lines = [f"{'':<10}{'born':>10}{'done':>10}{'waiting':>10}{'p50':>10}{'p99':>10}{'max':>10}"]
    for name, born, ended in zip(PRIORITIES, look.head.born_by_priority, look.head.ended_by_priority, strict=True):
        if born:
            latency = look.latency_s.get(name, {})
            times = [lasting(latency[q]) if q in latency else "-" for q in ("p50", "p99", "max")]
            cells = [f"{born:,}", f"{ended:,}", f"{born - ended:,}", *times]
            lines.append(f"{name:<10}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def _deaths(report: Report) -> list[str]:
    if not report.falls:
        lines = ["deaths    none"]
    else:
        lines = [f"deaths    {len(report.falls)}; latencies are since the last start of the worker"]
        lines += [f"          {number}. {fall_line(fall)}" for number, fall in enumerate(report.falls, 1)]
    lines += [f"          the end came before the kill at {lasting(at)}" for at in report.kills_left]
    return lines


def _desk(report: Report) -> list[str]:
    desk = report.desk
    waiting = f", {report.last.outbox:,} wait for the next run" if report.last.outbox else ""
    more = f", {lasting(report.desk_s)} behind the rest" if report.desk_s >= 1 else ""
    lines = [f"desk      told of {len(desk.first):,} alerts{more}{waiting}"]
    if desk.again:
        lines.append(f"          {desk.again:,} came again after a kill, and were known by their id")
    if desk.too_fast:
        lines.append(f"          asked too fast {desk.too_fast:,} times")
    if report.outages:
        lines.append(f"          cut {times(report.outages)}, {desk.while_cut:,} requests meanwhile")
    if report.circuit.openings:
        lines.append(f"          circuit {opened(report.circuit)}; {_refused(report)}")
    lines += [f"          the end came before the outage at {lasting(at)}" for at in report.outages_left]
    return lines


def _refused(report: Report) -> str:
    if report.refused is None:
        return "what it refused is not known, since the worker was down at the end"
    since = " since the last start of the worker" if report.falls else ""
    return f"{report.refused:,} call{'s' * (report.refused != 1)} refused instead of sent{since}"


def _compared(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return ["totals    not compared: the feed was not over"]
    if not verdict.differences:
        equal = "totals    all equal to what totals.py counts without Genesis:"
        return [equal, *(f"          {line}" for line in verdict.compared)]
    more = len(verdict.differences) - SHOWN_MAX
    return [
        f"totals    DIFFERENT from what totals.py counts without Genesis, {len(verdict.differences):,} times:",
        *(f"          {line}" for line in verdict.differences[:SHOWN_MAX]),
        *([f"          and {more:,} more; --json lists all"] if more > 0 else []),
    ]


def _by_hand(report: Report) -> list[str]:
    count = report.last.by_hand
    return [f"by hand   {count:,} event{'s' * (count > 1)} beside the feed, apart from its totals"] if count else []


def _again(report: Report) -> str:
    speed = "" if report.speed == 1440 else " --full-speed" if isinf(report.speed) else f" --speed {report.speed:g}"
    scale = f" --scale {report.scale}" if report.scale > 1 else ""
    return f"--store {shlex.quote(str(report.store))}{speed}{scale}"


# --- for programs -----------------------------------------------------------------------------------------------------


def for_programs(report: Report) -> dict[str, Any]:
    """The same as plain values."""
    ledger, head, verdict = report.last.ledger, report.last.head, report.verdict
    return {
        "schema": SCHEMA,
        "ok": report.ok,
        "store": str(report.store),
        "speed": None if isinf(report.speed) else report.speed,
        "scale": report.scale,
        "over_http": report.over_http,
        "seconds": round(report.seconds, 3),
        "events": report.events,
        "events_per_s": round(report.events / report.seconds, 1),
        "deliveries": report.deliveries,
        "deliveries_per_s": round(report.deliveries / report.seconds, 1),
        "ledger": {
            **msgspec.structs.asdict(ledger),
            "born": ledger.born,
            "waiting": ledger.waiting,
            "adds_up": not report.imbalance,
            "imbalance": report.imbalance,
        },
        "priorities": {
            name: {"born": born, "ended": ended, "waiting": born - ended, "latency_s": report.last.latency_s.get(name)}
            for name, born, ended in zip(PRIORITIES, head.born_by_priority, head.ended_by_priority, strict=True)
        },
        "deaths": [
            {"at_s": round(fall.at_s, 3), "by": fall.by, "healed_s": fall.healed_s and round(fall.healed_s, 3)}
            for fall in report.falls
        ],
        "kills_left": report.kills_left,
        "desk": {
            "told": len(report.desk.first),
            "again": report.desk.again,
            "too_fast": report.desk.too_fast,
            "while_cut": report.desk.while_cut,
            "outages": report.outages,
            "outages_left": report.outages_left,
            "circuit": {
                "state": report.circuit.state,
                "openings": report.circuit.openings,
                "open_s": round(report.circuit.open_s, 3),
                "refused": report.refused,
            },
            "behind_s": round(report.desk_s, 3),
            "waiting": report.last.outbox,
        },
        "by_hand": report.last.by_hand,
        "compared": {
            "equal": not verdict.differences,
            "airports": verdict.airports,
            "boards": verdict.boards,
            "rebookings": verdict.rebookings,
            "seats": verdict.seats,
            "alerts": verdict.alerts,
            "differences": verdict.differences,
        }
        if verdict is not None
        else None,
        "worker_exit_code": report.exit_code,
    }
