"""Whatever is sent, and wherever the process dies or its disk fails: everything happens once, as a naive model says.

The model knows nothing of commits, lanes or pending work. It is a list of what was sent, and what each event means.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from genesis import (
    App,
    Context,
    IntakeFullError,
    Message,
    Node,
    NotAcceptedError,
    Priority,
    Reject,
    Retry,
    Settings,
    State,
    UnavailableError,
    on,
)
from genesis.chaos.loop import VirtualLoop
from genesis.core.errors import StoreError
from genesis.core.ports import CrashPoint, Ledger
from tests.unit.runtime.support import Disk, inside

LEVELS = (Priority.CRITICAL, Priority.NORMAL, Priority.BACKGROUND)
TIMER_MAX_S = 200


Sent = tuple[str, Message, Priority]
"""An event as a producer keeps it until it has its yes: id, message, priority."""


class Deposit(Message, type="deposit"):
    key: str
    n: int
    fails: int
    """Attempts that fail before one succeeds."""
    trouble: str
    """How they fail: ``error``, ``unavailable``, or ``timeout``."""
    end: str
    """``ok``, ``rejected``, or ``failed``: no attempt ever succeeds."""
    notes: int
    """Events that it emits."""
    timer_s: int
    """When its timer fires; 0: it sets none."""
    waits: bool


class Hopeless(Message, type="deposit.hopeless"):
    key: str
    n: int


class Note(Message, type="note", priority=Priority.HIGH):
    key: str
    n: int


class Account(State):
    total: int = 0
    seen: list[tuple[int, int]] = []  # noqa: RUF012 - msgspec copies it
    """(priority, number) of each deposit, in the order in which they took effect."""


class Book(State):
    total: int = 0
    notes: dict[int, int] = {}  # noqa: RUF012 - msgspec copies it
    """How often each note was heard."""


@dataclass
class Bank:
    """The application, and what it does to the world outside, which survives every crash."""

    fails_left: dict[int, int] = field(default_factory=dict)
    charged: dict[int, set[str]] = field(default_factory=dict)

    def app(self) -> tuple[App, type, type]:
        app, bank = App("bank"), self

        patient = Retry(attempts=1000, base_s=0.2, cap_s=1.0)  # so many that no crash can use them up

        @app.component(key="key", state=Account, retry=patient)
        class Accounts:
            @on(Deposit, timeout=1.0)
            async def deposit(self, deposit: Deposit, account: Account, ctx: Context) -> None:
                account.total += deposit.n  # before it may fail: nothing of it may stay
                account.seen.append((int(ctx.priority), deposit.n))
                for n in range(deposit.notes):
                    ctx.emit(Note(f"book-{deposit.n % 2}", 1000 * deposit.n + n))
                if deposit.timer_s:
                    ctx.after(deposit.timer_s, Note("late", deposit.n))
                if deposit.waits:
                    await asyncio.sleep(0.003)
                    await ctx.once("charge", bank.charge(deposit.n))
                if bank.fails_left.setdefault(deposit.n, deposit.fails):
                    bank.fails_left[deposit.n] -= 1
                    if deposit.trouble == "timeout":
                        await asyncio.sleep(100)
                    raise UnavailableError("bank", 0.5) if deposit.trouble == "unavailable" else ConnectionError("not now")
                if deposit.end == "rejected":
                    raise Reject("never")

            @on(Hopeless, retry=Retry(attempts=3, base_s=0.2))
            async def fail(self, hopeless: Hopeless, account: Account, ctx: Context) -> None:
                account.total += 1_000_000
                ctx.emit(Note("book-0", -1))
                raise ValueError("never")

        @app.component(key="key", state=Book, retry=patient)
        class Books:
            @on(Note)
            async def note(self, note: Note, book: Book, ctx: Context) -> None:
                book.total += note.n
                book.notes[note.n] = book.notes.get(note.n, 0) + 1

        return app, Accounts, Books

    def charge(self, n: int):  # type: ignore[no-untyped-def]
        async def call(key: str) -> int:
            self.charged.setdefault(n, set()).add(key)
            return n

        return call


@dataclass
class Model:
    """What must be so in the end, computed from what was sent."""

    sent: list[Sent] = field(default_factory=list)

    def send(self, messages: list[Message], priority: Priority) -> list[Sent]:
        """Note events that are sent next. Returns them with their ids."""
        first = len(self.sent)
        self.sent += [(f"id-{first + n}", message, priority) for n, message in enumerate(messages)]
        return self.sent[first:]

    def deposits(self, end: str = "ok") -> Iterator[tuple[Deposit, Priority]]:
        for _, message, priority in self.sent:
            if isinstance(message, Deposit) and message.end == end:
                yield message, priority

    def check(self, accounts: dict[str, Account], books: dict[str, Book], ledger: Ledger, bank: Bank) -> None:
        good = list(self.deposits())
        for key in "abc":
            account = accounts.get(key, Account())
            assert account.total == sum(deposit.n for deposit, _ in good if deposit.key == key)
            for level in LEVELS:  # first in, first out, per key and priority
                expected = [deposit.n for deposit, priority in good if deposit.key == key and priority is level]
                assert [n for found, n in account.seen if found == level] == expected
        notes: dict[str, Counter[int]] = {"book-0": Counter(), "book-1": Counter(), "late": Counter()}
        for deposit, _ in good:
            notes[f"book-{deposit.n % 2}"].update(1000 * deposit.n + n for n in range(deposit.notes))
            if deposit.timer_s:
                notes["late"][deposit.n] += 1
        for key, expected_notes in notes.items():
            assert Counter(books.get(key, Book()).notes) == expected_notes
            assert books.get(key, Book()).total == sum(n * times for n, times in expected_notes.items())
        for deposit, _ in good:
            assert len(bank.charged.get(deposit.n, ())) == (1 if deposit.waits else 0)
        heard = sum(counter.total() for counter in notes.values())
        dead = len(self.sent) - len(good)
        assert ledger.imbalance() == ""
        assert (ledger.accepted, ledger.external, ledger.waiting) == (len(self.sent), len(self.sent), 0)
        assert (ledger.done, ledger.dead, ledger.expired) == (len(good) + heard, dead, 0)
        assert (ledger.emitted, ledger.timer) == (heard - notes["late"].total(), notes["late"].total())


KEYS = st.sampled_from("abc")
DEPOSITS = st.builds(
    Deposit,
    key=KEYS,
    n=st.just(0),
    fails=st.sampled_from([0, 0, 0, 1, 2]),
    trouble=st.sampled_from(["error", "unavailable", "timeout"]),
    end=st.sampled_from(["ok", "ok", "ok", "ok", "rejected"]),
    notes=st.integers(0, 3),
    timer_s=st.sampled_from([0, 0, 1, 30, TIMER_MAX_S]),
    waits=st.booleans(),
)
MESSAGES = DEPOSITS | st.builds(Hopeless, key=KEYS, n=st.just(0))
SENDS = st.tuples(st.just("send"), MESSAGES.map(lambda message: [message]), st.sampled_from(LEVELS))
BURSTS = st.tuples(
    st.just("send"), st.builds(lambda message, times: [message] * times, MESSAGES, st.integers(2, 30)), st.sampled_from(LEVELS)
)
LIMITS = st.builds(
    Settings,
    slots=st.sampled_from([1, 2, 64]),
    window_bytes=st.sampled_from([1, 2000, 4 << 20]),
    cache_bytes=st.sampled_from([1, 64 << 20]),
)
"""Room for one delivery or for all, for one state or for all: it may make no difference."""
AGAIN = st.tuples(st.just("again"), st.integers(0, 100), st.none())
PASS = st.tuples(st.just("advance"), st.sampled_from([0.001, 0.01, 0.3, 5.0, 61.0]), st.none())
CRASH = st.tuples(st.just("crash at"), st.sampled_from(list(CrashPoint)), st.integers(0, 4))
KILL = st.tuples(st.just("crash"), st.none(), st.none())
FAIL = st.tuples(st.just("fail at"), st.sampled_from([CrashPoint.EXECUTE, CrashPoint.COMMIT]), st.integers(0, 4))


def numbered(steps: list[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Give each message that is sent a number of its own."""
    numbers = count(1)
    for what, how, more in steps:
        if what == "send":
            how = [msgspec.structs.replace(message, n=next(numbers)) for message in how]
        yield what, how, more


