"""Pending work in numbers: bounded in memory while a dependency is down, quick to come back, never twice."""

from __future__ import annotations

import asyncio

from genesis import App, Context, Retry, Settings, State, UnavailableError, on
from tests.unit.runtime.support import Disk, Job, inside


class Tally(State):
    count: int = 0


def shop(weather: dict[str, bool]) -> App:
    app = App("shop")

    @app.component(key="key", state=Tally)
    class Till:
        @on(Job, retry=Retry(attempts=3, base_s=0.5))
        async def serve(self, job: Job, tally: Tally, ctx: Context) -> None:
            if weather["down"]:
                raise UnavailableError("bank", retry_after_s=5.0)
            tally.count += 1

    return app


async def test_memory_is_bounded_while_thousands_wait_for_a_dependency() -> None:
    weather = {"down": True}
    app = shop(weather)
    async with app.simulate(errors="record", settings=Settings(window_bytes=100_000)) as sim:
        for n in range(3000):
            await sim.send(Job(f"k{n}", n))
        await sim.advance(600)

        async def in_memory(node: object) -> int:
            return sum(lane.bytes for lane in node._ready().lanes.lanes)  # type: ignore[attr-defined]

        assert await inside(sim, in_memory) < 200_000
        weather["down"] = False
        await sim.settle()
        assert sim.ledger.done == 3000
        assert sim.ledger.dead == 0


async def test_thousands_of_pending_deliveries_come_back_at_once_after_a_restart() -> None:
    weather = {"down": True}
    disk = Disk()
    async with disk.node(shop(weather)) as node:
        for n in range(6000):
            await node.send(Job(f"k{n}", n))
        await asyncio.sleep(20)
    weather["down"] = False
    async with disk.node(shop(weather)) as node:
        await asyncio.sleep(30)
        assert node.status().ledger.done == 6000


async def test_a_probe_that_takes_its_time_does_not_make_the_store_busy() -> None:
    app, calls = App("shop"), [0]

    @app.component(key="key")
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, ctx: Context) -> None:
            calls[0] += 1
            if calls[0] == 1:
                raise UnavailableError("bank", retry_after_s=0.5)
            await asyncio.sleep(20)

    async with app.simulate(errors="record", settings=Settings(window_bytes=20_000)) as sim:
        for n in range(1000):
            await sim.send(Job(f"k{n}", n))
        await sim.advance(2)

        async def commits(node: object) -> int:
            return node._ready().head.commit_id  # type: ignore[attr-defined,no-any-return]

        before = await inside(sim, commits)
        await sim.advance(10)
        assert calls == [2]
        assert await inside(sim, commits) - before < 500
