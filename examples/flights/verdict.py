"""What came out, compared with what `totals.py` counts from the same data without Genesis."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from genesis.core.ports import Head
from genesis.engines.outside import Outside

PAGE = 1000
BOARD_COUNTS = ("scheduled", "delayed", "departed", "arrived", "diverted", "cancelled")

Totals = dict[str, Any]
"""`airports`: counters by airport; `boards`: flights by last status; `rebookings`: seats by flight; `seats`: all."""


@dataclass(frozen=True)
class Verdict:
    """All that was compared, and each difference in a line."""

    airports: int
    boards: int
    rebookings: int
    seats: int
    differences: list[str]

    @property
    def compared(self) -> str:
        """What was compared, in words."""
        return f"{self.airports:,} airports, {self.boards:,} boards, {self.rebookings:,} rebooked flights, {self.seats:,} seats"


def compare(outside: Outside, scale: int, by_hand: int) -> Verdict:
    """Compare a store in which everything is done with what `totals.py` says, and with the events that came `by_hand`."""
    expected = _expected(scale)
    found, wrong = _found(outside)
    changes = sum(gate["changes"] for _, gate in _states(outside, "gates"))
    if changes != by_hand:
        wrong.append(f"gate changes: {changes:,}, but {by_hand:,} events came beside the feed")
    return Verdict(
        airports=len(expected["airports"]),
        boards=sum(expected["boards"].values()),
        rebookings=len(expected["rebookings"]),
        seats=expected["seats"],
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


def _expected(scale: int) -> Totals:
    script = Path(__file__).with_name("totals.py")
    command = [sys.executable, str(script), "--scale", str(scale)]
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
    lanes, pending = outside.count_lanes(), len(outside.scan_pending(limit=head.ledger.in_pending + 1))
    if lanes == head.waiting_by_lane and pending == head.ledger.in_pending:
        return ""
    return f"rows in lanes {lanes} and pending {pending}, counted {head.waiting_by_lane} and {head.ledger.in_pending}"
