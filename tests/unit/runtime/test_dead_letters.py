"""What people do with dead letters and parked deliveries: look, replay, drop."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, DrainingError, Node, Reject, Retry, on
from genesis.chaos.faults import CommitFails, CutOff, Stop
from genesis.core.errors import StoreFailedError
from genesis.runtime.component import Order
from tests.unit.runtime.support import CRASH_POINTS, Done, Job, Log, inside, spoken


def shop(order: Order = "hold") -> tuple[App, type, list[int], list[str]]:
    """An application whose handler fails while its last value is in the list of broken numbers."""
    app, broken, events = App("shop"), list[int](), list[str]()

    @app.component(key="key", state=Log, order=order, retry=Retry(attempts=2, base_s=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            events.append(f"{ctx.event_id} by {ctx.source}, {ctx.attempt}")
            if job.n in broken:
                raise Reject("broken") if job.n > 100 else ConnectionError("broken")
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))

    return app, Till, broken, events


async def replay(node: Node, key: str) -> bool:
    return await node.operator.replay(key)


async def test_a_replayed_dead_letter_runs_again_with_fresh_attempts() -> None:
    app, till, broken, events = shop()
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1), id="x", source="till-1")
        await sim.send(Job("a", 2), id="y")
        await sim.settle()
        (letter,) = sim.dead()
        broken.clear()
        assert await inside(sim, lambda node: replay(node, f"{letter.delivery.id:016x}"))
        await sim.settle()
        assert sim.state(till, "a").seen == [2, 1]
        assert spoken(sim) == [2, 1]
        assert sim.dead() == []
        assert (sim.ledger.replay, sim.ledger.dead, sim.ledger.done) == (1, 1, 2)
        assert sim.ledger.imbalance() == ""
        assert events[-1].endswith("by till-1, 1")


async def test_a_replay_that_fails_is_a_dead_letter_again() -> None:
    app, _till, broken, events = shop()
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        for _ in range(3):
            (letter,) = sim.dead()
            assert letter.attempts == 2
            assert await inside(sim, lambda node, key=f"{letter.delivery.id:016x}": replay(node, key))
            await sim.settle()
        assert len(events) == 8
        assert len(sim.dead()) == 1
        assert (sim.ledger.replay, sim.ledger.dead) == (3, 4)
        assert sim.ledger.imbalance() == ""


@pytest.mark.parametrize("order", ["hold", "park"])
@pytest.mark.parametrize("act", ["replay", "drop"])
async def test_two_people_who_act_on_one_letter_at_once_act_once(order: Order, act: str) -> None:
    app, _till, broken, events = shop(order)
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        events.clear()
        broken.clear()

        async def both(node: Node) -> list[bool]:
            (key,) = await node.operator._dead_keys()
            return await asyncio.gather(*(getattr(node.operator, act)(key) for _ in range(3)))

        assert sorted(await inside(sim, both)) == [False, False, True]
        await sim.settle()
        assert len(events) == (1 if act == "replay" else 0)
        assert sim.ledger.done == len(events)
        assert (await inside(sim, _status)).parked == 0
        assert sim.ledger.imbalance() == ""


async def test_a_letter_that_is_not_there_is_neither_replayed_nor_dropped() -> None:
    app, *_ = shop()
    async with app.simulate() as sim:
        for key in ("", "nonsense", "0005000000000001", "/", "zz"):
            assert not await inside(sim, lambda node, key=key: node.operator.replay(key))
            assert not await inside(sim, lambda node, key=key: node.operator.drop(key))


async def test_a_dropped_letter_is_gone_for_good() -> None:
    app, _till, broken, _events = shop()
    broken += [1, 101]
    async with app.simulate(errors="record") as sim:
        for n in (1, 101, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        for letter in sim.dead():
            assert await inside(sim, lambda node, key=f"{letter.delivery.id:016x}": node.operator.drop(key))
        await sim.crash()
        assert sim.dead() == []
        assert (sim.ledger.dead, sim.ledger.done) == (2, 1)
        assert sim.ledger.imbalance() == ""


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("order", ["hold", "park"])
async def test_a_crash_during_a_replay_neither_loses_nor_doubles_it(point: str, order: Order) -> None:
    app, till, broken, _events = shop(order)
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.send(Job("a", 2))
        await sim.settle()
        broken.clear()
        (key,) = await inside(sim, lambda node: node.operator._dead_keys())
        sim.crash_at(point)
        await inside(sim, lambda node: replay(node, key))
        await sim.settle()
        assert sim.crashes == 1
        assert sim.state(till, "a").seen == ([2, 1] if order == "hold" else [1, 2])
        assert await inside(sim, lambda node: node.operator._dead_keys()) == []
        assert sim.ledger.imbalance() == ""


async def test_a_replay_keeps_its_place_behind_what_is_held_for_its_key() -> None:
    app, till, broken, _events = shop()
    broken += [101, 1]
    async with app.simulate(errors="record") as sim:
        for n in (101, 1, 2, 3):
            await sim.send(Job("a", n))
        await sim.advance(0.01)
        (letter,) = sim.dead()
        broken.clear()
        assert await inside(sim, lambda node: replay(node, f"{letter.delivery.id:016x}"))
        await sim.settle()
        assert sorted(sim.state(till, "a").seen) == [1, 2, 3, 101]
        assert [n for n in sim.state(till, "a").seen if n != 101] == [1, 2, 3]


async def _status(node: Node) -> object:
    return node.status()


@pytest.mark.parametrize("order", ["hold", "park"])
async def test_whoever_acts_while_the_store_is_opened_anew_is_told_and_may_act_again(order: Order) -> None:
    app, till, broken, _ = shop(order)
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        broken.clear()
        operator = sim.node.operator
        (key,) = await inside(sim, lambda node: node.operator._dead_keys())
        sim.inject(CommitFails())
        await sim.send(Job("a", 2))
        for act in (operator.replay, operator.drop):
            with pytest.raises(StoreFailedError):
                sim.world.run(act(key))
        assert await inside(sim, lambda node: replay(node, key))
        await sim.settle()
        assert sorted(sim.state(till, "a").seen) == [1, 2]
        assert sim.ledger.imbalance() == ""


@pytest.mark.parametrize("order", ["hold", "park"])
async def test_whoever_acts_during_a_drain_is_refused_and_nothing_of_it_is_counted(order: Order) -> None:
    app, _, broken, _ = shop(order)
    broken.append(1)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        operator, before = sim.node.operator, sim.ledger
        (key,) = await inside(sim, lambda node: node.operator._dead_keys())
        sim.inject(CutOff(seconds=0.5))  # it drains so long
        sim.inject(Stop())
        await sim.advance(0.1)
        for act in (operator.replay, operator.drop):
            with pytest.raises(DrainingError):
                sim.world.run(act(key))
        assert sim.ledger == before
        assert await inside(sim, lambda node: replay(node, key))