@given(st.lists(SENDS | BURSTS | AGAIN | PASS | CRASH | KILL, max_size=20), st.integers(0, 1000), LIMITS)
def test_wherever_the_process_dies_everything_happens_once(steps: list[Any], seed: int, limits: Settings) -> None:
    asyncio.run(_die_and_go_on(steps, seed, limits))


async def _die_and_go_on(steps: list[Any], seed: int, limits: Settings) -> None:
    model, bank = Model(), Bank()
    app, accounts, books = bank.app()
    async with app.simulate(seed=seed, errors="record", settings=limits) as sim:
        for what, how, more in numbered(steps):
            if what == "send":
                sent = model.send(how, more)
                await inside(sim, lambda node, sent=sent: _send(node, sent))
            elif what == "again" and model.sent:
                again = model.sent[how % len(model.sent)]
                assert await inside(sim, lambda node, again=again: _send(node, [again])) == [True]
            elif what == "advance":
                await sim.advance(how)
            elif what == "crash at":
                sim.crash_at(how, after=more)
            elif what == "crash":
                await sim.crash()
        await sim.settle()
        await sim.advance(TIMER_MAX_S + 1)
        await sim.settle()
        found_accounts = {key: sim.state(accounts, key) for key in "abc"}
        found_books = {key: sim.state(books, key) for key in ("book-0", "book-1", "late")}
        model.check(found_accounts, found_books, sim.ledger, bank)
        emitted = Counter(note.n for note in sim.emitted(Note))
        assert emitted == Counter(1000 * deposit.n + n for deposit, _ in model.deposits() for n in range(deposit.notes))
        assert sorted(letter.delivery.event_id for letter in sim.dead()) == sorted(
            given_id for given_id, message, _ in model.sent if isinstance(message, Hopeless) or message.end != "ok"
        )


