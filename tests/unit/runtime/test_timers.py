"""Timers of a handler, and schedules of a component: they fire once, at their time, whatever happens meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, Message, Priority, on
from genesis.chaos.process import EPOCH
from tests.unit.runtime.support import CRASH_POINTS, Alarm, Disk, Job, Log, inside, until

DAY_S = 86_400.0


class Set(Message, type="timer.set"):
    key: str = "a"
    after_s: float = 10.0
    n: int = 0
    name: str | None = None


class Cancel(Message, type="timer.cancel"):
    key: str = "a"
    name: str = ""


class Rung(Message, type="timer.rung"):
    key: str = "a"
    n: int = 0


def clock() -> tuple[App, type, list[tuple[int, float]]]:
    """An application that sets and cancels timers, and notes what rang and when."""
    app, rung = App("clock"), list[tuple[int, float]]()

    @app.component(key="key", state=Log)
    class Clock:
        @on(Set)
        async def set(self, order: Set, log: Log, ctx: Context) -> None:
            ctx.after(order.after_s, Rung(order.key, order.n), name=order.name)

        @on(Cancel)
        async def cancel(self, order: Cancel, log: Log, ctx: Context) -> None:
            ctx.cancel(order.name)

        @on(Rung)
        async def ring(self, ring: Rung, log: Log, ctx: Context) -> None:
            log.seen.append(ring.n)
            rung.append((ring.n, ctx.now()))

    return app, Clock, rung


async def test_a_timer_fires_at_its_time_and_once() -> None:
    app, clock_class, rung = clock()
    async with app.simulate() as sim:
        start = sim.now()
        await sim.send(Set(after_s=10, n=1))
        await sim.settle()
        assert sim.ledger.waiting == 0, "a timer that is not due is no work"
        await sim.advance(9.9)
        assert rung == []
        await sim.advance(100)
        ((n, at),) = rung
        assert n == 1
        assert 10 <= at - start <= 10.1
        assert sim.state(clock_class, "a").seen == [1]
        assert (sim.ledger.timer, sim.ledger.done) == (1, 2)
        assert sim.ledger.imbalance() == ""


async def test_a_timer_may_be_set_for_a_time_of_the_wall_clock_and_for_a_time_that_is_over() -> None:
    app = App("clock")

    @app.component(key="key", state=Log)
    class Clock:
        @on(Job)
        async def set(self, job: Job, log: Log, ctx: Context) -> None:
            ctx.at(ctx.now() + 5, Rung(n=1))
            ctx.at(0.0, Rung(n=2))
            ctx.after(-3, Rung(n=3))

        @on(Rung)
        async def ring(self, ring: Rung, log: Log, ctx: Context) -> None:
            log.seen.append(ring.n)

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.advance(1)
        assert sim.state(Clock, "a").seen == [2, 3]
        await sim.advance(5)
        assert sim.state(Clock, "a").seen == [2, 3, 1]


async def test_timers_fire_in_the_order_of_their_times() -> None:
    app, clock_class, _ = clock()
    async with app.simulate() as sim:
        for n in (5, 1, 4, 2, 3):
            await sim.send(Set(after_s=10 * n, n=n))
        await sim.advance(60)
        assert sim.state(clock_class, "a").seen == [1, 2, 3, 4, 5]


async def test_a_timer_of_the_same_name_replaces_the_one_before_sooner_or_later() -> None:
    app, _clock_class, rung = clock()
    async with app.simulate() as sim:
        start = sim.now()
        for n, (name, after_s) in enumerate([("x", 10), ("x", 20), ("y", 20), ("y", 10), ("z", 10), ("z", 10)]):
            await sim.send(Set(after_s=after_s, n=n, name=name))
        await sim.advance(60)
        assert sorted((n, round(at - start)) for n, at in rung) == [(1, 20), (3, 10), (5, 10)]


async def test_names_belong_to_the_component_and_key() -> None:
    app, clock_class, _ = clock()
    async with app.simulate() as sim:
        await sim.send(Set("a", 10, 1, "x"))
        await sim.send(Set("b", 10, 2, "x"))
        await sim.send(Cancel("a", "x"))
        await sim.advance(20)
        assert sim.state(clock_class, "a").seen == []
        assert sim.state(clock_class, "b").seen == [2]


@pytest.mark.parametrize("after_s", [10, 1000])
async def test_a_cancelled_timer_does_not_fire_be_it_near_or_far(after_s: float) -> None:
    app, _, rung = clock()
    async with app.simulate() as sim:
        await sim.send(Set(after_s=after_s, name="x"))
        await sim.send(Cancel(name="x"))
        await sim.send(Cancel(name="never set"))
        await sim.advance(2 * after_s)
        assert rung == []
        assert sim.ledger.timer == 0
        await sim.send(Set(after_s=after_s, n=7, name="x"))  # the name is free again
        await sim.advance(2 * after_s)
        assert [n for n, _ in rung] == [7]


async def test_after_gives_the_name_by_which_the_timer_is_cancelled() -> None:
    app, names = App("clock"), list[str]()

    @app.component(key="key", state=Log)
    class Clock:
        @on(Job)
        async def set(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 0:
                names.append(ctx.after(10, Rung(n=1)))
                names.append(ctx.after(10, Rung(n=2)))
                names.append(ctx.after(10, Rung(n=3), name="three"))
            else:
                ctx.cancel(names[0])

        @on(Rung)
        async def ring(self, ring: Rung, log: Log, ctx: Context) -> None:
            log.seen.append(ring.n)

    async with app.simulate() as sim:
        for n in (0, 1):
            await sim.send(Job(n=n))
        await sim.advance(20)
        assert sorted(sim.state(Clock, "a").seen) == [2, 3]
        assert names[2] == "three"
        assert len(set(names)) == 3


async def test_a_timer_may_set_and_cancel_timers_and_set_itself_again() -> None:
    app = App("clock")

    @app.component(key="key", state=Log)
    class Clock:
        @on(Rung)
        async def ring(self, ring: Rung, log: Log, ctx: Context) -> None:
            log.seen.append(ring.n)
            if ring.n < 5:
                ctx.after(10, Rung(ring.key, ring.n + 1), name="next")
            ctx.cancel("never set")

    async with app.simulate() as sim:
        await sim.send(Rung(n=0))
        await sim.advance(100)
        assert sim.state(Clock, "a").seen == [0, 1, 2, 3, 4, 5]


async def test_a_timer_has_the_priority_that_it_was_given_or_the_one_of_its_class() -> None:
    app, found = App("clock"), list[Priority]()

    @app.component
    class Clock:
        @on(Job)
        async def set(self, job: Job, ctx: Context) -> None:
            ctx.after(1, Alarm())
            ctx.after(2, Alarm(), priority=Priority.BACKGROUND)

        @on(Alarm)
        async def ring(self, alarm: Alarm, ctx: Context) -> None:
            found.append(ctx.priority)

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.advance(5)
        assert found == [Priority.CRITICAL, Priority.BACKGROUND]


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_a_timer_fires_once_across_crashes_at_every_place(point: str) -> None:
    app, clock_class, _ = clock()
    async with app.simulate() as sim:
        for n in range(5):
            for after in range(4):  # in the commit that sets it, that fires it, that ends it, and one later
                sim.crash_at(point, after=after)
                await sim.send(Set(f"k{after}", 10, n, f"t{n}"))
                await sim.advance(15)
        await sim.settle()
        for after in range(4):
            assert sim.state(clock_class, f"k{after}").seen == [0, 1, 2, 3, 4]
        assert sim.crashes >= 10
        assert (sim.ledger.timer, sim.ledger.done) == (20, 40)
        assert sim.ledger.imbalance() == ""


async def test_timers_beyond_the_next_minute_are_kept_in_the_store_and_fire_at_their_time() -> None:
    app, _clock_class, rung = clock()
    async with app.simulate() as sim:
        start = sim.now()
        for n, after_s in enumerate((59, 61, 90, 200, 3600, DAY_S)):
            await sim.send(Set(after_s=after_s, n=n))
        await sim.crash()
        await sim.advance(DAY_S + 1)
        assert [n for n, _ in rung] == [0, 1, 2, 3, 4, 5]
        assert [round(at - start) for _, at in rung] == [59, 61, 90, 200, 3600, DAY_S]


async def test_what_fell_due_while_the_node_was_away_fires_when_it_is_back() -> None:
    app, clock_class, _rung = clock()
    disk = Disk()
    async with disk.node(app) as node:
        for n in range(3):
            await node.send(Set(after_s=10 * n + 10, n=n))
        await until(lambda: node.status().ledger.done == 3)
    await asyncio.sleep(1000)
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 6, limit_s=1)
        assert (await node.state(clock_class, "a")).seen == [0, 1, 2]


async def test_thousands_of_timers_at_one_moment_fire_without_delay() -> None:
    app, _clock_class, rung = clock()
    disk = Disk()
    async with disk.node(app) as node:
        start = asyncio.get_running_loop().time()
        await node.send_many([Set(f"k{n % 100}", 100.0, n) for n in range(3000)])
        await until(lambda: node.status().ledger.timer == 3000, limit_s=110)
        assert asyncio.get_running_loop().time() - start < 103
        await until(lambda: node.status().ledger.done == 6000)
        assert sorted(n for n, _ in rung) == list(range(3000))


async def test_more_timers_than_are_kept_in_memory_fire_at_their_times() -> None:
    app, _clock_class, rung = clock()
    disk = Disk()
    async with disk.node(app) as node:
        begin = asyncio.get_running_loop().time() + EPOCH
        await node.send_many([Set(f"k{n % 100}", 10 + n / 50, n) for n in range(1500)])
        await asyncio.sleep(10 + 1500 / 50)
        await until(lambda: node.status().ledger.done == 3000)
        assert len(rung) == 1500
        assert all(0 <= at - begin - 10 - n / 50 < 1 for n, at in rung)


async def test_a_timer_whose_handler_is_gone_from_the_code_is_a_dead_letter() -> None:
    disk = Disk()
    app, _, _ = clock()
    async with disk.node(app) as node:
        await node.send(Set(after_s=10))
        await until(lambda: node.status().ledger.done == 1)

    other = App("other")

    @other.component
    class Other:
        @on(Job)
        async def work(self, job: Job, ctx: Context) -> None:
            pass

    async with disk.node(other) as node:
        await asyncio.sleep(20)
        (letter,) = await disk.dead()
        assert letter.reason == "unhandled"
        assert node.status().imbalance == ""


async def test_the_children_of_an_event_carry_its_trace_through_a_timer() -> None:
    app, found = App("clock"), list[dict[str, str]]()

    @app.component
    class Clock:
        @on(Job)
        async def set(self, job: Job, ctx: Context) -> None:
            ctx.after(5, Rung())

        @on(Rung)
        async def ring(self, ring: Rung, ctx: Context) -> None:
            found.append(ctx.headers)

    async with app.simulate() as sim:
        await inside(sim, lambda node: node.send(Job(), headers={"traceparent": "00-1-2-01", "x": "y"}))
        await sim.advance(10)
        assert found == [{"traceparent": "00-1-2-01"}]
