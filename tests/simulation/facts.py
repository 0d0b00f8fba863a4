"""What a world was given and what came of it, as plain values: all that the checker gets to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]
"""An event as its producer wrote it down: id, producer, kind, priority, headers, body, n, key, and what it was to do; `tries`
is how often it was sent, `told` what each yes said of it (whether it is a duplicate) with the number of that try."""
Answer = dict[str, Any]
"""What an asker got: key, total, count; and how many deposits of the key had been committed before it asked, and after."""
Bulk = dict[str, Any]
"""What was sent in one go: its `lines` as (key, number), and `told`, whether each was a duplicate; None without an answer."""
Letter = dict[str, Any]
"""A dead letter: id, component, reason, error, attempts, priority, source, headers, body."""


@dataclass(frozen=True)
class Facts:
    """Of one world, in its end."""

    accepted: Sequence[Event]
    """In the order in which their producers had their yes."""
    answers: Sequence[Answer]
    bulks: Sequence[Bulk]
    letters: Sequence[Letter]
    states: Mapping[str, Mapping[str, dict[str, Any]]]
    """By component and key."""
    ledger: Mapping[str, int]
    born: Sequence[int]
    ended: Sequence[int]
    """By priority."""
    waiting: Sequence[int]
    """By lane."""
    readings: int
    """What the source gave."""
    charged: Mapping[int, list[str]]
    got: Mapping[int, list[int]]
    attempts: Mapping[int, set[int]]
    deaths: Mapping[int, int]
    failures: Mapping[tuple[str, str], list[str]]
    """See `Outside`."""
    early: Sequence[str]
    replayed: tuple[int, int]
    """Dead letters that were replayed: at least, and at most."""
    arrived: Sequence[tuple[int, str]]
    archived: Sequence[tuple[int, str]]
    """See `Outside`."""
    epochs: int
    """How often somebody took the store over."""
    asked: int
    """Questions of handlers, each attempt's counted."""
    calls: int
    """Calls of clients that may have come to the gate."""
    kills: int
    stops: int
    """Processes that ended by themselves."""
    zombies: bool
    """Whether a process may have gone on after another took over."""
    calm_at: float
    """Virtual time from which on nothing goes wrong any more."""
    skew_s: float
    """By then, how far the clocks were apart, or behind what they had shown before."""
    wall_at_end: float
    """By the clock of the process that serves."""
    tick_s: float

    @property
    def taken_for_dead(self) -> int:
        """How many owners at the most were taken for dead by the next: one that only lost its store looks no different."""
        return self.epochs - 1 if self.zombies else self.kills

    def kind(self, *kinds: str) -> list[Event]:
        """The events of some kinds."""
        return [e for e in self.accepted if e["kind"] in kinds]

    @property
    def good(self) -> list[Event]:
        """Deposits that must take effect."""
        return [e for e in self.kind("deposit") if e["end"] == "ok"]

    @property
    def lines(self) -> list[int]:
        """Lines that must take effect: what is sent in one go is accepted as a whole, or not at all."""
        seen = set(self.seen("desks"))
        numbers = [([n for _, n in bulk["lines"]], bulk["told"]) for bulk in self.bulks]
        return [n for of_one, told in numbers if told is not None or not seen.isdisjoint(of_one) for n in of_one]

    @property
    def dropped(self) -> int:
        """Sealed ones that were thrown away."""
        return sum(1 for e in self.kind("sealed") if e["dropped"])

    def seen(self, component: str) -> list[int]:
        """Numbers that took effect in a component that keeps a log."""
        return [n for log in self.states[component].values() for n in log["seen"]]
