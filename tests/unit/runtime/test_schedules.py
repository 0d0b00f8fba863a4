"""Schedules of a component: durable, without a tick too many or too few."""

from __future__ import annotations

import asyncio

from genesis import App, Context, Retry, every, on
from tests.unit.runtime.support import CRASH_POINTS, Disk, Done, Log


def beat(period_s: float, *, method: str = "tick") -> tuple[App, type, list[float]]:
    app, ticks = App("heart"), list[float]()

    async def tick(self: object, log: Log, ctx: Context) -> None:
        ticks.append(ctx.now())
        log.seen.append(len(ticks))

    tick.__name__ = method
    heart = type("Heart", (), {method: every(period_s)(tick)})
    return app, app.component(single=True, state=Log)(heart), ticks


async def test_a_schedule_runs_each_so_many_seconds() -> None:
    app, heart, ticks = beat(60)
    async with app.simulate() as sim:
        start = sim.now()
        await sim.advance(305)
        assert [round(at - start) for at in ticks] == [60, 120, 180, 240, 300]
        assert sim.state(heart).seen == [1, 2, 3, 4, 5]
        assert (sim.ledger.timer, sim.ledger.done) == (5, 5)


async def test_a_schedule_goes_on_across_crashes_without_a_tick_too_many() -> None:
    app, heart, ticks = beat(60)
    async with app.simulate() as sim:
        start = sim.now()
        for point in CRASH_POINTS:
            sim.crash_at(point, after=1)
            await sim.advance(100)
        await sim.advance(130)
        assert sorted({round(at - start) for at in ticks}) == [60 * n for n in range(1, 11)]
        assert sim.state(heart).seen == sorted(set(sim.state(heart).seen))
        assert len(sim.state(heart).seen) == 10
        assert sim.ledger.timer == sim.ledger.done == 10


async def test_ticks_that_were_missed_collapse_to_one_and_the_rhythm_stays() -> None:
    app, _heart, ticks = beat(60)
    disk = Disk()
    async with disk.node(app):
        start = asyncio.get_running_loop().time() + 1e9
        await asyncio.sleep(70)
    await asyncio.sleep(1000)
    async with disk.node(app):
        await asyncio.sleep(100)
    assert [round(at - start) for at in ticks] == [60, 1070, 1080, 1140]


async def test_another_period_arms_the_schedule_anew() -> None:
    disk = Disk()
    slow, _, slow_ticks = beat(3600)
    async with disk.node(slow):
        await asyncio.sleep(10)
    quick, _, quick_ticks = beat(10)
    async with disk.node(quick):
        await asyncio.sleep(35)
    assert (len(slow_ticks), len(quick_ticks)) == (0, 3)
    async with disk.node(slow):
        await asyncio.sleep(1000)
    assert (len(slow_ticks), len(quick_ticks)) == (0, 3)


async def test_a_schedule_that_left_the_code_stops_and_starts_anew_when_it_is_back() -> None:
    disk = Disk()
    one, _, ticks = beat(10)
    async with disk.node(one) as node:
        await asyncio.sleep(25)
    other, _, others = beat(10, method="pulse")
    async with disk.node(other) as node:
        await asyncio.sleep(105)
        assert node.status().ledger.dead == 0
        assert node.status().imbalance == ""
    assert (len(ticks), len(others)) == (2, 10)
    async with disk.node(one):
        await asyncio.sleep(25)
    assert len(ticks) == 4


async def test_schedules_of_stateless_components_run_too_and_may_emit() -> None:
    app, notes = App("heart"), list[int]()

    @app.component
    class Pulse:
        @every(10)
        async def beat(self, ctx: Context) -> None:
            ctx.emit(Done(n=1))

        @every(25)
        def slow_beat(self, ctx: Context) -> None:
            ctx.emit(Done(n=2))

        @on(Done)
        async def note(self, done: Done, ctx: Context) -> None:
            notes.append(done.n)

    async with app.simulate() as sim:
        await sim.advance(55)
        assert sorted(notes) == [1, 1, 1, 1, 1, 2, 2]


async def test_a_tick_that_fails_is_tried_again_and_the_next_ones_follow() -> None:
    app, attempts = App("heart"), list[int]()

    @app.component(single=True, state=Log, retry=Retry(attempts=2, base_s=0.1))
    class Pulse:
        @every(10)
        async def beat(self, log: Log, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            if len(attempts) <= 2:
                raise ConnectionError
            log.seen.append(len(attempts))

    async with app.simulate(errors="record") as sim:
        await sim.advance(35)
        assert attempts == [1, 2, 1, 1]
        assert sim.state(Pulse).seen == [3, 4]
        assert sim.ledger.dead == 1


async def test_a_schedule_that_takes_longer_than_its_period_does_not_pile_up() -> None:
    app = App("heart")

    @app.component(single=True)
    class Heart:
        @every(10, timeout=None)
        async def beat(self, ctx: Context) -> None:
            await asyncio.sleep(100)

    async with app.simulate() as sim:
        await sim.advance(1000)
        assert sim.ledger.waiting <= 2


async def test_ticks_do_not_pile_up_behind_one_that_waits_across_restarts() -> None:
    app = App("heart")

    @app.component(single=True, retry=Retry(attempts=100))
    class Heart:
        @every(10, timeout=None)
        async def beat(self, ctx: Context) -> None:
            await asyncio.sleep(100)

    async with app.simulate() as sim:
        for _ in range(5):
            await sim.advance(35)
            await sim.crash()
            assert sim.ledger.waiting == 1
        await sim.advance(120)
        assert sim.ledger.done == 1
        assert sim.ledger.timer == 2
