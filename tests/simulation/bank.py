"""The workload of the simulations: producers that pay into accounts, and what each payment brings about.

What an event does is decided when it is made, and written in it: the checker reads it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from genesis import App, Context, Message, Priority, Reject, Request, Retry, State, UnavailableError, on

KEYS = 12
BOOKS = 3
TIMER_MAX_S = 8.0


class Deposit(Message, type="deposit"):
    key: str
    n: int
    fails: int = 0
    """Attempts that fail before one succeeds."""
    trouble: str = "error"
    """How they fail: ``error``, ``unavailable``, or ``timeout``."""
    end: str = "ok"
    """``ok``, ``rejected``, or ``failed``: no attempt ever succeeds."""
    notes: int = 0
    """Events that it emits."""
    timer_s: float = 0.0
    """When its timer fires; 0: it sets none."""
    cancels: bool = False
    """Whether it sets another timer, named, and cancels it."""
    charges: bool = False
    """Whether it calls the outside once."""
    waits_s: float = 0.0


class Hopeless(Message, type="deposit.hopeless"):
    key: str
    n: int


class Note(Message, type="note", priority=Priority.HIGH):
    key: str
    n: int


class Balance(Request[int], type="balance"):
    key: str


class Account(State):
    total: int = 0
    seen: list[tuple[int, int]] = []  # noqa: RUF012 - msgspec copies it
    """(priority, number) of each deposit, in the order in which they took effect."""
    charges: dict[int, int] = {}  # noqa: RUF012
    """By number, which call to the outside counted."""


class Book(State):
    notes: dict[int, int] = {}  # noqa: RUF012
    """How often each note was heard."""


@dataclass
class Outside:
    """What survives every crash: how often handlers were to fail, and who was called."""

    fails_left: dict[int, int] = field(default_factory=dict)
    charged: dict[int, list[str]] = field(default_factory=dict)
    """By number, the idempotency key of each call."""

    async def trouble(self, deposit: Deposit) -> None:
        """Fail, if it is to fail."""
        if self.fails_left.setdefault(deposit.n, deposit.fails):
            self.fails_left[deposit.n] -= 1
            if deposit.trouble == "timeout":
                await asyncio.sleep(100)
            raise UnavailableError("bank", 0.3) if deposit.trouble == "unavailable" else ConnectionError("not now")
        if deposit.end == "rejected":
            raise Reject("never")

    def charge(self, n: int) -> Any:
        async def call(key: str) -> int:
            calls = self.charged.setdefault(n, [])
            calls.append(key)
            await asyncio.sleep(0.002)
            return len(calls)

        return call


def bank(outside: Outside) -> App:
    """The application."""
    app = App("bank")
    patient = Retry(attempts=1000, base_s=0.1, cap_s=1.0)  # so many that no crash can use them up

    @app.component(key="key", state=Account, retry=patient)
    class Accounts:
        @on(Deposit, timeout=1.0)
        async def deposit(self, deposit: Deposit, account: Account, ctx: Context) -> None:
            n = deposit.n
            account.total += n  # before it may fail: nothing of it may stay
            account.seen.append((int(ctx.priority), n))
            for note in range(deposit.notes):
                ctx.emit(Note(f"book-{n % BOOKS}", 10 * n + note))
            if deposit.timer_s:
                ctx.after(deposit.timer_s, Note("late", n))
            if deposit.cancels:
                ctx.after(0.5, Note("never", n), name=f"never-{n}")
                ctx.cancel(f"never-{n}")
            if deposit.waits_s:
                await asyncio.sleep(deposit.waits_s)
            if deposit.charges:
                account.charges[n] = await ctx.once("charge", outside.charge(n), type=int)
            await outside.trouble(deposit)

        @on(Hopeless, retry=Retry(attempts=3, base_s=0.1))
        async def fail(self, hopeless: Hopeless, account: Account, ctx: Context) -> None:
            account.total += 1_000_000
            ctx.emit(Note("book-0", -1))
            raise ValueError("never")

        @on(Balance)
        async def balance(self, balance: Balance, account: Account, ctx: Context) -> int:
            return account.total

    @app.component(key="key", state=Book, retry=patient)
    class Books:
        @on(Note)
        async def note(self, note: Note, book: Book, ctx: Context) -> None:
            book.notes[note.n] = book.notes.get(note.n, 0) + 1

    return app


def events(rng: Random, count: int, producer: int) -> Iterator[tuple[str, Message, Priority]]:
    """What a producer sends, one after the other: id, message, priority."""
    for at in range(count):
        n = producer * 10_000 + at + 1
        key, priority = f"a{rng.randrange(KEYS)}", Priority(rng.choice((0, 1, 2, 2, 2, 3, 4)))
        if rng.random() < 0.01:
            yield f"p{producer}-{at}", Hopeless(key, n), priority
            continue
        fails = rng.choice((1, 1, 2, 3)) if rng.random() < 0.04 else 0
        yield (
            f"p{producer}-{at}",
            Deposit(
                key,
                n,
                fails=fails,
                trouble=rng.choice(("error", "error", "unavailable", "timeout")) if fails else "error",
                end="rejected" if rng.random() < 0.01 else "ok",
                notes=rng.choice((0, 0, 0, 1, 2)),
                timer_s=round(rng.uniform(0.1, TIMER_MAX_S), 2) if rng.random() < 0.05 else 0.0,
                cancels=rng.random() < 0.02,
                charges=rng.random() < 0.04,
                waits_s=round(rng.uniform(0.001, 0.05), 3) if rng.random() < 0.2 else 0.0,
            ),
            priority,
        )
