"""Sinks whose calls fail: the same batch again, then one by one; one bad item costs only itself, an outage costs nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from genesis import App, HandlerTimeoutError, Item, Message, Reject, Retry, UnavailableError
from genesis.runtime.log import silence
from tests.unit.runtime.crm import Crm, fails, shop
from tests.unit.runtime.support import Disk, Job, inside, until

TWICE = Retry(attempts=2, base_s=1.0, cap_s=1.0)


async def test_a_batch_that_failed_is_given_again_as_it_was() -> None:
    crm = Crm()

    def trouble(items: Sequence[Item[Job]]) -> None:
        if len(crm.calls) <= 3:
            raise ConnectionError("not now")

    crm.trouble = trouble
    async with Disk().node(shop(crm, retry=Retry(attempts=5, base_s=2.0))) as node:
        await node.send_many([Job("a", n) for n in range(10)])
        await until(lambda: crm.calls)
        await node.send_many([Job("a", n) for n in range(10, 20)])
        await until(lambda: node.status().ledger.done == 20)
        assert crm.calls[0] == crm.calls[1] == crm.calls[2] == crm.calls[3]
        assert crm.taken == list(range(20))
        assert node.status().ledger.retries == 3 * len(crm.calls[0])


async def test_one_bad_item_costs_only_itself() -> None:
    crm = Crm()
    crm.trouble = fails(4)
    async with Disk().node(shop(crm, retry=TWICE)) as node:
        await node.send_many([Job("a", n) for n in range(8)])
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == [0, 1, 2, 3, 5, 6, 7]
        batch = list(range(8))
        assert crm.calls == [batch, batch, [0], [1], [2], [3], [4], [4], [5], [6], [7]]
        assert (node.status().ledger.done, node.status().ledger.dead) == (7, 1)
        assert node.status().imbalance == ""


async def test_a_dead_letter_of_a_sink_says_why_and_can_be_replayed_under_a_new_number_and_the_same_id() -> None:
    crm = Crm()
    crm.trouble = fails(1)
    async with shop(crm, retry=TWICE).simulate(errors="record") as sim:
        for n in range(3):
            await sim.send(Job("a", n), id=f"job-{n}", source="till")
        await sim.settle()
        (letter,) = sim.dead()
        assert (letter.reason, letter.error, letter.attempts, letter.detail) == (
            "failed",
            "ConnectionError",
            2,
            "ConnectionError: not this one",
        )
        assert (letter.delivery.event_id, letter.delivery.component) == ("job-1", "crm")
        first = next(item for item in crm.items if item.id == "job-1")
        crm.trouble = lambda items: None
        assert await inside(sim, lambda node: node.operator.replay(f"{letter.delivery.id:016x}"))
        await sim.settle()
        last = crm.items[-1]
        assert (last.id, last.source, last.message) == ("job-1", "till", Job("a", 1))
        assert last.number > max(item.number for item in crm.items[:-1]) >= first.number
        assert sim.dead() == []
        assert (sim.ledger.replay, sim.ledger.done, sim.ledger.dead, sim.ledger.imbalance()) == (1, 3, 1, "")


async def test_an_item_that_is_rejected_is_a_dead_letter_at_once_in_the_middle_of_a_batch_too() -> None:
    crm = Crm()
    crm.trouble = fails(2, error=Reject("no such customer"))
    disk = Disk()
    async with disk.node(shop(crm)) as node:
        await node.send_many([Job("a", n) for n in range(5)])
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == [0, 1, 3, 4]
        assert crm.calls == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]], "no attempt is made twice"
        (letter,) = await disk.dead()
        assert (letter.reason, letter.detail, letter.attempts) == ("rejected", "no such customer", 1)


async def test_a_system_that_is_down_for_hours_costs_no_item() -> None:
    crm, up_at = Crm(), 0.0

    def trouble(items: Sequence[Item[Job]]) -> None:
        if asyncio.get_running_loop().time() < up_at:
            raise UnavailableError("the crm", retry_after_s=20)

    crm.trouble = trouble
    async with Disk().node(shop(crm, retry=Retry(attempts=1), batch=2)) as node:
        up_at = asyncio.get_running_loop().time() + 3 * 3600
        await node.send_many([Job("a", n) for n in range(5)])
        await asyncio.sleep(3 * 3600)
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == [0, 1, 2, 3, 4]
        assert (node.status().ledger.dead, node.status().ledger.retries) == (0, 0)
        waits = [after - before for before, after in itertools.pairwise(crm.times)][:100]
        assert all(19.9 <= wait <= 30.1 for wait in waits), "not asked more often than it said"


async def test_a_sink_that_fails_is_shown_with_its_error_until_it_works_again() -> None:
    crm, broken = Crm(), [True]

    def trouble(items: Sequence[Item[Job]]) -> None:
        if broken:
            raise UnavailableError("the crm", retry_after_s=30)

    crm.trouble = trouble
    async with Disk().node(shop(crm)) as node:
        await node.send_many([Job("a", n) for n in range(5)])
        await until(lambda: node.status().sinks["crm"].state == "failed")
        first = node.status()
        seen = first.sinks["crm"]
        assert (seen.waiting, seen.error) == (5, "UnavailableError: the crm is unavailable; retry after 30.0 s")
        assert seen.since is not None
        assert seen.next_at is not None
        assert 29 <= seen.next_at - first.at <= 46
        await until(lambda: len(crm.calls) == 3, limit_s=200)
        assert node.status().sinks["crm"].since == seen.since
        broken.clear()
        await until(lambda: node.status().sinks["crm"].state == "running", limit_s=200)
        assert (node.status().sinks["crm"].error, node.status().sinks["crm"].waiting) == ("", 0)


async def test_a_sink_whose_only_item_died_has_nothing_to_fail_at() -> None:
    crm = Crm()
    crm.trouble = fails(1, error=Reject("no such customer"))
    async with Disk().node(shop(crm)) as node:
        await node.send(Job("a", 1))
        await until(lambda: node.status().ledger.dead == 1)
        await until(lambda: node.status().sinks["crm"].state == "running")
        assert node.status().sinks["crm"].error == ""


async def test_what_comes_while_a_sink_fails_waits_behind_it() -> None:
    crm = Crm()

    def trouble(items: Sequence[Item[Job]]) -> None:
        if len(crm.calls) < 4:
            raise UnavailableError("the crm", retry_after_s=5)

    crm.trouble = trouble
    async with Disk().node(shop(crm)) as node:
        for n in range(10):
            await node.send(Job("a", n))
            await asyncio.sleep(1)
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == list(range(10))


async def test_a_call_that_takes_too_long_has_failed() -> None:
    crm = Crm()
    crm.trouble = lambda items: asyncio.sleep(60 if len(crm.calls) == 1 else 0)
    async with shop(crm, timeout=2.0, retry=Retry(attempts=2, base_s=0.1)).simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        assert crm.calls == [[1], [1]]
        assert crm.taken == [1]
        ((route, error),) = sim.failures
        assert (route, str(error)) == ("crm:job", "sink crm took over 2.0 s")
        assert isinstance(error, HandlerTimeoutError)


async def test_a_call_that_swallows_its_timeout_has_failed_all_the_same() -> None:
    crm = Crm()

    async def stubborn(items: Sequence[Item[Job]]) -> None:
        if len(crm.calls) == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(1)

    crm.trouble = stubborn
    async with shop(crm, timeout=2.0, retry=Retry(attempts=2, base_s=0.1)).simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        assert crm.calls == [[1], [1]]


async def test_a_call_that_is_cancelled_from_inside_has_failed_and_the_sink_goes_on() -> None:
    crm = Crm()

    async def trouble(items: Sequence[Item[Job]]) -> None:
        if len(crm.calls) == 1:
            raise asyncio.CancelledError
        if len(crm.calls) == 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(broken())

    async def broken() -> None:
        raise ConnectionError("a child")

    crm.trouble = trouble
    async with shop(crm, retry=Retry(attempts=4, base_s=0.1)).simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        await sim.send(Job("a", 2))
        await sim.settle()
        assert crm.taken == [1, 2]
        assert str(sim.failures[0][1]) == "sink crm was cancelled from inside"


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [UnspeakableError(), ValueError("no \udcff")])
async def test_a_sink_may_fail_with_what_cannot_be_said_or_stored(error: Exception) -> None:
    crm, disk = Crm(), Disk()
    crm.trouble = fails(1, error=error)
    with silence():  # such words cannot be sent from one process of a test run to another
        async with disk.node(shop(crm, retry=TWICE)) as node:
            await node.send_many([Job("a", 1), Job("a", 2)])
            await until(lambda: node.status().sinks["crm"].error.startswith(type(error).__name__))
            await asyncio.sleep(2)  # of virtual time: the housekeeper stores the status
            await until(lambda: not node.status().ledger.waiting)
            assert crm.taken == [2]
            assert [letter.error for letter in await disk.dead()] == [type(error).__name__]


async def test_settle_raises_what_a_sink_raised() -> None:
    crm = Crm()
    crm.trouble = fails(1)
    async with shop(crm).simulate() as sim:
        await sim.send(Job("a", 1))
        with pytest.raises(ConnectionError, match="not this one"):
            await sim.settle()


class Order(Message, type="order"):
    n: int


class Renamed(Message, type="order"):
    number: int


async def test_an_item_that_cannot_be_read_any_more_is_a_dead_letter() -> None:
    before, after, disk, taken = App("shop"), App("shop"), Disk(), list[int]()

    @before.sink(Order, name="crm")
    async def down(items: Sequence[Item[Order]]) -> None:
        raise UnavailableError("the crm", 600)

    @after.sink(Renamed, name="crm")
    async def up(items: Sequence[Item[Renamed]]) -> None:
        taken.extend(item.message.number for item in items)

    async with disk.node(before) as node:
        await node.send_many([Order(1), Order(2)])
        await until(lambda: node.status().sinks["crm"].waiting == 2)
    async with disk.node(after) as node:
        await node.send(Renamed(3))
        await until(lambda: not node.status().ledger.waiting)
        assert taken == [3]
        assert [letter.reason for letter in await disk.dead()] == ["undecodable", "undecodable"]
        assert node.status().imbalance == ""
