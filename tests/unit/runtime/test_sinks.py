"""Sinks: what is accepted comes to the other system in order, in batches, after it is durable, and at its pace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from genesis import App, Context, DefinitionError, Item, Message, Module, Priority, Request, Retry, UnknownTypeError, on
from genesis.core.ports import CrashPoint
from tests.unit.runtime.crm import Crm, fails, shop
from tests.unit.runtime.support import Alarm, Disk, Job, Log, until


class Ask(Request[int], type="ask"):
    pass


class Offer(Message, type="offer", expires_after=10.0):
    n: int = 0


async def test_items_come_in_the_order_of_their_numbers_and_as_they_were_sent() -> None:
    crm = Crm()
    async with shop(crm).simulate() as sim:
        for n in range(250):
            await sim.send(Job("a", n), id=f"job-{n}", source="till")
        await sim.settle()
        assert [item.message for item in crm.items] == [Job("a", n) for n in range(250)]
        assert [(item.id, item.source) for item in crm.items] == [(f"job-{n}", "till") for n in range(250)]
        assert all(before.number < after.number for before, after in itertools.pairwise(crm.items))
        assert all(abs(item.born_at - sim.now()) < 60 for item in crm.items)
        assert (sim.ledger.done, sim.ledger.in_outbox, sim.ledger.imbalance()) == (250, 0, "")


@pytest.mark.parametrize("immediate", [False, True])
async def test_what_gathers_during_a_call_comes_in_batches(immediate: bool) -> None:
    crm = Crm()
    crm.trouble = lambda items: asyncio.sleep(1)
    async with Disk().node(shop(crm, batch=30), immediate=immediate) as node:
        await node.send(Job("a", 0))
        await until(lambda: crm.calls)
        await node.send_many([Job("a", n) for n in range(1, 101)])
        await until(lambda: node.status().ledger.done == 101)
        assert [len(call) for call in crm.calls] == [1, 30, 30, 30, 10]
        assert crm.taken == list(range(101))


async def test_one_call_at_a_time() -> None:
    crm, at_once = Crm(), list[int]()

    async def slow(items: Sequence[Item[Job]]) -> None:
        at_once.append(1)
        assert len(at_once) == 1
        await asyncio.sleep(0.5)
        at_once.pop()

    crm.trouble = slow
    async with shop(crm, batch=2).simulate() as sim:
        await sim.send_all([Job("a", n) for n in range(20)])
        await sim.settle()
        assert sorted(crm.taken) == list(range(20))


async def test_an_item_is_durable_before_it_is_given() -> None:
    crm, disk = Crm(), Disk()
    stored: list[bool] = []

    async def look(items: Sequence[Item[Job]]) -> None:
        numbers = {int(key.partition("/")[2], 16) for key, _ in await disk.engine.scan(0, "out", "", 1000)}
        stored.extend(item.number in numbers for item in items)

    crm.trouble = look
    async with disk.node(shop(crm), delay=lambda: 0.5) as node:
        await node.send_many([Job("a", n) for n in range(50)])
        await until(lambda: node.status().ledger.done == 50)
    assert stored == [True] * 50


@pytest.mark.parametrize("point", list(CrashPoint))
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
async def test_after_a_crash_at_most_the_last_batch_comes_again_with_the_same_numbers(point: str, after: int) -> None:
    crm = Crm()
    async with shop(crm, batch=3).simulate() as sim:
        sim.crash_at(point, after=after)
        for n in range(12):
            await sim.send(Job("a", n), id=f"job-{n}")
        await sim.settle()
        firsts = {item.id: item for item in reversed(crm.items)}
        assert set(firsts) == {f"job-{n}" for n in range(12)}, "nothing is lost"
        assert all(item.number == firsts[item.id].number for item in crm.items)
        again = [item for item in crm.items if sum(other.id == item.id for other in crm.items) > 1]
        assert len({item.id for item in again}) <= 3
        first_seen = list({item.number: None for item in crm.items})
        assert first_seen == sorted(first_seen)
        assert (sim.crashes, sim.ledger.done, sim.ledger.imbalance()) == (1, 12, "")


async def test_a_crash_during_a_call_repeats_that_call_and_no_other() -> None:
    crm = Crm()
    crm.trouble = lambda items: asyncio.sleep(10)
    async with shop(crm, batch=2).simulate() as sim:
        for n in range(6):
            await sim.send(Job("a", n))
        await sim.advance(15)
        under_way, calls = crm.calls[-1], len(crm.calls)
        await sim.crash()
        await sim.settle()
        assert crm.calls[calls] == under_way
        assert sorted(crm.taken) == list(range(6))


async def test_a_sink_is_given_no_more_a_second_than_told() -> None:
    crm = Crm()
    async with shop(crm, per_second=4.5).simulate() as sim:
        for n in range(40):
            await sim.send(Job("a", n))
        await sim.settle()
        assert max(len(call) for call in crm.calls) == 4
        for (begin, call), after in zip(zip(crm.times, crm.calls, strict=True), crm.times[1:], strict=False):
            assert after - begin >= len(call) / 4.5 - 1e-6
        assert crm.times[-1] - crm.times[0] == pytest.approx(39 / 4.5, abs=1)


async def test_a_slow_pace_below_one_a_second() -> None:
    crm = Crm()
    async with shop(crm, per_second=0.1).simulate() as sim:
        for n in range(3):
            await sim.send(Job("a", n))
        await sim.settle()
        assert crm.calls == [[0], [1], [2]]
        assert crm.times[2] - crm.times[0] == pytest.approx(20, abs=0.1)


async def test_what_a_handler_emits_comes_to_a_sink_when_it_commits() -> None:
    crm, app, tries = Crm(), App("shop"), list[int]()

    @app.component(retry=Retry(attempts=3, base_s=0.1))
    class Till:
        @on(Alarm)
        async def ring(self, alarm: Alarm, ctx: Context) -> None:
            tries.append(alarm.n)
            ctx.emit(Job("a", 10 * alarm.n))
            ctx.after(5, Job("b", 10 * alarm.n + 1))
            if len(tries) == 1:
                raise ConnectionError("once more")

    @app.sink(Job)
    async def crm_sink(items: Sequence[Item[Job]]) -> None:
        await crm.take(items)

    async with app.simulate(errors="record") as sim:
        await sim.send(Alarm("a", 1))
        await sim.advance(10)
        await sim.settle()
        assert crm.taken == [10, 11]
        assert sim.emitted(Job) == [Job("a", 10)]


async def test_a_type_may_have_a_handler_and_two_sinks() -> None:
    one, two, app = Crm(), Crm(), App("shop")

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    @app.sink(Job)
    async def to_one(items: Sequence[Item[Job]]) -> None:
        await one.take(items)

    @app.sink(Job, retry=Retry(attempts=1))
    async def to_two(items: Sequence[Item[Job]]) -> None:
        await two.take(items)

    two.trouble = fails(3)
    async with app.simulate(errors="record") as sim:
        receipts = [await sim.send(Job("a", n)) for n in range(6)]
        await sim.settle()
        assert {receipt.deliveries for receipt in receipts} == {3}
        assert sim.state(Till, "a").seen == one.taken == [0, 1, 2, 3, 4, 5]
        assert two.taken == [0, 1, 2, 4, 5]
        assert (sim.ledger.external, sim.ledger.done, sim.ledger.dead) == (18, 17, 1)


async def test_a_duplicate_is_given_once() -> None:
    crm = Crm()
    async with shop(crm).simulate() as sim:
        for _ in range(3):
            await sim.send(Job("a", 1), id="one")
        await sim.settle()
        assert crm.calls == [[1]]


async def test_urgent_ones_come_first_while_they_wait_for_the_outbox() -> None:
    crm = Crm()
    async with Disk().node(shop(crm)) as node:
        await asyncio.gather(
            *(node.send(Job("a", n)) for n in range(20)),
            *(node.send(Job("b", n), priority=Priority.CRITICAL) for n in range(100, 110)),
        )
        await until(lambda: node.status().ledger.done == 30)
        assert set(crm.taken[:10]) >= set(range(100, 105))


async def test_what_waits_for_a_sink_counts_as_waiting_and_is_shown() -> None:
    crm = Crm()
    crm.trouble = lambda items: asyncio.sleep(30)
    async with Disk().node(shop(crm, timeout=None)) as node:
        await node.send(Job("a", 0))
        await until(lambda: crm.calls)
        await node.send_many([Job("a", n) for n in range(1, 8)])
        await until(lambda: node.status().sinks["crm"].waiting == 8)
        status = node.status()
        assert (status.ledger.waiting, status.ledger.in_outbox, status.ended["NORMAL"]) == (8, 8, 0)
        assert status.sinks["crm"].state == "running"
        await until(lambda: node.status().ledger.done == 8)
        assert node.status().latency_s["NORMAL"]["max"] > 29, "it is done when its sink has taken it"


async def test_an_item_whose_life_is_over_is_not_given() -> None:
    app, taken, open_ = App("shop"), list[int](), asyncio.Event()

    @app.sink(Offer, batch=2, timeout=None)
    async def to_crm(items: Sequence[Item[Offer]]) -> None:
        taken.extend(item.message.n for item in items)
        await open_.wait()

    async with Disk().node(app) as node:
        await node.send(Offer(0))
        await until(lambda: taken)
        await node.send_many([Offer(n) for n in range(1, 6)])
        await asyncio.sleep(20)
        open_.set()
        await node.send(Offer(6))
        await until(lambda: not node.status().ledger.waiting)
        assert taken == [0, 6]
        assert (node.status().ledger.done, node.status().ledger.expired) == (2, 5)
        assert node.status().imbalance == ""


# --- how it is written ------------------------------------------------------------------------------------------------


class Pool:
    """Stands for a pool of connections."""


async def test_resources_and_settings_are_given_by_type_behind_the_items() -> None:
    app, module, given = App("shop"), Module("mail"), list[Any]()

    @app.resource
    async def pool() -> AsyncIterator[Pool]:
        yield Pool()

    @module.sink(Job)
    async def to_mail(items: Sequence[Item[Job]], pool: Pool, *, log: dict[str, int], size: int = 7) -> None:
        given.extend((pool, log, size))

    app.include(module)
    mine = Pool()
    async with app.simulate(resources={Pool: mine, dict[str, int]: {"a": 1}}) as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        assert given == [mine, {"a": 1}, 7]


async def test_a_type_that_only_a_sink_takes_is_known_and_one_that_nobody_takes_is_not() -> None:
    crm = Crm()
    async with Disk().node(shop(crm)) as node:
        message = node.message("job", b'{"key": "a", "n": 5}')
        assert (await node.send(message)).deliveries == 1
        with pytest.raises(UnknownTypeError, match="nobody handles 'done'"):
            node.message("done", b"{}")
        await until(lambda: crm.taken == [5])


async def nothing(items: Sequence[Item[Job]]) -> None:
    """A sink that is well written."""


def plain(items: Sequence[Item[Job]]) -> None:
    """None."""


async def without() -> None:
    """None."""


async def untyped(items) -> None:  # type: ignore[no-untyped-def]
    """None."""


async def other(items: Sequence[Item[Alarm]]) -> None:
    """None."""


async def bare(items: Sequence[Job]) -> None:
    """None."""


async def open_ended(items: Sequence[Item[Job]], pool) -> None:  # type: ignore[no-untyped-def]
    """None."""


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (plain, {}, "plain is no coroutine function.*write: async def plain"),
        (without, {}, "without does not take items of Job first.*write: async def without"),
        (untyped, {}, "untyped does not take items of Job first"),
        (other, {}, "other does not take items of Job first"),
        (bare, {}, "bare does not take items of Job first"),
        (open_ended, {}, "takes pool, which has no type"),
        (nothing, {"batch": 0}, "batch is 0: 1 to 900"),
        (nothing, {"batch": 901}, "batch is 901: 1 to 900"),
        (nothing, {"batch": 1.5}, "batch is 1.5: 1 to 900"),
        (nothing, {"per_second": 0}, "per_second is 0: items a second above 0"),
        (nothing, {"per_second": -1.0}, "per_second is -1.0"),
        (nothing, {"per_second": float("inf")}, "per_second is inf"),
        (nothing, {"timeout": 0}, "timeout is 0: seconds above 0"),
        (nothing, {"name": "a:b"}, "'a:b' is no sink name"),
    ],
)
def test_a_sink_that_is_written_wrong_is_told_where_and_what(function: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=f"(?s)test_sinks.py:\\d+: .*{says}"):
        App("shop").sink(Job, **options)(function)


def test_a_sink_takes_message_classes_and_no_requests() -> None:
    with pytest.raises(DefinitionError, match="takes a message class, not <class 'int'>"):
        App("shop").sink(int)(nothing)  # type: ignore[type-var]
    with pytest.raises(DefinitionError, match="Ask is a request: a handler answers it"):
        App("shop").sink(Ask)(nothing)


def test_two_sinks_of_one_name_or_a_component_of_its_name_are_refused() -> None:
    app = App("shop")
    app.sink(Job)(nothing)
    app.sink(Alarm, name="nothing")(other)
    with pytest.raises(DefinitionError, match=r"the name 'nothing' is taken, at .*test_sinks.py"):
        app.definition()
    app = App("shop")

    @app.component(name="nothing")
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            """Nothing."""

    app.sink(Job)(nothing)
    with pytest.raises(DefinitionError, match="the name 'nothing' is taken"):
        app.definition()


def test_a_resource_that_nobody_provides_is_told() -> None:
    app = App("shop")

    @app.sink(Job)
    async def to_mail(items: Sequence[Item[Job]], pool: Pool) -> None:
        """Nothing."""

    with pytest.raises(DefinitionError, match="to_mail asks for pool: Pool, and nobody provides one"):
        app.definition()
