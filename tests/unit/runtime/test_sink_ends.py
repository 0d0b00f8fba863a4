"""Sinks at the end of a node, and after it: what was taken is known, what was not waits, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from genesis import App, Item, UnavailableError
from genesis.chaos.faults import CommitFails, CutOff
from genesis.core.ports import CrashPoint
from tests.unit.runtime.crm import Crm, shop
from tests.unit.runtime.support import Alarm, Disk, Job, until


def elsewhere() -> App:
    """The application without its sink."""
    app = App("shop")

    @app.sink(Alarm)
    async def alarms(items: Sequence[Item[Alarm]]) -> None:
        """Nothing."""

    return app


async def test_the_call_under_way_may_end_at_a_stop_and_no_other_begins() -> None:
    crm, disk = Crm(), Disk()
    crm.trouble = lambda items: asyncio.sleep(5)
    begin = asyncio.get_running_loop().time()
    async with disk.node(shop(crm, batch=2)) as node:
        await node.send_many([Job("a", n) for n in range(6)])
        await until(lambda: crm.calls)
    assert asyncio.get_running_loop().time() - begin < 6
    assert crm.calls == [[0, 1]]
    crm.trouble = lambda items: None
    async with disk.node(shop(crm, batch=2)) as node:
        await until(lambda: not node.status().ledger.waiting)
        assert crm.calls == [[0, 1], [2, 3], [4, 5]]
        assert node.status().imbalance == ""


@pytest.mark.parametrize("heeds", [True, False])
async def test_a_call_that_does_not_end_in_time_is_given_up_and_its_items_come_again(heeds: bool) -> None:
    crm, disk = Crm(), Disk()

    async def hang(items: Sequence[Item[Job]]) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            if heeds:
                raise
            await asyncio.sleep(0.5)

    crm.trouble = hang
    begin = asyncio.get_running_loop().time()
    async with disk.node(shop(crm, timeout=None), drain_s=3.0) as node:
        await node.send(Job("a", 1))
        await until(lambda: crm.calls)
    assert 3 <= asyncio.get_running_loop().time() - begin < 6
    crm.trouble = lambda items: None
    async with disk.node(shop(crm)) as node:
        await until(lambda: not node.status().ledger.waiting)
        assert crm.calls == [[1], [1]]
        assert crm.items[0].number == crm.items[1].number
        assert (node.status().ledger.done, node.status().imbalance) == (1, "")


@pytest.mark.parametrize("options", [{}, {"per_second": 0.001}])
async def test_a_sink_that_waits_for_its_time_does_not_hold_up_a_stop(options: dict[str, float]) -> None:
    crm = Crm()

    def down(items: Sequence[Item[Job]]) -> None:
        if not options:
            raise UnavailableError("the crm", 600)

    crm.trouble = down
    async with Disk().node(shop(crm, **options)) as node:
        await node.send_many([Job("a", 1), Job("a", 2)])
        await until(lambda: crm.calls)
        begin = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begin < 0.5


async def test_numbers_go_on_after_a_restart() -> None:
    crm, disk = Crm(), Disk()
    for n in range(4):
        async with disk.node(shop(crm)) as node:
            await node.send_many([Job("a", n), Job("b", n)])
            await until(lambda: not node.status().ledger.waiting)
    numbers = [item.number for item in crm.items]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 8


@pytest.mark.parametrize("point", [CrashPoint.EXECUTE, CrashPoint.COMMIT])
@pytest.mark.parametrize("after", range(6))
async def test_a_store_that_fails_in_any_commit_loses_and_doubles_nothing_but_the_last_batch(
    point: CrashPoint, after: int
) -> None:
    crm, disk = Crm(), Disk()
    async with disk.node(shop(crm, batch=2)) as node:
        disk.fail_at(point, after=after)
        for n in range(8):
            while True:
                try:
                    await node.send(Job("a", n), id=f"job-{n}")
                    break
                except Exception:
                    await asyncio.sleep(0.1)
        await until(lambda: node._life.pipeline and not node.status().ledger.waiting)
        assert disk.failed
        assert {item.id for item in crm.items} == {f"job-{n}" for n in range(8)}
        assert len({item.number for item in crm.items}) == 8, "given again, it has the same number"
        assert len(crm.items) <= 10
        assert (node.status().ledger.done, node.status().imbalance) == (8, "")


async def test_an_owner_that_was_fenced_gives_nothing_more_than_its_last_call() -> None:
    crm = Crm()
    crm.trouble = lambda items: asyncio.sleep(0.5)
    async with shop(crm, batch=2).simulate(nodes=2) as sim:
        for n in range(20):
            await sim.send(Job("a", n), id=f"job-{n}")
        await sim.partition(30)
        await sim.advance(5)
        await sim.settle()
        assert {item.id for item in crm.items} == {f"job-{n}" for n in range(20)}
        assert len(crm.items) <= 20 + 2
        assert (sim.ledger.done, sim.ledger.imbalance()) == (20, "")


@pytest.mark.parametrize("fault", [CommitFails(0), CutOff(0, 3.0)])
async def test_a_sink_goes_on_when_its_store_does(fault: CommitFails | CutOff) -> None:
    crm = Crm()
    async with shop(crm).simulate() as sim:
        sim.inject(fault)
        await sim.send(Job("a", 1), id="one")
        await sim.settle()
        await sim.send(Job("a", 2), id="two")
        await sim.settle()
        assert list(dict.fromkeys(item.id for item in crm.items)) == ["one", "two"]


async def test_what_a_sink_that_is_gone_left_ends_as_dead_letters_and_comes_back_with_it() -> None:
    crm, disk = Crm(), Disk()
    crm.trouble = lambda items: asyncio.sleep(1000)
    async with disk.node(shop(crm, batch=1), drain_s=0.1) as node:
        await node.send_many([Job("a", n) for n in range(500)])
        await until(lambda: node.status().sinks["crm"].waiting == 500)
    async with disk.node(elsewhere()) as node:
        await until(lambda: not node.status().ledger.waiting)
        assert (node.status().ledger.dead, node.status().imbalance) == (500, "")
        assert {letter.reason for letter in await disk.dead()} == {"unhandled"}
    crm.trouble = lambda items: None
    crm.taken.clear()
    async with disk.node(shop(crm)) as node:
        for key in await node.operator._dead_keys():
            assert await node.operator.replay(key)
        await until(lambda: not node.status().ledger.waiting)
        assert sorted(crm.taken) == list(range(500))


async def test_what_a_sink_of_the_same_name_left_of_another_type_ends_as_dead_letters() -> None:
    crm, disk, app, taken = Crm(), Disk(), App("shop"), list[int]()
    crm.trouble = lambda items: asyncio.sleep(1000)

    @app.sink(Alarm, name="crm")
    async def alarms(items: Sequence[Item[Alarm]]) -> None:
        taken.extend(item.message.n for item in items)

    async with disk.node(shop(crm), drain_s=0.1) as node:
        await node.send_many([Job("a", n) for n in range(500)])
        await until(lambda: node.status().sinks["crm"].waiting == 500)
    async with disk.node(app) as node:
        await node.send(Alarm("a", 2))
        await until(lambda: not node.status().ledger.waiting)
        assert taken == [2]
        assert [letter.reason for letter in await disk.dead()] == ["unhandled"] * 500


async def test_sinks_whose_names_begin_alike_keep_apart() -> None:
    app, one, two = App("shop"), Crm(), Crm()

    @app.sink(Job, name="crm")
    async def first(items: Sequence[Item[Job]]) -> None:
        await one.take(items)

    @app.sink(Alarm, name="crm-2")
    async def second(items: Sequence[Item[Alarm]]) -> None:
        two.taken.extend(item.message.n for item in items)

    async with app.simulate() as sim:
        for n in range(5):
            await sim.send(Job("a", n))
            await sim.send(Alarm("a", n + 10))
        await sim.settle()
        assert (one.taken, two.taken) == ([0, 1, 2, 3, 4], [10, 11, 12, 13, 14])
