"""How a run looks while it runs: a picture of the whole terminal, or a line every five seconds."""

import os
import sys
from collections.abc import Collection
from math import isinf
from typing import Any, TextIO

from examples.flights.circuit import Circuit
from examples.flights.desk_process import DeskProcess
from examples.flights.watch import PRIORITIES, Look, Trend, Watch
from examples.flights.worker import Fall, Worker

LINE_S = 5.0
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = ".:-=+*#@"
COLOURS = ("bright_red", "yellow", "cyan", "blue", "bright_black")
FALLS_MAX = 3
HELP = """\
born, done, waiting  deliveries: one event for one component
/s                   deliveries that ended, over the last two seconds
p50, p99             from acceptance to commit, since the worker's last start
CRITICAL             a flight is cancelled or diverted
HIGH                 a seat needs another flight; a flight is late
NORMAL, LOW          planned, departed, weather; arrived
BACKGROUND           alerts of cancellations and of long delays
ledger               counters that are stored with what they count
backlog              the most that waited in each of the last 60 seconds

desk                 a service outside, which is told of the alerts
circuit              of the desk: OPEN lets no call out, HALF_OPEN a probe
http://...           takes events and questions of yours: see the README

k  kill -9 the worker, for real. What it had accepted is in the store, and
   the next worker, started at once, goes on from there
o  cut the desk for a while. Its circuit opens, and alerts wait in the store
q  stop in order. What waits stays in the store"""
KEYS = "[bold]k[/] kill -9 the worker   [bold]o[/] cut the desk   [bold]q[/] quit   [bold]?[/] help"


# --- words ------------------------------------------------------------------------------------------------------------


def lasting(seconds: float) -> str:
    """A duration: `80 us`, `12 ms`, `3.2 s`, `4:05`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else minutes(seconds)


def minutes(seconds: float) -> str:
    """A duration: `0:05`, `4:12`."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02}"


def pace(speed: float) -> str:
    """The speed in words."""
    if isinf(speed):
        return "as fast as it goes"
    return "a day a minute" if speed == 1440 else f"{speed:g} times as fast as it was"


def ledger_line(look: Look) -> str:
    """The equation of the ledger."""
    ledger = look.ledger
    return (
        f"born {ledger.born:,} = done {ledger.done:,} + expired {ledger.expired:,} + dead {ledger.dead:,}"
        f" + waiting {ledger.waiting:,}"
    )


def fall_line(fall: Fall) -> str:
    """A death and what became of it."""
    healed = "healing ..." if fall.healed_s is None else f"healed in {lasting(fall.healed_s)}"
    return f"at {lasting(fall.at_s)} by {fall.by}: {healed}"


def desk_line(look: Look, desk: DeskProcess) -> str:
    """What the desk was told, and what waits for it."""
    cut = f"; CUT for another {lasting(desk.cut_s)}" if desk.cut_s else ""
    return f"told of {len(desk.arrivals.first):,} alerts, {look.outbox:,} wait{cut}"


def circuit_line(circuit: Circuit) -> str:
    """The state of the desk's circuit, what it did so far, and why it is in it, which may be long."""
    so_far = f" ({opened(circuit)})" if circuit.openings else ""
    why = f": {circuit.why}" if circuit.why else ""
    return f"{circuit.state}{so_far}{why}"


def opened(circuit: Circuit) -> str:
    """How often it opened, and for how long."""
    return f"opened {times(circuit.openings)}, {circuit.open_s:.0f} s in all"


def times(count: int) -> str:
    """`once`, `3 times`."""
    return "once" if count == 1 else f"{count:,} times"


def line(look: Look, trend: Trend, worker: Worker, desk: DeskProcess) -> str:
    """Everything in a line, for logs."""
    critical = look.latency_s.get(PRIORITIES[0])
    latency = f"CRITICAL p99 {lasting(critical['p99'])}, " if critical else ""
    return (
        f"{look.clock}  {ledger_line(look)}, {sum(trend.rates()):,.0f}/s, {latency}restarts {len(worker.falls)},"
        f" desk {desk_line(look, desk)}, circuit {circuit_line(trend.circuit)}"
        f"{f'  {look.imbalance}' if look.imbalance else ''}{f'  {look.trouble}' if look.trouble else ''}"
    )


# --- a screen ---------------------------------------------------------------------------------------------------------


