"""Time limits: an attempt that takes too long, a handler that will not stop, and an event whose life is over."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from genesis import App, Context, HandlerTimeoutError, Node, Retry, Settings, on
from genesis.core.errors import ContextClosedError
from tests.unit.runtime.support import Alarm, Done, Job, Log, inside, spoken

# --- timeout --------------------------------------------------------------------------------------------------------


async def test_an_attempt_over_its_timeout_is_a_failed_attempt() -> None:
    app, times = App("shop"), list[float]()

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=0.001))
    class Till:
        @on(Job, timeout=2.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            times.append(ctx.now())
            log.seen.append(job.n)
            ctx.emit(Done(n=job.n))
            await asyncio.sleep(1.9 if job.n == 1 else 2.1)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.send(Job("b", 2))
        await sim.settle()
        assert sim.state(Till, "a").seen == [1]
        assert sim.state(Till, "b").seen == []
        assert spoken(sim) == [1]
        (letter,) = sim.dead()
        assert (letter.error, letter.attempts) == ("HandlerTimeoutError", 2)
        assert letter.detail == "HandlerTimeoutError: till:job took over 2.0 s"
        assert 4.0 <= letter.died_at - times[0] <= 4.2
        assert [type(error) for _, error in sim.failures] == [HandlerTimeoutError] * 2


async def test_thirty_seconds_is_the_default_and_none_is_no_limit() -> None:
    app = App("shop")

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await asyncio.sleep(job.n)

        @on(Alarm, timeout=None)
        async def ring(self, alarm: Alarm, ctx: Context) -> None:
            await asyncio.sleep(alarm.n)

    async with app.simulate(errors="record") as sim:
        for n in (29, 31):
            await sim.send(Job(n=n))
        await sim.send(Alarm(n=300))
        await sim.settle()
        assert [letter.delivery.payload for letter in sim.dead()] == [b"\x82\xa3key\xa1a\xa1n\x1f"]
        assert sim.ledger.done == 2


async def test_a_handler_may_clean_up_when_its_time_is_over() -> None:
    app, cleaned = App("shop"), list[int]()

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, ctx: Context) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.5)
                cleaned.append(job.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.settle()
        assert cleaned == [1]
        assert sim.ledger.dead == 1
        assert (await inside(sim, _status)).stuck == 0


async def test_a_handler_that_returns_after_its_cancellation_has_failed_all_the_same() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        assert sim.state(Till, "a").seen == []
        assert [letter.error for letter in sim.dead()] == ["HandlerTimeoutError"]


# --- a handler that will not stop -----------------------------------------------------------------------------------


async def test_a_handler_that_ignores_its_cancellation_is_given_up_and_what_it_does_later_does_not_count() -> None:
    app, later = App("shop"), list[str]()

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            if job.n != 1:
                return
            for _ in range(50):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)
            for call in (
                lambda: ctx.emit(Done(n=99)),
                lambda: ctx.after(1, Done(n=99)),
                lambda: ctx.cancel("x"),
            ):
                with pytest.raises(ContextClosedError, match=r"this attempt at .* is over"):
                    call()
                later.append("closed")
            with pytest.raises(ContextClosedError):
                await ctx.once("x", lambda key: asyncio.sleep(0))
            later.append("closed")

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.send(Job("a", 2))
        await sim.advance(1.5)
        assert sim.state(Till, "a").seen == []
        await sim.advance(1)  # one second of timeout, one of grace
        assert sim.state(Till, "a").seen == [2], "its key is free"
        assert (await inside(sim, _status)).stuck == 1
        (letter,) = sim.dead()
        assert letter.detail.endswith("took over 1.0 s and ignored its cancellation")
        await sim.advance(100)
        assert later == ["closed"] * 4
        assert (await inside(sim, _status)).stuck == 0
        assert sim.state(Till, "a").seen == [2]
        assert spoken(sim) == []
        assert sim.ledger.imbalance() == ""


async def test_handlers_that_will_not_stop_take_no_slots_from_the_others() -> None:
    app, release, running, most = App("shop"), asyncio.Event(), 0, 0

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def hang(self, job: Job, ctx: Context) -> None:
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await release.wait()

        @on(Done)
        async def work(self, done: Done, ctx: Context) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1

    async with app.simulate(errors="record", settings=Settings(slots=4)) as sim:
        for n in range(12):
            await sim.send(Job(n=n))
        await sim.advance(10)
        assert (await inside(sim, _status)).stuck == 12
        for n in range(20):
            await sim.send(Done(n=n))
        await sim.settle()
        assert most == 4, "all slots are usable, and no more than there are"
        release.set()
        await sim.advance(1)
        assert (await inside(sim, _status)).stuck == 0
        most = 0
        for n in range(20):
            await sim.send(Done(n=n))
        await sim.settle()
        assert most == 4


async def test_the_number_of_slots_is_the_concurrency() -> None:
    app, running, most = App("shop"), 0, 0

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.1)
            running -= 1

    for slots in (1, 3, 64):
        most = 0
        async with app.simulate(settings=Settings(slots=slots)) as sim:
            for n in range(200):
                await sim.send(Job(n=n))
            await sim.settle()
        assert most == slots


async def _status(node: Node) -> object:
    return node.status()
