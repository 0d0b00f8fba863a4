"""What works inside a handler: timeouts, groups and variables of asyncio; and that a long one stands in nobody's way."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from genesis import App, Context, Retry, Settings, on
from genesis.core.errors import ContextClosedError
from tests.unit.runtime.support import Disk, Done, Job, Log, until


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
            with pytest.raises(ExceptionGroup):  # noqa: PT012
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


async def test_a_context_variable_that_a_handler_sets_is_not_seen_by_the_next() -> None:
    app, tenant, found = App("shop"), contextvars.ContextVar("tenant", default="nobody"), list[str]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            found.append(tenant.get())
            tenant.set(job.key)

    async with app.simulate() as sim:
        for key in "ab":
            await sim.send(Job(key))
        await sim.settle()
        assert found == ["nobody", "nobody"]
