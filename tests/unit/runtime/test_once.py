"""Calls to the outside that must not be made twice: `ctx.once`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genesis import App, Context, Message, Node, Reject, Retry, Settings, UnavailableError, on
from tests.unit.runtime.support import CRASH_POINTS, Disk, Job, Log, inside, until


class Bank:
    """Something outside that counts how it is called, and knows each key."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.fails = 0

    async def charge(self, key: str) -> str:
        self.keys.append(key)
        await asyncio.sleep(0.01)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("bank")
        return f"receipt-{len(self.keys)}"


class Slip(Message, type="slip"):
    n: int = 0


def shop(bank: Bank, fails: int = 0, *, attempts: int = 5) -> tuple[App, type, list[str]]:
    """An application that charges once and fails so many times afterwards."""
    app, receipts, left = App("shop"), list[str](), [fails]

    @app.component(key="key", state=Log, retry=Retry(attempts=attempts, base_s=1.0))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            receipts.append(await ctx.once("charge", bank.charge))
            if left[0]:
                left[0] -= 1
                raise ConnectionError("printer")
            log.seen.append(job.n)

    return app, Till, receipts


async def rows(node: Node) -> list[str]:
    """Keys of the calls that are kept in the journal."""
    pipeline = node._ready()
    return [key for key, _ in await pipeline.engine.scan(pipeline.partition, "once", "", 1000)]


async def test_a_call_is_made_once_though_the_handler_fails_after_it() -> None:
    bank = Bank()
    app, till, receipts = shop(bank, fails=3)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.settle()
        assert sim.state(till, "a").seen == [1]
        assert len(bank.keys) == 1
        assert receipts == ["receipt-1"] * 4


async def test_a_call_that_fails_is_made_again_with_the_same_key() -> None:
    bank = Bank()
    bank.fails = 2
    app, till, _receipts = shop(bank)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.send(Job("b", 2))
        await sim.settle()
        assert sim.state(till, "a").seen == [1]
        assert sorted(bank.keys.count(key) for key in set(bank.keys)) in ([1, 3], [2, 2])


async def test_two_events_have_two_keys_and_one_event_has_one_for_each_name() -> None:
    bank, app = Bank(), App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            first = await ctx.once("charge", bank.charge)
            again = await ctx.once("charge", bank.charge)
            other = await ctx.once("print", bank.charge)
            assert first == again != other

    async with app.simulate() as sim:
        await sim.send(Job(n=1))
        await sim.send(Job(n=2))
        await sim.settle()
        assert len(bank.keys) == len(set(bank.keys)) == 4


async def test_the_result_is_committed_before_the_handler_sees_it() -> None:
    bank, app, found = Bank(), App("shop"), list[list[str]]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await ctx.once("charge", bank.charge)
            found.append(await rows(node))

    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job())
        await until(lambda: found)
        await until(lambda: node.status().ledger.done)
        await asyncio.sleep(0.1)
        assert found == [[bank.keys[0]]]
        assert await rows(node) == [], "the journal of what is done is cleaned"


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("after", range(4))
async def test_a_crash_anywhere_costs_one_more_call_at_most_and_never_with_another_key(point: str, after: int) -> None:
    bank = Bank()
    app, till, _receipts = shop(bank, fails=1)
    async with app.simulate(errors="record") as sim:
        sim.crash_at(point, after=after)
        await sim.send(Job(n=1))
        await sim.settle()
        assert sim.crashes == 1
        assert sim.state(till, "a").seen == [1]
        assert len(set(bank.keys)) == 1
        assert len(bank.keys) <= 2
        assert await inside(sim, rows) == []
        assert sim.ledger.imbalance() == ""


async def test_the_journal_is_kept_with_a_dead_letter_and_used_when_that_is_replayed() -> None:
    bank = Bank()
    app, till, receipts = shop(bank, fails=4, attempts=2)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.settle()
        assert await inside(sim, rows) == [bank.keys[0]]
        await sim.crash()
        for _ in range(2):  # the first replay dies too
            (letter,) = sim.dead()
            assert await inside(sim, lambda node, key=f"{letter.delivery.id:016x}": node.operator.replay(key))
            await sim.settle()
        assert sim.state(till, "a").seen == [1]
        assert receipts == ["receipt-1"] * 5
        assert len(bank.keys) == 1
        assert await inside(sim, rows) == []


async def test_the_journal_of_a_parked_delivery_is_kept_too() -> None:
    bank, app, fails = Bank(), App("shop"), 2

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=1), order="park")
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            nonlocal fails
            await ctx.once("charge", bank.charge)
            if fails:
                fails -= 1
                raise ConnectionError

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        (key,) = await inside(sim, lambda node: node.operator._dead_keys())
        assert await inside(sim, lambda node: node.operator.replay(key))
        await sim.settle()
        assert len(bank.keys) == 1
        assert sim.ledger.done == 1
        assert await inside(sim, rows) == []


