"""The same event sent twice: what is a duplicate, what it is told, and for how long it is one."""

from __future__ import annotations

import asyncio

import pytest

from genesis import (
    App,
    Context,
    Node,
    Settings,
    on,
)
from tests.unit.runtime.support import CRASH_POINTS, Job, Log, inside


def diary(**settings: object) -> tuple[App, type]:
    """An application with one keyed component that notes what it saw."""
    app = App("diary")

    @app.component(key="key", state=Log)
    class Diary:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    return app, Diary


async def test_the_same_source_and_id_is_accepted_once() -> None:
    app, diary_class = diary()
    async with app.simulate() as sim:
        first = await sim.send(Job("a", 1), id="order-1")
        again = await sim.send(Job("a", 1), id="order-1")
        assert (first.id, first.source, first.duplicate, first.deliveries) == ("order-1", "diary", False, 1)
        assert (again.id, again.source, again.duplicate, again.deliveries) == ("order-1", "diary", True, 0)
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1]
        assert (sim.ledger.offered, sim.ledger.accepted, sim.ledger.duplicate) == (2, 1, 1)
        assert sim.ledger.imbalance() == ""


async def test_the_same_id_of_another_source_is_another_event() -> None:
    app, diary_class = diary()
    async with app.simulate() as sim:
        for n, source in enumerate(("left", "right", "diary")):
            assert not (await sim.send(Job("a", n), id="1", source=source)).duplicate
        assert (await sim.send(Job("a", 9), id="1")).duplicate  # the application's own name is the default source
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [0, 1, 2]


async def test_an_event_without_an_id_is_never_a_duplicate() -> None:
    app, diary_class = diary()

    async def send_twice(node: Node) -> None:
        first, second = await node.send(Job("a", 1)), await node.send(Job("a", 1))
        assert first.id != second.id
        assert not (await node.send(Job("a", 1), id=None)).duplicate

    async with app.simulate() as sim:
        await inside(sim, send_twice)
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1, 1, 1]


async def test_an_id_is_remembered_across_a_crash() -> None:
    app, diary_class = diary()
    async with app.simulate() as sim:
        await sim.send(Job("a", 1), id="1")
        await sim.crash()
        assert (await sim.send(Job("a", 1), id="1")).duplicate
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1]


async def test_a_duplicate_has_its_yes_no_sooner_than_the_first() -> None:
    app, _ = diary()
    answers: list[str] = []

    async def send_at_once(node: Node) -> None:
        async def send(name: str) -> None:
            receipt = await node.send(Job("a", 1), id="1")
            answers.append(f"{name}, duplicate" if receipt.duplicate else name)

        before = node.status().ledger.accepted
        async with asyncio.TaskGroup() as group:
            group.create_task(send("first"))
            group.create_task(send("second"))
            await asyncio.sleep(0)
            assert not answers, "nothing is durable yet"
        assert node.status().ledger.accepted == before + 1

    async with app.simulate() as sim:
        await inside(sim, send_at_once)
    assert answers == ["first", "second, duplicate"]


async def test_a_producer_that_gives_up_does_not_take_the_yes_from_its_own_second_try() -> None:
    app, _ = diary()

    async def give_up_and_try_again(node: Node) -> None:
        first = asyncio.create_task(node.send(Job("a", 1), id="1"))
        await asyncio.sleep(0)
        second = asyncio.create_task(node.send(Job("a", 1), id="1"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).duplicate

    async with app.simulate() as sim:
        await inside(sim, give_up_and_try_again)
        assert sim.ledger.accepted == 1


async def test_the_horizon_is_bounded_in_time() -> None:
    app, diary_class = diary()
    async with app.simulate(settings=Settings(dedupe_s=60)) as sim:
        await sim.send(Job("a", 1), id="1")
        await sim.advance(59)
        assert (await sim.send(Job("a", 1), id="1")).duplicate
        await sim.advance(2)
        await sim.send(Job("a", 2), id="2")  # what is old is forgotten as new ids come
        assert not (await sim.send(Job("a", 3), id="1")).duplicate
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1, 2, 3]


async def test_the_horizon_is_bounded_in_ids() -> None:
    app, diary_class = diary()
    async with app.simulate(settings=Settings(dedupe_ids=10)) as sim:
        for n in range(10):
            await sim.send(Job("a", n), id=str(n))
        assert all([(await sim.send(Job("a", n), id=str(n))).duplicate for n in range(10)])
        for n in range(10, 15):
            await sim.send(Job("a", n), id=str(n))
        assert (await sim.send(Job("a", 14), id="14")).duplicate
        assert not (await sim.send(Job("a", 0), id="0")).duplicate
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [*range(15), 0]


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_sending_again_with_the_same_id_after_a_crash_takes_effect_once(point: str) -> None:
    app, diary_class = diary()
    async with app.simulate() as sim:
        for n in range(4):
            sim.crash_at(point, after=n % 2)
            await sim.send(Job("a", n), id=str(n))  # a crash on the way is survived by sending again
            await sim.settle()
        assert sim.state(diary_class, "a").seen == [0, 1, 2, 3]
        assert sim.crashes == 4
        assert (sim.ledger.done, sim.ledger.accepted) == (4, 4)
        assert sim.ledger.imbalance() == ""


async def test_an_id_is_forgotten_after_the_horizon_without_other_traffic_too() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            pass

    async with app.simulate() as sim:
        await sim.send(Job(), id="1")
        await sim.advance(3600)
        assert not (await sim.send(Job(), id="1")).duplicate
