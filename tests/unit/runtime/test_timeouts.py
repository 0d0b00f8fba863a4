"""Time limits: an attempt that takes too long, a handler that will not stop, and an event whose life is over."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress

import pytest

from genesis import App, Context, HandlerTimeoutError, Message, Node, Retry, Settings, on
from genesis.core.errors import ContextClosedError
from tests.unit.runtime.support import Alarm, Disk, Done, Job, Log, inside, spoken, until


class Quote(Message, type="quote", expires_after=10.0):
    key: str = "a"
    n: int = 0


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
                with pytest.raises(ContextClosedError, match="this attempt at .* is over"):
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


# --- asyncio inside a handler ---------------------------------------------------------------------------------------


async def test_timeouts_groups_and_shields_of_asyncio_work_inside_a_handler() -> None:
    app = App("shop")

    async def nap(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.sleep(10)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(nap(1)), 0.1)
            async with asyncio.TaskGroup() as group:
                naps = [group.create_task(nap(n / 10)) for n in range(3)]
            assert [task.result() for task in naps] == [0.0, 0.1, 0.2]
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(nap(100))
                    group.create_task(nap("x"))  # type: ignore[arg-type]
            assert await asyncio.gather(nap(0.1), nap(0.2)) == [0.1, 0.2]
            await asyncio.sleep(0)
            log.seen.append(job.n)

    async with app.simulate() as sim:
        for n in range(5):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Till, "a").seen == [0, 1, 2, 3, 4]


async def test_a_task_group_that_failed_leaves_nothing_behind_for_the_next_handler_of_its_slot() -> None:
    app = App("shop")

    async def fail() -> None:
        raise ValueError

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def group(self, job: Job, ctx: Context) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

        @on(Done)
        async def wait_for_something_cancelled(self, done: Done, ctx: Context) -> None:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.1, gone.cancel)
            await gone

    async with app.simulate(errors="record", settings=Settings(slots=1)) as sim:
        for _ in range(3):
            await sim.send(Job())
            await sim.send(Done())
        await sim.settle()
        assert [letter.error for letter in sim.dead()] == ["ExceptionGroup", "GenesisError"] * 3


async def test_a_timeout_of_the_handler_ends_a_task_group_inside_it() -> None:
    app, ended = App("shop"), list[str]()

    async def nap() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            if job.n:
                return
            async with asyncio.timeout(50), asyncio.TaskGroup() as group:
                group.create_task(nap())
                group.create_task(nap())

    async with app.simulate(errors="record") as sim:
        for n in (0, 1):
            await sim.send(Job("a", n))
        await sim.settle()
        assert ended == ["cancelled"] * 2
        assert sim.state(Till, "a").seen == [1]
        assert [letter.error for letter in sim.dead()] == ["HandlerTimeoutError"]


async def test_a_handler_keeps_its_task_and_its_context_variables_from_its_first_step_to_its_last() -> None:
    app, tenant = App("shop"), contextvars.ContextVar("tenant", default=-1)

    @app.component(key="n")
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            tenant.set(job.n)
            task = asyncio.current_task()
            for _ in range(5):
                await asyncio.sleep(0.001 * (job.n % 5))
                assert tenant.get() == job.n
                assert asyncio.current_task() is task
            assert await asyncio.create_task(self.look()) == job.n

        async def look(self) -> int:
            return tenant.get()

    async with app.simulate() as sim:
        for n in range(100):
            await sim.send(Job(n=n))
        await sim.settle()
        assert sim.ledger.done == 100
        assert tenant.get() == -1


async def test_a_task_that_outlives_its_handler_finds_the_context_closed() -> None:
    app, found = App("shop"), list[str]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            asyncio.create_task(self.later(ctx))  # noqa: RUF006 - what a user might write

        async def later(self, ctx: Context) -> None:
            await asyncio.sleep(1)
            try:
                ctx.emit(Done())
            except ContextClosedError:
                found.append("closed")

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
        await sim.advance(5)
        assert found == ["closed"]


async def test_a_long_handler_does_not_stop_the_position_of_its_lane() -> None:
    app, release = App("shop"), asyncio.Event()

    @app.component(key="n", state=Log)
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            if job.n == 0:
                await release.wait()

    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job(n=0))
        await node.send_many([Job(n=1 + n % 50) for n in range(3000)])
        await node.send(Job(n=0))
        await until(lambda: node.status().ledger.done >= 3000)
        await until(lambda: node.status().ledger.in_pending == 1)
        release.set()
        await until(lambda: node.status().ledger.done == 3002)
        await asyncio.sleep(1)
        assert (await node.state(Till, 0)).seen == [0, 0]
        assert node.status().imbalance == ""


# --- expires_after --------------------------------------------------------------------------------------------------


async def test_an_event_that_was_not_begun_in_its_life_ends_as_expired() -> None:
    app, made, release = App("shop"), list[int](), asyncio.Event()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            if quote.n == 0:
                await release.wait()

    async with app.simulate() as sim:
        await sim.send(Quote("a", 0))
        await sim.send(Quote("a", 1))
        await sim.advance(5)
        await sim.send(Quote("a", 2))
        await sim.advance(7)
        release.set()
        await sim.settle()
        assert made == [0, 2]
        assert (sim.ledger.expired, sim.ledger.done, sim.ledger.dead) == (1, 2, 0)
        assert sim.ledger.imbalance() == ""
        assert (await inside(sim, _status)).ended["NORMAL"] == 3


async def test_what_expired_in_the_store_is_counted_without_being_read() -> None:
    app, made, release = App("shop"), list[int](), asyncio.Event()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            if quote.n == 0:
                await release.wait()

    async with app.simulate(settings=Settings(window_bytes=1000, slots=1)) as sim:
        for n in range(500):
            await sim.send(Quote(str(n), n))
        await sim.advance(60)
        release.set()
        await sim.send(Quote("x", 500))
        await sim.settle()
        assert made == [0, 500]
        assert (sim.ledger.expired, sim.ledger.done) == (499, 2)
        assert sim.ledger.imbalance() == ""


async def test_what_expired_while_the_node_was_away_ends_as_expired() -> None:
    app, made = App("shop"), list[int]()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            await asyncio.sleep(1000)

    disk = Disk()
    async with disk.node(app, slots=1, drain_s=0.1) as node:
        await node.send_many([Quote(n=n) for n in range(5)])
        await until(lambda: made)
    await asyncio.sleep(20)
    made.clear()
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.expired == 5)
        assert made == []
        assert node.status().imbalance == ""


async def _status(node: Node) -> object:
    return node.status()
