"""The same promises on an engine whose commits take no time: ``app.running(store="memory:")``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from genesis import (
    App,
    AskFailedError,
    Context,
    IntakeFullError,
    Message,
    Node,
    Reject,
    Request,
    Retry,
    UnavailableError,
    UnknownTypeError,
    every,
    on,
)
from genesis.layers.prevention.admission import AdmissionSettings
from tests.unit.runtime.support import Alarm, Disk, Done, Job, Log, until


class Add(Request[int], type="add"):
    key: str = "a"
    n: int = 0


class Look(Request[int], type="look"):
    key: str = "a"


def shop(fails: dict[int, int] | None = None, order: str = "hold") -> tuple[App, type, type]:
    """Jobs with a number above 900 wait a second, those above 800 are rejected."""
    app, left = App("shop"), dict(fails or {})

    @app.component(key="key", state=Log, retry=Retry(attempts=3, base_s=1.0), order=order)  # type: ignore[arg-type]
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n > 900:
                await asyncio.sleep(1)
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))
            if job.n % 10 == 0:
                ctx.after(30, Alarm(job.key, job.n + 1))
            if 800 < job.n < 900:
                raise Reject("no")
            if left.get(job.n, 0):
                left[job.n] -= 1
                raise ConnectionError

        @on(Alarm)
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(alarm.n)

        @on(Add)
        async def add(self, add: Add, log: Log, ctx: Context) -> int:
            log.seen.append(add.n)
            return sum(log.seen)

        @on(Look, read_only=True)
        async def look(self, look: Look, log: Log, ctx: Context) -> int:
            return len(log.seen)

    @app.component(key="key", state=Log)
    class Book:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(done.n)

    return app, Till, Book


async def quiet(node: Node) -> None:
    await asyncio.sleep(0.01)  # what was accepted is counted at the next step of the loop
    await until(lambda: node.status().ledger.waiting == 0)
    assert node.status().imbalance == ""


async def test_events_are_handled_in_order_and_what_they_emit_too() -> None:
    app, till, book = shop()
    async with Disk().node(app, immediate=True) as node:
        for n in range(1, 300):
            await node.send(Job("abc"[n % 3], n))
        await node.send_many([Job("abc"[n % 3], n) for n in range(300, 800)])
        await quiet(node)
        for offset, key in enumerate("abc"):
            jobs = [n for n in range(1, 800) if n % 3 == offset]
            assert (await node.state(till, key)).seen == jobs
            assert (await node.state(book, key)).seen == jobs
        await asyncio.sleep(31)
        await quiet(node)
        assert node.status().ledger.timer == 79
        assert node.status().latency_s["NORMAL"]["max"] >= 0


async def test_failures_are_tried_again_and_hold_their_key() -> None:
    app, till, book = shop({1: 2, 5: 3})
    async with Disk().node(app, immediate=True) as node:
        for n in (1, 2, 801, 5, 6):
            await node.send(Job("a", n))
        await node.send(Job("b", 7))
        await quiet(node)
        assert (await node.state(till, "a")).seen == [1, 2, 6] == (await node.state(book, "a")).seen
        assert (await node.state(till, "b")).seen == [7]
        ledger = node.status().ledger
        assert (ledger.dead, ledger.retries, ledger.done) == (2, 4, 8)


async def test_parked_and_dead_deliveries_are_replayed() -> None:
    app, till, _ = shop({1: 3}, order="park")
    async with Disk().node(app, immediate=True) as node:
        for n in (1, 2):
            await node.send(Job("a", n))
        await until(lambda: node.status().parked == 1)
        (key,) = await node.operator._dead_keys()
        assert await asyncio.gather(node.operator.replay(key), node.operator.replay(key)) == [True, False]
        await quiet(node)
        assert (await node.state(till, "a")).seen == [1, 2]


async def test_duplicates_are_told_at_once() -> None:
    app, till, _ = shop()
    async with Disk().node(app, immediate=True) as node:
        receipts = await asyncio.gather(*(node.send(Job("a", 1), id="1") for _ in range(3)))
        assert [receipt.duplicate for receipt in receipts] == [False, True, True]
        await quiet(node)
        assert (await node.state(till, "a")).seen == [1]
        with pytest.raises(UnknownTypeError):
            await node.send(Nobody())
        ledger = node.status().ledger
        assert (ledger.offered, ledger.accepted, ledger.duplicate, ledger.refused) == (4, 1, 2, 1)


async def test_questions_are_answered() -> None:
    app, _till, _ = shop()
    async with Disk().node(app, immediate=True) as node:
        assert await node.ask(Add(n=5), id="1") == 5
        assert await node.ask(Add(n=6)) == 11
        assert await node.ask(Add(n=5), id="1") == 5
        assert await node.ask(Look()) == 2
        assert await asyncio.gather(*(node.ask(Add("b", 1), id="2") for _ in range(5))) == [1] * 5


async def test_a_handler_may_ask_call_once_and_take_too_long() -> None:
    app, calls = App("shop"), list[str]()

    async def charge(key: str) -> int:
        calls.append(key)
        await asyncio.sleep(0.1)
        return len(calls)

    @app.component(key="n", state=Log, retry=Retry(attempts=2, base_s=1))
    class Till:
        @on(Job, timeout=2.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(await ctx.once("charge", charge))
            log.seen.append(await ctx.ask(Add(n=job.n)))
            if ctx.attempt == 1:
                raise ConnectionError
            if job.n == 2:
                await asyncio.sleep(10)

    @app.component(key="key", state=Log)
    class Sums:
        @on(Add)
        async def add(self, add: Add, log: Log, ctx: Context) -> int:
            if add.n == 3:
                raise Reject("no")
            return add.n

    async with Disk().node(app, immediate=True, slots=2) as node:
        for n in (1, 2, 3):
            await node.send(Job(n=n))
        await quiet(node)
        assert (await node.state(Till, 1)).seen[1:] == [1]
        assert len(calls) == 3
        assert node.status().ledger.dead == 3  # the second, the third, and the question that was rejected
        with pytest.raises(AskFailedError):
            await node.ask(Add(n=3))


async def test_an_unavailable_dependency_counts_no_attempt() -> None:
    app, down, charged = App("shop"), True, list[int]()

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            if down:
                raise UnavailableError("bank", 5)
            charged.append(job.n)

    async with Disk().node(app, immediate=True) as node:
        for n in range(200):
            await node.send(Job(n=n))
        await asyncio.sleep(600)
        assert node.status().ledger.waiting == 200
        down = False
        await quiet(node)
        assert sorted(charged) == list(range(200))


async def test_it_stops_in_order_and_another_goes_on_with_the_same_storage() -> None:
    app, till, book = shop({1: 1})
    disk = Disk()
    async with disk.node(app, immediate=True, drain_s=0.1) as node:
        for n in (901, 902, 1, 10):
            await node.send(Job("a", n), id=str(n))
        await asyncio.sleep(0.5)
    async with disk.node(app, immediate=True) as node:
        assert node.status().ledger.waiting == 4
        await quiet(node)
        await asyncio.sleep(40)
        assert (await node.state(till, "a")).seen == [901, 902, 1, 10, 11]
        assert (await node.state(book, "a")).seen == [901, 902, 1, 10]
        assert node.status().ledger.retries == 1


async def test_a_source_does_not_run_away_from_the_handlers() -> None:
    app, most = App("river"), 0

    @app.component(key="key", state=Log)
    class Bank:
        @on(Job)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            nonlocal most
            most = max(most, given - job.n)
            log.seen.append(job.n)

    given = 0

    @app.source
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        nonlocal given
        for n in range(20_000):
            given = n
            yield n, Job(str(n % 10), n)

    async with Disk().node(app, immediate=True) as node:
        await until(lambda: node.status().ledger.done == 20_000)
        assert most < 10_000
        assert (await node.state(Bank, 3)).seen == list(range(3, 20_000, 10))


async def test_producers_that_never_wait_leave_the_handlers_their_turn() -> None:
    app, _till, _ = shop()
    async with Disk().node(app, immediate=True) as node:
        for _ in range(5000):
            await node.send(Job("a", 1))
        assert node.status().ledger.done > 2000
        await quiet(node)


async def test_a_full_backlog_is_refused() -> None:
    app, release = App("shop"), asyncio.Event()

    @app.component(key="n")
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, ctx: Context) -> None:
            await release.wait()

    async with Disk().node(app, immediate=True, admission=AdmissionSettings(backlog_max=100)) as node:
        with pytest.raises(IntakeFullError):  # noqa: PT012
            for n in range(300):
                await node.send(Job(n=n))
                await asyncio.sleep(0)
        release.set()
        await quiet(node)


async def test_schedules_run() -> None:
    app, ticks = App("heart"), list[float]()

    @app.component(single=True)
    class Heart:
        @every(10)
        async def beat(self, ctx: Context) -> None:
            ticks.append(ctx.now())

    async with Disk().node(app, immediate=True):
        await asyncio.sleep(35)
    assert len(ticks) == 3


async def test_handlers_that_will_not_stop_are_given_up() -> None:
    app, stop = App("shop"), asyncio.Event()

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            while job.n == 1 and not stop.is_set():
                with suppress(asyncio.CancelledError):
                    await stop.wait()

    async with Disk().node(app, immediate=True, slots=1) as node:
        for n in (1, 2):
            await node.send(Job("a", n))
        await quiet(node)
        assert (await node.state(Till, "a")).seen == [2]
        assert node.status().stuck == 1
        stop.set()
        await asyncio.sleep(1)
        assert node.status().stuck == 0


class Nobody(Message, type="nobody"):
    pass
