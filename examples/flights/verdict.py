"""What came out, compared with what `totals.py` counts from the same data without Genesis."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from examples.flights.desk_process import Arrival
from genesis.core.ports import Head
from genesis.engines.outside import Outside

PAGE = 1000
BOARD_COUNTS = ("scheduled", "delayed", "departed", "arrived", "diverted", "cancelled")

Totals = dict[str, Any]
"""`airports`: counters by airport; `boards`: flights by last status; `rebookings`: seats by flight; `seats`: all;
`alerts`: kind by flight."""


@dataclass(frozen=True)
class Verdict:
    """All that was compared, and each difference in a line."""

    airports: int
    boards: int
    rebookings: int
    seats: int
    alerts: int
    differences: list[str]

    @property
    def compared(self) -> list[str]:
        """What was compared, in words."""
        return [
            f"{self.airports:,} airports, {self.boards:,} boards, {self.rebookings:,} rebooked flights, {self.seats:,} seats;",
            f"each of {self.alerts:,} alerts once at the desk, in order",
        ]


def compare(outside: Outside, desk: Sequence[Arrival], scale: int, late_min: int, by_hand: int) -> Verdict:
    """Compare what is done with what `totals.py` says.

    Args:
        outside: A store in which nothing waits any more.
        desk: What came to the desk, each id once.
        scale: Copies of the world.
        late_min: Minutes after which a departure is an alert.
        by_hand: Events that came beside the feed: changes of gates.
    """
    expected = _expected(scale, late_min)
    found, wrong = _found(outside)
    wrong += untold(expected["alerts"], desk)
    changes = sum(gate["changes"] for _, gate in _states(outside, "gates"))
    if changes != by_hand:
        wrong.append(f"gate changes: {changes:,}, but {by_hand:,} events came beside the feed")
    return Verdict(
        airports=len(expected["airports"]),
        boards=sum(expected["boards"].values()),
        rebookings=len(expected["rebookings"]),
        seats=expected["seats"],
        alerts=len(expected["alerts"]),
        differences=[*differences(expected, found), *wrong],
    )


def differences(expected: Totals, found: Totals) -> list[str]:
    """Each value that differs, in a line. What one side does not name is 0 there."""
    names = _all(expected["airports"], found["airports"])
    lines = [
        line
        for name in names
        for line in _unequal(f"airport {name}", expected["airports"].get(name, {}), found["airports"].get(name, {}))
    ]
    lines += _unequal("boards", expected["boards"], found["boards"])
    lines += _unequal("seats rebooked of", expected["rebookings"], found["rebookings"])
    if expected["seats"] != found["seats"]:
        lines.append(f"seats rebooked: {found['seats']:,}, expected {expected['seats']:,}")
    return lines


def _unequal(what: str, expected: Mapping[str, float], found: Mapping[str, float]) -> Iterator[str]:
    for name in _all(expected, found):
        wanted, got = expected.get(name, 0), found.get(name, 0)
        if wanted != got:
            yield f"{what} {name}: {got:,}, expected {wanted:,}"


def _all(*names: Iterable[str]) -> list[str]:
    return sorted({name for some in names for name in some})


def untold(expected: Mapping[str, str], desk: Sequence[Arrival]) -> Iterator[str]:
    """What is wrong with the alerts that came to the desk."""
    wanted = Counter(expected.items())
    got = Counter((arrival.flight, arrival.kind) for arrival in desk)
    for alert in sorted(wanted | got):
        if got[alert] != wanted[alert]:
            yield f"alert {alert[1]} of {alert[0]}: {got[alert]} times at the desk, expected {wanted[alert]}"
    for before, after in pairwise(desk):
        if before.number >= after.number:
            yield f"alert of {after.flight}: number {after.number} came to the desk behind {before.number}"


def _expected(scale: int, late_min: int) -> Totals:
    script = Path(__file__).with_name("totals.py")
    command = [sys.executable, str(script), "--scale", str(scale), "--late-min", str(late_min)]
    totals: Totals = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return totals


def _found(outside: Outside) -> tuple[Totals, list[str]]:
    """The same totals from the states of the components, and what is wrong in a state by itself."""
    wrong: list[str] = []
    boards, rebookings = Counter[str](), dict[str, int]()
    for flight, board in _states(outside, "flight-board"):
        boards[board["status"]] += 1
        wrong += [f"board {flight}: {name} {board[name]} times" for name in BOARD_COUNTS if board[name] > 1]
    for flight, ledger in _states(outside, "rebooking-ledger"):
        rebookings[flight] = ledger["seats_rebooked"]
        if ledger["out_of_order"]:
            wrong.append(f"seats of {flight}: {ledger['out_of_order']} lost, doubled or overtaken")
    asked = {flight: state["seats"] for flight, state in _states(outside, "rebooking")}
    wrong += [
        f"seats of {flight}: {asked.get(flight, 0)} asked for, {rebookings.get(flight, 0)} rebooked"
        for flight in _all(asked, rebookings)
        if asked.get(flight, 0) != rebookings.get(flight, 0)
    ]
    airports = dict(_states(outside, "airport-statistics"))
    totals = {"airports": airports, "boards": boards, "rebookings": rebookings, "seats": sum(rebookings.values())}
    return totals, wrong


def _states(outside: Outside, component: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All (key, state) of a component, states as plain values."""
    prefix = f"{component}/"
    after = ""
    while rows := outside.scan_state(prefix, after, PAGE):
        for address, (_, body) in rows:
            yield address.removeprefix(prefix), msgspec.msgpack.decode(body)
        after = rows[-1][0]


def rows_left(outside: Outside, head: Head) -> str:
    """Rows of work that its counters do not know of; empty when there are none."""
    ledger = head.ledger
    rows = outside.count_lanes(), len(outside.scan_pending(limit=ledger.in_pending + 1)), outside.count("out")
    counted = head.waiting_by_lane, ledger.in_pending, ledger.in_outbox
    if rows == counted:
        return ""
    return f"rows in lanes, pending and outbox {rows}, counted {counted}"