class Plain:
    """For pipes and logs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._next = 0.0
        self._told: list[str] = []
        self._url = ""
        self._state = ""

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *error: object) -> None: ...

    def draw(
        self, look: Look, trend: Trend, watch: Watch, worker: Worker, desk: DeskProcess, *, keys: bool, help: bool
    ) -> None:
        falls = [fall_line(fall) for fall in worker.falls]
        for number, fall in enumerate(falls):
            if fall not in self._told:
                print(f"{look.clock}  death {number + 1} {fall}", file=self._out, flush=True)
        self._told = falls
        if worker.url != self._url:
            self._url = worker.url
            print(f"{look.clock}  events and questions over HTTP: {worker.url}", file=self._out, flush=True)
        if trend.circuit.state != self._state:
            if self._state:
                print(f"{look.clock}  circuit of the desk {circuit_line(trend.circuit)}", file=self._out, flush=True)
            self._state = trend.circuit.state
        if look.now >= self._next:
            self._next = look.now + LINE_S
            print(line(look, trend, worker, desk), file=self._out, flush=True)


class Picture:
    """For a terminal: its other screen, drawn over in one go, gone at the end."""

    def __init__(self, speed: float, scale: int) -> None:
        from rich.console import Console
        from rich.live import Live

        self._speed, self._scale = speed, scale
        self._console = Console(highlight=False)
        self._bars = ASCII_BARS if self._console.options.ascii_only else BARS
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> "Picture":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def draw(
        self, look: Look, trend: Trend, watch: Watch, worker: Worker, desk: DeskProcess, *, keys: bool, help: bool
    ) -> None:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        width = min(self._console.width, 100) - 2
        rows: list[Any] = [self._headline(look, watch, worker, width)]
        if help:
            rows += [Text(), Text(HELP)]
        else:
            rows.append(Text(trend.words(watch)))
            rows.append(Text(f"Seats: {look.seats:,} asked for, {look.seats_rebooked:,} rebooked", style="dim"))
            rows += [Text(), self._table(look, trend), Text(), *self._ledger(look)]
            rows.append(Text(f"backlog  {_spark(trend.backlog, self._bars)} {look.ledger.waiting:,}"))
            rows += self._worker(worker)
            rows.append(Text(f"desk     {desk_line(look, desk)}", style="yellow" if desk.cut_s else ""))
            rows.append(Text(f"circuit  {circuit_line(trend.circuit)}", style="yellow" if trend.circuit.shut else ""))
        if look.trouble:
            rows.append(Text(f"trouble  {look.trouble}", style="bold red"))
        if keys:
            rows += [Text(), Text.from_markup(KEYS)]
        for row in rows:
            if isinstance(row, Text):
                row.no_wrap, row.overflow = True, "ellipsis"
        self._live.update(Padding(Group(*rows), (0, 1)), refresh=True)

    def _headline(self, look: Look, watch: Watch, worker: Worker, width: int) -> Any:
        from rich.text import Text

        share = (look.position + 1) / watch.events
        left = "" if isinf(self._speed) else f"  {minutes((watch.last_at - look.at) / self._speed)} to go"
        copies = f", {self._scale} copies" if self._scale > 1 else ""
        head = Text.assemble((f"{look.clock}", "bold"), f"  New York 2013, {pace(self._speed)}{copies}", "\n")
        tail = f" {share:4.0%}  {minutes(look.now - worker.began)}{left}"
        room = max(10, width - len(tail))
        done = round(room * share)
        full, rest = ("#", ".") if self._bars is ASCII_BARS else ("━", "─")
        return Text.assemble(head, (full * done, "green"), (rest * (room - done), "dim"), tail)

    def _table(self, look: Look, trend: Trend) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2), pad_edge=False)
        for name in ("", "born", "done", "waiting", "/s", "p50", "p99"):
            table.add_column(justify="right" if name else "left", min_width=7 if name else 10, no_wrap=True)
        table.add_row(*(Text(name, style="dim") for name in ("", "born", "done", "waiting", "/s", "p50", "p99")))
        head, rates = look.head, trend.rates()
        for number, name in enumerate(PRIORITIES):
            born, ended = head.born_by_priority[number], head.ended_by_priority[number]
            latency = look.latency_s.get(name, {})
            times = [lasting(latency[q]) if q in latency else "-" for q in ("p50", "p99")]
            counts = [f"{count:,}" for count in (born, ended, born - ended)]
            table.add_row(Text(name, style=COLOURS[number]), *counts, f"{rates[number]:,.0f}", *times)
        return table

    def _ledger(self, look: Look) -> list[Any]:
        from rich.text import Text

        verdict = ("DOES NOT ADD UP: " + look.imbalance, "bold red") if look.imbalance else ("adds up", "green")
        ledger = look.ledger
        gate = f"accepted {ledger.accepted:,}, refused {ledger.refused:,}, duplicate {ledger.duplicate:,}"
        return [Text(f"ledger   {ledger_line(look)}"), Text.assemble("         ", verdict, f"; {gate}")]

    def _worker(self, worker: Worker) -> list[Any]:
        from rich.text import Text

        state = f"pid {worker.pid}" if worker.pid else "down"
        door = f", {worker.url}" if worker.url else ""
        rows = [Text.assemble("worker   ", (state, "" if worker.pid else "bold red"), f", restarts {len(worker.falls)}{door}")]
        first = max(0, len(worker.falls) - FALLS_MAX)
        for number, fall in enumerate(worker.falls[first:], first + 1):
            rows.append(Text(f"         {number}. {fall_line(fall)}", style="yellow" if fall.healed_s is None else ""))
        return rows


def _spark(values: Collection[int], bars: str) -> str:
    top = max(1, *values)
    return "".join(bars[value * (len(bars) - 1) // top] for value in values)


def screen(speed: float, scale: int, as_json: bool) -> Plain | Picture:
    """What fits whoever looks on."""
    if as_json:
        return Plain(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb"):
        return Picture(speed, scale)
    return Plain(sys.stdout)
