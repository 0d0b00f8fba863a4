"""The simulation itself: what users test their components with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from genesis import App, Context, Retry, Settings, State, every, on
from genesis.chaos.loop import DeadlockError, VirtualLoop, waiting_at
from genesis.chaos.process import EPOCH
from genesis.chaos.simulation import SettleError
from tests.unit.runtime.support import CRASH_POINTS, Disk, Done, Job, Log, inside, spoken, until


class Tally(State):
    count: int = 0


def shop(fails: int = 0) -> tuple[App, type]:
    app, left = App("shop"), [fails]

    @app.component(key="key", state=Log, retry=Retry(attempts=3))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if left[0]:
                left[0] -= 1
                raise ConnectionError(f"fails {job.n}")
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))

    return app, Till


async def test_what_settled_is_committed() -> None:
    app, till = shop()
    async with app.simulate() as sim:
        for n in range(20):
            await sim.send(Job("a", n))
            await sim.settle()
            assert sim.state(till, "a").seen == spoken(sim) == list(range(n + 1))
            await sim.crash()
            assert sim.state(till, "a").seen == list(range(n + 1))


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_emitted_messages_are_told_once_though_the_node_dies_as_it_commits_them(point: str) -> None:
    app, till = shop()
    async with app.simulate() as sim:
        for n in range(12):
            sim.crash_at(point, after=n % 3)
            await sim.send(Job("a", n))
            await sim.settle()
        assert sim.state(till, "a").seen == spoken(sim) == list(range(12))
        assert sim.crashes >= 8


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_a_node_may_be_killed_while_it_starts(point: str) -> None:
    app = App("shop")

    @app.component(single=True, state=Tally)
    class Till:
        @every(10)
        async def beat(self, tally: Tally, ctx: Context) -> None:
            tally.count += 1

        @on(Job)
        async def serve(self, job: Job, tally: Tally, ctx: Context) -> None:
            await asyncio.sleep(5)
            tally.count += 100

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.advance(1)
        for after in range(3):
            await sim.crash()
            sim.crash_at(point, after=after)
            await sim.crash()
        await sim.settle()
        assert sim.state(Till).count % 100 < 3
        assert sim.state(Till).count >= 100
        assert sim.ledger.imbalance() == ""


async def test_a_point_counts_what_the_test_does_and_not_the_first_start() -> None:
    app, _till = shop()
    async with app.simulate() as sim:
        sim.crash_at("append")
        assert sim.crashes == 0
        await sim.send(Job("a", 1))
        assert sim.crashes == 1


async def test_a_point_that_was_never_reached_does_no_harm() -> None:
    app, _till = shop()
    async with app.simulate() as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        for point in CRASH_POINTS:
            sim.crash_at(point, after=0)
    with pytest.raises(ValueError, match="'comit' is no crash point; they are append, execute, commit, answer, handoff"):
        sim.crash_at("comit")


async def test_a_simulation_may_begin_with_a_crash() -> None:
    app, till = shop()
    async with app.simulate() as sim:
        await sim.crash()
        await sim.crash()
        await sim.send(Job("a", 1))
        await sim.settle()
        assert sim.state(till, "a").seen == [1]
        assert sim.crashes == 2


async def test_time_stands_still_between_the_calls() -> None:
    app, _till = shop()
    async with app.simulate() as sim:
        begin = sim.now()
        assert EPOCH <= begin < EPOCH + 1
        await asyncio.sleep(100)
        assert sim.now() == begin
        await sim.advance(7.25)
        assert sim.now() == pytest.approx(begin + 7.25)
        await sim.advance(0)
        assert sim.now() == pytest.approx(begin + 7.25)


async def test_an_hour_passes_in_a_moment() -> None:
    app, till = shop()
    async with app.simulate() as sim:
        await sim.advance(3600)
        await sim.send(Job("a", 1))
        await sim.settle()
        assert sim.state(till, "a").seen == [1]


async def test_settling_ends_when_nothing_is_left_and_says_so_when_an_hour_is_not_enough() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, ctx: Context) -> None:
            ctx.emit(Job(n=job.n + 1))
            await asyncio.sleep(60)

        @on(Done, timeout=None)
        async def wait(self, done: Done, ctx: Context) -> None:
            await asyncio.sleep(1800)

    async with app.simulate(errors="record") as sim:
        begin = sim.now()
        await sim.send(Done())
        await sim.settle()
        assert 1800 <= sim.now() - begin < 1830
        await sim.send(Job())
        with pytest.raises(SettleError, match="after an hour 1 deliveries still wait"):
            await sim.settle()


async def test_errors_are_raised_one_after_the_other_or_recorded() -> None:
    app, till = shop(fails=2)
    async with app.simulate() as sim:
        await sim.send(Job("a", 1))
        for _ in range(2):
            with pytest.raises(ConnectionError, match="fails 1"):
                await sim.settle()
        await sim.settle()
        assert sim.state(till, "a").seen == [1]
    app, till = shop(fails=2)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        assert [(route, type(error)) for route, error in sim.failures] == [("till:job", ConnectionError)] * 2
    with pytest.raises(ValueError, match="raise or record"):
        async with app.simulate(errors="ignore"):
            pytest.fail("it runs")


async def test_an_error_in_the_test_comes_out_of_the_block() -> None:
    app, _ = shop()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with app.simulate() as sim:
            await sim.send(Job("a", 1))
            raise ZeroDivisionError


async def story(seed: int) -> list[Any]:
    """Everything that can be seen of a run with chance in it: retries, crashes, timers, many keys."""
    app, told = App("shop"), list[Any]()

    @app.component(key="key", state=Log, retry=Retry(attempts=4))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            told.append((job.n, ctx.attempt, ctx.now(), ctx.event_id))
            await asyncio.sleep(0.01 * (job.n % 3))
            if (job.n + ctx.attempt) % 3 == 0:
                raise ConnectionError
            log.seen.append(job.n)
            if job.n < 50:
                ctx.after(job.n, Job(job.key, job.n + 100))

    async with app.simulate(seed=seed, errors="record") as sim:
        for n in range(50):
            if n % 10 == 0:
                sim.crash_at(CRASH_POINTS[n // 10], after=2)
            await sim.send(Job("abcd"[n % 4], n))
        await sim.advance(100)
        await sim.settle()
        told += [sim.state(Till, key).seen for key in "abcd"]
        told += [sim.ledger, sim.now(), sim.crashes]
    return told


async def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    first = await story(1)
    assert await story(1) == first
    assert await story(2) != first


async def test_settings_count_in_a_simulation() -> None:
    app, _ = shop()
    async with app.simulate(settings=Settings(slots=3)) as sim:
        assert sim.node._life._settings.slots == 3


async def test_plain_functions_run_in_a_simulation_too() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=2))
    class Till:
        @on(Job)
        def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            ctx.emit(Done(n=job.n))
            ctx.after(5, Done(n=100 + job.n))
            if ctx.attempt == 1 and job.n == 2:
                raise ValueError

        @on(Done)
        def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(10 * done.n)

    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("b", n))
        await sim.settle()
        await sim.advance(10)
        assert sim.state(Till, "b").seen == [1, 2, 3]
        assert sorted(sim.state(Till, "a").seen) == [10, 20, 30, 1010, 1020, 1030]


# --- the loop -------------------------------------------------------------------------------------------------------


def test_a_loop_without_anything_left_to_happen_says_who_waits() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    waiting = pytest.raises(DeadlockError, match=r"nothing can happen any more\. Waiting: task-1 waits in test_a_loop")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, waiting:
        runner.run(wait_for_ever())


def test_the_loop_jumps_over_the_time_that_is_waited() -> None:
    async def wait() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for seconds in (5, 0.25, 86_400):
            await asyncio.sleep(seconds)
            times.append(loop.time())
        return times

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(wait()) == [0.0, 5.0, 5.25, 86_405.25]


# --- status ---------------------------------------------------------------------------------------------------------


async def test_the_status_says_where_a_node_stands() -> None:
    app, _till = shop(fails=1)

    @app.component
    class Slow:
        @on(Done, timeout=None)
        async def wait(self, done: Done, ctx: Context) -> None:
            await asyncio.sleep(50)

    disk = Disk()
    async with disk.node(app) as node:
        empty = node.status()
        assert (empty.app, empty.running, empty.stuck, empty.parked, empty.paused, empty.sources) == ("shop", 0, 0, 0, {}, {})
        assert empty.latency_s == {}
        assert set(empty.waiting.values()) == set(empty.born.values()) == set(empty.ended.values()) == {0}

        for n in range(10):
            await node.send(Job(str(n), n))
        await until(lambda: node.status().running == 10)
        status = node.status()
        assert (status.born["NORMAL"], status.ended["NORMAL"], status.waiting["NORMAL"]) == (20, 10, 10)
        assert (status.ledger.external, status.ledger.emitted, status.ledger.done, status.ledger.retries) == (10, 10, 10, 1)
        assert status.imbalance == ""
        assert status.at == pytest.approx(EPOCH + asyncio.get_running_loop().time())

        await until(lambda: node.status().running == 0)
        latency = node.status().latency_s
        assert list(latency) == ["NORMAL"]
        assert 0 < latency["NORMAL"]["p50"] < 5 < latency["NORMAL"]["p99"] <= latency["NORMAL"]["max"]
        assert 50 <= latency["NORMAL"]["max"] < 52


async def test_a_status_is_a_snapshot() -> None:
    app, _ = shop()
    async with app.simulate() as sim:
        before = sim.ledger
        await sim.send(Job())
        assert before.offered == 0
        status = await inside(sim, _status)
        status.ledger.offered = 99
        assert sim.ledger.offered == 1


async def _status(node: Any) -> Any:
    return node.status()


async def test_what_a_killed_process_left_half_done_is_thrown_away_and_does_nothing_more() -> None:
    app = App("left")

    @app.component
    class Waits:
        @on(Job, timeout=None)
        async def wait(self, job: Job, ctx: Context) -> None:
            await asyncio.sleep(1000)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.advance(1)
        [left] = [task.get_coro() for task in asyncio.all_tasks(sim.world.loop) if "in resumed" in waiting_at(task)]
        assert isinstance(left, Coroutine)
        await asyncio.to_thread(left.close)  # as the garbage collector does when no loop runs
        await sim.crash()
        assert not sim.failures
