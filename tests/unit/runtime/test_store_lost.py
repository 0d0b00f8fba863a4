"""A store that is lost for good, or to another owner: the node stops, with the error that it was, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from genesis import (
    NotAcceptedError,
)
from genesis.core.errors import FencedError, StoreFailedError
from genesis.core.ports import Batch, CrashPoint
from genesis.engines.memory import snapshot
from tests.unit.runtime.shop import KEPT, LOST, shop
from tests.unit.runtime.support import Alarm, Disk, Job, until


async def test_another_owner_stops_the_node_and_ends_the_body_with_that_error() -> None:
    app, _ = shop()
    disk = Disk()
    with pytest.raises(FencedError, match="another process took over this store"):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send(Job("a", 1), id="1")
            await disk.engine.claim(0, "another")
            sending = asyncio.create_task(node.send(Job("a", 2), id="2"))
            await asyncio.sleep(100)
            pytest.fail("the body goes on")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "whoever ran the node is not cancelled"
    with pytest.raises(NotAcceptedError, match="another process took over"):
        await sending
    with pytest.raises(StoreFailedError, match="the node has stopped: another process"):
        await node.send(Job("a", 3))


async def test_a_commit_of_another_owner_is_not_taken_for_ones_own() -> None:
    """Found by the simulator, seed 183: both commits had the same number, and a producer had its yes for nothing."""
    app, till = shop()
    disk = Disk()

    def stolen(point: CrashPoint) -> None:
        """Another owner takes over and commits, just before this commit arrives."""
        if point is CrashPoint.EXECUTE:
            stored = disk.storage.partitions[0]
            stored.epoch += 1
            head = snapshot(stored.head)
            head.epoch, head.commit_id = stored.epoch, head.commit_id + 1
            stored.apply(Batch(), head, None)
            raise StoreFailedError("the disk failed")

    async with disk.node(app) as node:
        await node.send(Job("a", 1), id="1")
        await asyncio.sleep(1)
        disk.engine._crash = stolen
        with pytest.raises(NotAcceptedError):
            await node.send(Job("a", 2), id="2")
        disk.engine._crash = None
        await asyncio.sleep(1)
        await node.send(Job("a", 2), id="2")
        await asyncio.sleep(1)
        assert (await node.state(till, "a")).seen == [1, 2]


async def test_a_store_that_cannot_be_opened_again_stops_the_node() -> None:
    app, _ = shop()
    disk = Disk()
    with pytest.raises(StoreFailedError, match="the store could not be opened again"):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send(Job("a", 1))
            disk.engine.cut()
            with pytest.raises(NotAcceptedError):
                await node.send(Job("a", 2))
            await asyncio.sleep(100)
            pytest.fail("the body goes on")


async def test_an_error_of_the_body_comes_out_as_it_is_though_the_store_fails_too() -> None:
    app, _ = shop()
    disk = Disk()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send(Job("a", 1))
            disk.engine.cut()
            raise ZeroDivisionError


@pytest.mark.parametrize("point", [LOST, KEPT])
async def test_a_commit_that_fails_while_the_node_drains_is_made_again_and_the_node_closes_in_order(point: str) -> None:
    app, till = shop()
    disk = Disk()
    begin = asyncio.get_running_loop().time()
    async with disk.node(app) as node:
        await node.send(Alarm("a", 7))
        await node.send(Job("a", 1))
        disk.fail_at(point)
    assert asyncio.get_running_loop().time() - begin < 5, "nobody waits for what is known"
    assert disk.failed
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 3)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).seen in ([7, 1], [1, 7])
        assert node.status().imbalance == ""


async def test_a_store_that_also_fails_while_the_draining_node_opens_it_again_is_given_more_than_one_try() -> None:
    app, _ = shop()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job("a", 1))
        disk.fail_at(LOST)
        disk.fail_at(KEPT)
    assert disk.failed
    async with disk.node(app) as node:
        assert (node.status().ledger.accepted, node.status().imbalance) == (1, "")


async def test_a_store_that_is_lost_while_the_node_drains_is_told_as_what_it_is() -> None:
    app, _ = shop()
    disk = Disk()
    with pytest.raises(StoreFailedError, match="the store could not be opened again"):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send(Job("a", 1))
            disk.engine.cut()


async def test_a_fault_in_the_node_itself_stops_it_with_that_error_and_what_is_stored_stays_whole() -> None:
    app, till = shop()
    disk = Disk()
    with pytest.raises(RuntimeError, match="a bug"):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send_many([Job("a", n) for n in range(10)])
            commit = disk.engine.commit

            async def broken(*arguments: object) -> object:
                disk.engine.commit = commit  # type: ignore[method-assign]
                raise RuntimeError("a bug")

            disk.engine.commit = broken  # type: ignore[assignment,method-assign]
            await asyncio.sleep(100)
            pytest.fail("the body goes on")
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 20)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).seen == list(range(10))
        assert node.status().imbalance == ""


async def test_a_store_that_cannot_be_read_back_is_an_error_and_not_a_hang() -> None:
    app, _ = shop()
    disk = Disk()
    async with disk.node(app):
        pass
    disk.storage.partitions[0].tables["fact"].rows["state:till"] = b"no json"
    with pytest.raises(ValueError, match="Expecting value"):
        async with disk.node(app):
            pytest.fail("it runs")
