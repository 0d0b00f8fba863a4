"""The workload of the simulations: an app whose producers pay into accounts, and what each payment brings about.

What an event does is decided when it is made, and written in it: the checker reads it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from random import Random

from genesis import App, Context, Item, Message, Priority, Reject, Request, Retry, State, UnavailableError, every, on
from tests.simulation.check_archive import BATCH, refused_by_archive
from tests.simulation.outside import Outside

KEYS = 12
BOOKS = 3
TIMER_MAX_S = 8.0
TICK_S = 5.0
READINGS = 40
SAFES = 2
BEHIND = 2
"""Sealed ones that follow one that may jam their safe."""
SHORT_S, LONG_S = 1.0, 5e6
"""How long a fleeting offer lives, and one that no jump of a clock ends."""


class Deposit(Message, type="deposit"):
    key: str
    n: int
    fails: int = 0
    """Attempts that fail before one succeeds."""
    trouble: str = "error"
    """How they fail: ``error``, ``unavailable``, or ``timeout``."""
    end: str = "ok"
    """``ok``, or ``rejected``: no attempt ever succeeds."""
    notes: int = 0
    """Events that it emits."""
    timer_s: float = 0.0
    """When its timer fires; 0: it sets none."""
    cancels: bool = False
    """Whether it sets another timer, named, and cancels it."""
    charges: bool = False
    """Whether it calls the outside once."""
    tips: bool = False
    """Whether its first attempt, and no other, calls the outside too."""
    asks: bool = False
    """Whether it asks another component."""
    waits_s: float = 0.0


class Hopeless(Message, type="deposit.hopeless"):
    key: str
    n: int


class Deadly(Message, type="deposit.deadly"):
    """Kills the process whenever it runs."""

    key: str
    n: int


class Statement(Message, type="statement"):
    """Goes to two components."""

    key: str
    n: int
    rejects: str = ""
    """Which component rejects it."""
    behind: int = 0
    """The auditors fail at it until they have met this later one, which does not wait for it."""


class Sealed(Message, type="sealed"):
    """Goes into a safe. Once its attempts are spent, it jams the safe until somebody comes."""

    key: str
    n: int
    fails: int = 0
    """Attempts that fail."""
    dropped: bool = False
    """No attempt ever succeeds, and whoever comes throws it away."""


class Line(Message, type="line"):
    """One of several that are sent in one go."""

    key: str
    n: int


class Fleeting(Message, type="offer.fleeting", expires_after=SHORT_S):
    key: str
    n: int


class Lasting(Message, type="offer.lasting", expires_after=LONG_S):
    key: str
    n: int


class Fragile(Message, type="fragile"):
    """Needs something that is down more often than it has attempts."""

    key: str
    n: int
    times: int


class Reading(Message, type="reading"):
    """Given by the source."""

    key: str
    n: int


class Note(Message, type="note", priority=Priority.HIGH):
    key: str
    n: int
    due: float = 0.0
    """Of one that a timer sent: by the clock of the handler that set it."""


class Balance(Request[tuple[int, int]], type="balance"):
    key: str


class Peek(Request[tuple[int, int]], type="peek"):
    key: str


class Rate(Request[int], type="rate"):
    n: int


class Account(State):
    total: int = 0
    seen: list[tuple[int, int]] = []  # noqa: RUF012 - msgspec copies it
    """(priority, number) of each deposit, in the order in which they took effect."""
    charges: dict[int, int] = {}  # noqa: RUF012
    """By number, which call to the outside counted."""
    rates: dict[int, int] = {}  # noqa: RUF012
    """By number, the answer of the other component."""


class Book(State):
    notes: dict[int, int] = {}  # noqa: RUF012
    """How often each note was heard."""
    heard: dict[int, tuple[float, float, float]] = {}  # noqa: RUF012
    """Of those that timers sent: when it was due, and when it was heard, by the slowest wall clock and in virtual time."""
    traces: dict[int, str] = {}  # noqa: RUF012
    """Of those whose event bore a trace: which."""


class Log(State):
    seen: list[int] = []  # noqa: RUF012
    """Numbers, in the order in which they took effect."""


class Safe(State):
    seen: list[tuple[int, int]] = []  # noqa: RUF012
    """(priority, number), in the order in which they took effect."""


class Ticks(State):
    dues: list[float] = []  # noqa: RUF012


PATIENT = Retry(attempts=100_000, base_s=0.1, cap_s=1.0)
"""So many attempts that no crash can use them up, and no clock that was set back."""


def bank(outside: Outside) -> App:
    """The application."""
    app = App("bank")
    _accounts(app, outside)
    _rates(app)
    _books(app, outside)
    _desks(app, outside)
    _audit(app, outside)
    _safes(app, outside)
    _archive(app, outside)

    @app.source
    async def meter(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, READINGS):
            if n % 8 == 7 and n not in outside.unread:
                outside.unread.add(n)
                raise ConnectionError("the meter is not read today")
            if n % 3:
                await asyncio.sleep(0.2)
            yield n, Reading("meter", n)

    return app


def _accounts(app: App, outside: Outside) -> None:
    @app.component(key="key", state=Account, retry=PATIENT)
    class Accounts:
        @on(Deposit, timeout=1.0)
        async def deposit(self, deposit: Deposit, account: Account, ctx: Context) -> None:
            n = deposit.n
            outside.begins(n, ctx)
            account.total += n  # before it may fail: nothing of it may stay
            account.seen.append((int(ctx.priority), n))
            _causes(deposit, ctx)
            if deposit.waits_s:
                await asyncio.sleep(deposit.waits_s)
            if deposit.charges:
                account.charges[n] = await outside.charge(n, ctx)
            if deposit.tips and ctx.attempt == 1:
                await ctx.once("tip", outside.tip)
            if deposit.asks:
                outside.asked += 1
                account.rates[n] = await ctx.ask(Rate(n))
            await outside.trouble(n, deposit.fails, deposit.trouble, deposit.end)

        @on(Hopeless, retry=Retry(attempts=3, base_s=0.1))
        async def fail(self, hopeless: Hopeless, account: Account, ctx: Context) -> None:
            account.total += 1_000_000
            ctx.emit(Note("book-0", -1))
            raise ValueError("never")

        @on(Deadly, retry=Retry(attempts=3, base_s=0.1))
        async def die(self, deadly: Deadly, account: Account, ctx: Context) -> None:
            account.total += 1_000_000
            outside.kill(deadly.n)

        @on(Balance)
        async def balance(self, balance: Balance, account: Account, ctx: Context) -> tuple[int, int]:
            return account.total, len(account.seen)

        @on(Peek, read_only=True)
        async def peek(self, peek: Peek, account: Account, ctx: Context) -> tuple[int, int]:
            return account.total, len(account.seen)


def _causes(deposit: Deposit, ctx: Context) -> None:
    n = deposit.n
    for note in range(deposit.notes):
        ctx.emit(Note(f"book-{n % BOOKS}", 10 * n + note))
    if deposit.timer_s:
        ctx.after(deposit.timer_s, Note("late", n, ctx.now() + deposit.timer_s))
    if deposit.cancels:
        ctx.after(0.5, Note("never", n), name=f"never-{n}")
        ctx.cancel(f"never-{n}")


def _rates(app: App) -> None:
    @app.component(retry=PATIENT)
    class Rates:
        @on(Rate)
        def rate(self, rate: Rate, ctx: Context) -> int:
            return 2 * rate.n


def _books(app: App, outside: Outside) -> None:
    @app.component(key="key", state=Book, retry=PATIENT)
    class Books:
        @on(Note, timeout=1.0)
        async def note(self, note: Note, book: Book, ctx: Context) -> None:
            n = note.n
            book.notes[n] = book.notes.get(n, 0) + 1
            if note.due:
                outside.due(f"the timer of {n}", note.due)
                book.heard[n] = note.due, outside.lowest_wall(), outside.now()
            if ctx.headers:
                book.traces[n] = repr(ctx.headers)

    @app.component(single=True, state=Ticks, retry=PATIENT)
    class Clockwork:
        @every(TICK_S, timeout=1.0)
        async def tick(self, ticks: Ticks, ctx: Context) -> None:
            due = float(ctx.event_id.partition("@")[2])
            outside.due("a tick", due)
            ticks.dues.append(due)
            await asyncio.sleep(0.01)


def _desks(app: App, outside: Outside) -> None:
    @app.component(key="key", state=Log, retry=PATIENT)
    class Desks:
        @on(Fleeting, timeout=1.0)
        async def fleeting(self, offer: Fleeting, log: Log, ctx: Context) -> None:
            log.seen.append(offer.n)

        @on(Lasting, timeout=1.0)
        def lasting(self, offer: Lasting, log: Log, ctx: Context) -> None:
            log.seen.append(offer.n)

        @on(Line, timeout=1.0)
        async def line(self, line: Line, log: Log, ctx: Context) -> None:
            log.seen.append(line.n)

        @on(Fragile, timeout=1.0, retry=Retry(attempts=2, base_s=0.1))
        async def fragile(self, fragile: Fragile, log: Log, ctx: Context) -> None:
            outside.begins(fragile.n, ctx)
            log.seen.append(fragile.n)
            if outside.fails(fragile.n, fragile.times):
                raise UnavailableError("the vault", 0.2)

        @on(Reading, timeout=1.0)
        async def reading(self, reading: Reading, log: Log, ctx: Context) -> None:
            log.seen.append(reading.n)


def _audit(app: App, outside: Outside) -> None:
    @app.component(retry=PATIENT)
    class Mail:
        @on(Statement, timeout=1.0)
        async def mail(self, statement: Statement, ctx: Context) -> None:
            ctx.emit(Note("mail", statement.n))
            if statement.rejects == "mail":
                raise Reject("no such house")
            await asyncio.sleep(0.005)

    @app.component(key="key", state=Log, retry=PATIENT, order="skip")
    class Audit:
        @on(Statement, timeout=1.0)
        async def audit(self, statement: Statement, log: Log, ctx: Context) -> None:
            outside.ran.add(statement.n)
            log.seen.append(statement.n)
            if statement.rejects == "audit":
                raise Reject("no such account")
            if statement.behind and statement.behind not in outside.ran:
                raise ConnectionError("not before the next one")


def _safes(app: App, outside: Outside) -> None:
    @app.component(key="key", state=Safe, retry=Retry(attempts=2, base_s=0.1), order="park")
    class Safes:
        @on(Sealed, timeout=1.0)
        def put(self, sealed: Sealed, safe: Safe, ctx: Context) -> None:
            outside.opens(sealed.n, ctx)
            safe.seen.append((int(ctx.priority), sealed.n))
            ctx.emit(Note("safe", sealed.n))
            if sealed.dropped or outside.fails(sealed.n, sealed.fails):
                raise ConnectionError("jammed")


def _archive(app: App, outside: Outside) -> None:
    @app.sink(Deposit, batch=BATCH, timeout=1.0, retry=PATIENT)
    async def archive(items: Sequence[Item[Deposit]]) -> None:
        numbers = [item.number for item in items]
        outside.arrive(numbers, [item.id for item in items])
        await asyncio.sleep(0.001)
        for item in items:
            n = item.message.n
            if refused_by_archive(n):
                raise Reject("not for the archive")
            if n % 29 == 3 and outside.fails(-n, 1 + n % 3):
                raise UnavailableError("the archive", 0.2)
            if n % 31 == 5 and outside.fails(-n, 2):
                raise ConnectionError("the archive is shut")
            if n % 97 == 11 and outside.fails(-n, 1):
                await asyncio.sleep(100)
        outside.archived += zip(numbers, [item.id for item in items], strict=True)


Sent = tuple[str, Message, Priority, dict[str, str] | None]
"""Id, message, priority, headers."""


def events(rng: Random, count: int, producer: int) -> Iterator[Sent]:
    """What a producer sends, one after the other."""
    at = 0
    while at < count:
        n = (producer + 1) * 10_000 + at
        key, priority = f"a{rng.randrange(KEYS)}", Priority(rng.choice((0, 1, 2, 2, 2, 3, 4)))
        headers = {"traceparent": f"00-{n}", "shop": "7"} if rng.random() < 0.03 else None
        message = deposit(rng, key, n) if rng.random() < 0.9 else other(rng, key, n)
        yield f"p{producer}-{at}", message, priority, headers
        at += 1
        if isinstance(message, Statement) and message.behind:
            yield f"p{producer}-{at}", Statement(key, n + 1), priority, None
            at += 1
        if isinstance(message, Sealed):
            for behind in range(1, 1 + BEHIND):
                yield f"p{producer}-{at}", Sealed(message.key, n + behind), priority, None
                at += 1


def deposit(rng: Random, key: str, n: int) -> Deposit:
    """The usual event."""
    fails = rng.choice((1, 1, 2, 3)) if rng.random() < 0.04 else 0
    return Deposit(
        key,
        n,
        fails=fails,
        trouble=rng.choice(("error", "error", "unavailable", "timeout")) if fails else "error",
        end="rejected" if rng.random() < 0.01 else "ok",
        notes=rng.choice((0, 0, 0, 0, 1, 2)),
        timer_s=round(rng.uniform(0.1, TIMER_MAX_S), 2) if rng.random() < 0.05 else 0.0,
        cancels=rng.random() < 0.02,
        charges=rng.random() < 0.04,
        tips=fails > 0 and rng.random() < 0.5,
        asks=not fails and rng.random() < 0.02,
        waits_s=round(rng.uniform(0.001, 0.05), 3) if rng.random() < 0.2 else 0.0,
    )


def other(rng: Random, key: str, n: int) -> Message:
    """One of those that are rare."""
    make: dict[str, tuple[int, Callable[[], Message]]] = {
        "hopeless": (10, lambda: Hopeless(key, n)),
        "deadly": (1, lambda: Deadly(key, n)),
        "statement": (40, lambda: Statement(key, n, rejects=rng.choice(("mail", "audit")) if rng.random() < 0.2 else "")),
        "behind": (3, lambda: Statement(key, n, behind=n + 1)),
        "sealed": (
            4,
            lambda: Sealed(f"s{n % SAFES}", n, fails=rng.choice((0, 2, 2, 3, 5)), dropped=rng.random() < 0.2),
        ),
        "fleeting": (12, lambda: Fleeting(f"d{n % 3}", n)),
        "lasting": (6, lambda: Lasting(f"d{n % 3}", n)),
        "fragile": (12, lambda: Fragile(f"d{n % 3}", n, rng.randint(3, 6))),
    }
    (kind,) = rng.choices(list(make), [often for often, _ in make.values()])
    return make[kind][1]()