@pytest.mark.parametrize("how", ["dropped", "rejected, then dropped"])
async def test_the_journal_goes_with_a_dead_letter_that_is_dropped(how: str) -> None:
    bank, app = Bank(), App("shop")

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await ctx.once("charge", bank.charge)
            await ctx.once("print", bank.charge)
            raise Reject("no") if how != "dropped" else ConnectionError

    async with app.simulate(errors="record") as sim:
        for n in range(3):
            await sim.send(Job(n=n))
        await sim.settle()
        assert len(await inside(sim, rows)) == 6
        for letter in sim.dead()[1:]:
            assert await inside(sim, lambda node, key=f"{letter.delivery.id:016x}": node.operator.drop(key))
        assert len(await inside(sim, rows)) == 2
        assert len(sim.dead()) == 1


async def test_an_unavailable_dependency_after_the_call_does_not_repeat_it() -> None:
    bank, app, down = Bank(), App("shop"), True

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await ctx.once("charge", bank.charge)
            if down:
                raise UnavailableError("printer", 5)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.advance(600)
        down = False
        await sim.settle()
        assert len(bank.keys) == 1


async def test_results_come_back_as_the_type_that_was_asked_for() -> None:
    app, found = App("shop"), list[Any]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            async def call(key: str) -> Any:
                return Slip(5)

            found.append(await ctx.once("slip", call, type=Slip))
            found.append(await ctx.once("plain", call))
            found.append(await ctx.once("none", lambda key: asyncio.sleep(0)))

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
        assert found == [Slip(5), {"n": 5}, None]


async def test_calls_side_by_side_are_all_journalled() -> None:
    bank, app, results = Bank(), App("shop"), list[list[str]]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            results.append(await asyncio.gather(*(ctx.once(f"call-{n}", bank.charge) for n in range(20))))
            if ctx.attempt == 1:
                raise ConnectionError

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        assert len(bank.keys) == len(set(bank.keys)) == 20
        assert results[0] == results[1]
        assert await inside(sim, rows) == []


async def test_a_def_handler_is_told_to_be_async_to_use_it() -> None:
    app = App("shop")

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        def serve(self, job: Job, ctx: Context) -> None:
            ctx.once("x", lambda key: asyncio.sleep(0)).send(None)  # type: ignore[attr-defined]

    async with app.simulate(errors="record", settings=Settings()) as sim:
        await sim.send(Job())
        await sim.settle()
        assert "write async def serve" in sim.dead()[0].detail


async def test_a_call_that_is_not_made_any_more_by_a_later_attempt_leaves_no_row_behind() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            if ctx.attempt == 1:
                await ctx.once("charge", lambda key: asyncio.sleep(0))
                raise ConnectionError

    async def rows(node: Node) -> list[tuple[str, bytes]]:
        return await node._ready().engine.scan(0, "once", "", 100)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        assert sim.ledger.done == 1
        assert await inside(sim, rows) == []


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_what_an_earlier_attempt_journalled_is_forgotten_though_the_process_dies_when_it_is_done(point: str) -> None:
    app, bank = App("shop"), Bank()

    @app.component(key="key", state=Log, retry=Retry(attempts=100, base_s=1.0))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if ctx.attempt == 1:
                await ctx.once("charge", bank.charge)
                raise ConnectionError("printer")
            log.seen.append(job.n)
            if not sim.crashes:
                sim.crash_at(point)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        await sim.advance(1)
        assert sim.state(Till, "a").seen == [0]
        assert await inside(sim, rows) == []


async def test_what_an_earlier_attempt_journalled_is_forgotten_though_both_are_stored_in_one_late_commit() -> None:
    """Found by seed 137 of the bank: it was looked for in the store before it was there."""
    app, bank, attempts = App("shop"), Bank(), list[int]()

    @app.component(key="key", state=Log, retry=Retry(attempts=5, base_s=0.1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.key == "late":
                return
            attempts.append(ctx.attempt)
            if ctx.attempt == 1:
                await asyncio.sleep(0.1)
                await ctx.once("charge", bank.charge)

    async with Disk().node(app, delay=lambda: 5.0 if attempts == [1] else 0.001) as node:
        await node.send(Job("a"))
        await node.send(Job("late"))
        assert attempts == [1, 2]
        await until(lambda: node.status().ledger.done == 2)
        await asyncio.sleep(1)
        assert bank.keys, "the call was made"
        assert await rows(node) == []


async def test_an_attempt_that_times_out_while_its_call_is_being_stored_is_not_followed_by_a_second_call() -> None:
    """Found by seed 6994 of the bank: the next attempt looked for the call in the store before it was there."""
    app, bank, attempts, receipts = App("shop"), Bank(), list[int](), list[str]()

    @app.component(key="key", state=Log, retry=Retry(attempts=50, base_s=0.1, cap_s=0.1))
    class Till:
        @on(Job, timeout=1.0)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.key == "late":
                return
            attempts.append(ctx.attempt)
            await asyncio.sleep(0.1)
            receipts.append(await ctx.once("charge", bank.charge))

    async with Disk().node(app, delay=lambda: 5.0 if attempts == [1] else 0.001) as node:
        await node.send(Job("a"))
        await node.send(Job("late"))
        await until(lambda: node.status().ledger.done == 2)
        await asyncio.sleep(1)
        assert len(attempts) > 2
        assert (len(bank.keys), receipts) == (1, ["receipt-1"])
        assert await rows(node) == []