@given(st.lists(SENDS | BURSTS | AGAIN | PASS | FAIL, max_size=20), LIMITS)
def test_wherever_the_disk_fails_everything_happens_once_and_everyone_is_told_rightly(
    steps: list[Any], limits: Settings
) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_fail_and_go_on(steps, limits))


async def _fail_and_go_on(steps: list[Any], limits: Settings) -> None:
    model, bank, disk = Model(), Bank(), Disk()
    app, accounts, books = bank.app()
    bounds = {"slots": limits.slots, "window_bytes": limits.window_bytes, "cache_bytes": limits.cache_bytes}
    async with disk.node(app, **bounds) as node:
        for what, how, more in numbered(steps):
            if what == "send":
                await _send(node, model.send(how, more))
            elif what == "again" and model.sent:
                assert await _send(node, [model.sent[how % len(model.sent)]]) == [True], "it had been accepted"
            elif what == "advance":
                await asyncio.sleep(how)
            elif what == "fail at":
                disk.fail_at(how, after=more)
        for _ in range(2):
            await _quiet(node)
            await asyncio.sleep(TIMER_MAX_S + 1)
        await _quiet(node)
        found_accounts = {key: await node.state(accounts, key) for key in "abc"}
        found_books = {key: await node.state(books, key) for key in ("book-0", "book-1", "late")}
        model.check(found_accounts, found_books, node.status().ledger, bank)


async def _send(node: Node, events: list[Sent]) -> list[bool]:
    """Send side by side until all are accepted, as a producer does. Returns which of them were duplicates."""
    duplicates = [False] * len(events)

    async def send(at: int, given_id: str, message: Message, priority: Priority) -> None:
        duplicates[at] = (await node.send(message, id=given_id, priority=priority)).duplicate

    left = list(range(len(events)))
    while left:
        answers = await asyncio.gather(*(send(at, *events[at]) for at in left), return_exceptions=True)
        for answer in answers:
            if answer is not None and not isinstance(answer, (NotAcceptedError, IntakeFullError)):
                raise answer
        left = [at for at, answer in zip(left, answers, strict=True) if answer is not None]
        await asyncio.sleep(0.01 * bool(left))
    return duplicates


async def _quiet(node: Node) -> None:
    """Wait until nothing waits, however often the store is opened again meanwhile."""
    while True:
        try:
            if not node.status().ledger.waiting:
                await asyncio.sleep(0.1)
                return
        except (IntakeFullError, StoreError):
            pass
        await asyncio.sleep(0.1)
