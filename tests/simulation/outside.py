"""What survives every crash: the services that handlers call, and what they were called with."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from genesis import Context, Reject, UnavailableError


def nobody() -> NoReturn:
    """Before there is a world."""
    raise RuntimeError("nobody called this before the world was made")


@dataclass
class Outside:
    """The same for all processes of a world, one after the other."""

    now: Callable[[], float] = nobody
    """Virtual seconds."""
    highest_wall: Callable[[], float] = nobody
    """The latest time that any wall clock has shown so far."""
    lowest_wall: Callable[[], float] = nobody
    """The time by the clock that is behind all others."""
    unnoticed: Callable[[], bool] = nobody
    """Whether the store says that no process has begun since one ended in order."""
    jams: Callable[[int], bool] = nobody
    """Whether the store says that a number waits for somebody, and nobody has come."""
    die: Callable[[], NoReturn] = nobody
    """Ends the process that calls it."""
    fails_left: dict[int, int] = field(default_factory=dict)
    charged: dict[int, list[str]] = field(default_factory=dict)
    """By number, the idempotency key of each call."""
    got: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By number, what `ctx.once` gave to each attempt."""
    attempts: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By number, which attempts came to their handler."""
    ran: set[int] = field(default_factory=set)
    """Numbers of the statements that came to the auditors."""
    deaths: Counter[int] = field(default_factory=Counter)
    """By number, how often it killed its process."""
    failures: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """By id and component, the errors of attempts that failed, as far as anybody lived to tell."""
    early: list[str] = field(default_factory=list)
    """What ran before its time."""
    asked: int = 0
    """Questions of handlers."""
    archived: list[tuple[int, str]] = field(default_factory=list)
    """(number, id) of what the archive has taken, in the order in which it did."""
    arrived: list[tuple[int, str]] = field(default_factory=list)
    """The same of what came to it, in the order of arrival."""
    in_outbox: Callable[[], list[int] | None] = nobody
    """Numbers of what the store holds for the archive; None where that cannot be told."""
    unread: set[int] = field(default_factory=set)
    """Readings before which the source failed."""

    def begins(self, n: int, ctx: Context) -> None:
        """An attempt came to its handler."""
        self.attempts[n].add(ctx.attempt)
        if self.unnoticed():
            self.early.append(f"{n} ran before it was stored that a process had begun")

    def opens(self, n: int, ctx: Context) -> None:
        """An attempt came to its safe."""
        self.begins(n, ctx)
        if self.jams(n):
            self.early.append(f"{n} jammed its safe, and ran again before anybody came")

    def fails(self, n: int, times: int) -> bool:
        """Whether this attempt is to fail: the first so many are."""
        left = self.fails_left.setdefault(n, times)
        self.fails_left[n] = max(0, left - 1)
        return left > 0

    async def trouble(self, n: int, times: int, kind: str, end: str) -> None:
        """Fail, if it is to fail."""
        if self.fails(n, times):
            if kind == "timeout":
                await asyncio.sleep(100)
            raise UnavailableError("bank", 0.3) if kind == "unavailable" else ConnectionError("not now")
        if end == "rejected":
            raise Reject("never")

    async def charge(self, n: int, ctx: Context) -> int:
        """Call the outside once."""

        async def call(key: str) -> int:
            calls = self.charged.setdefault(n, [])
            calls.append(key)
            await asyncio.sleep(0.002)
            return len(calls)

        counted: int = await ctx.once("charge", call, type=int)
        self.got[n].append(counted)
        return counted

    async def tip(self, key: str) -> None:
        """A call that nobody looks at again."""
        await asyncio.sleep(0.001)

    def arrive(self, numbers: list[int], ids: list[str]) -> None:
        """Items come to the archive: the first of what is stored, and all before them have ended."""
        self.arrived += zip(numbers, ids, strict=True)
        stored = self.in_outbox()
        if stored is not None and stored[: len(numbers)] != numbers:
            self.early.append(f"the archive was given {numbers}, and stored were {stored[:30]}")

    def kill(self, n: int) -> NoReturn:
        """An event ends the process that runs it."""
        self.deaths[n] += 1
        if self.unnoticed():
            self.early.append(f"{n} ran before it was stored that a process had begun")
        self.die()

    def due(self, what: str, at: float) -> None:
        """Something runs that was to run at a time of the wall clock."""
        if at > self.highest_wall() + 0.001:  # ids of ticks are written to the millisecond
            self.early.append(f"{what} ran before its time, {at - self.highest_wall():.3f} s early by the latest of all clocks")

    def told(self, what: str, fact: Any) -> None:
        """What the world observes."""
        if what == "failure":
            delivery, error = fact
            self.failures[delivery.event_id, delivery.component].append(type(error).__name__)
