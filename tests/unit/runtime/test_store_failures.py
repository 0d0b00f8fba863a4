"""A store that fails: nothing is lost or doubled, and everyone who waits is told rightly what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from genesis import (
    App,
    AskError,
    Context,
    IntakeFullError,
    Node,
    NotAcceptedError,
    Receipt,
    RefusedError,
    Request,
    Retry,
    State,
    on,
)
from genesis.core.errors import ContextClosedError, StoreFailedError, StoreFullError
from genesis.core.event import Delivery
from genesis.core.ports import CrashPoint, StateRow
from tests.unit.runtime.shop import KEPT, LOST, shop
from tests.unit.runtime.support import COMMIT_S, Alarm, Disk, Job, Log, until


class Account(State):
    cents: int = 0


class Pay(Request[int], type="account.pay"):
    key: str = "a"
    cents: int = 0


async def send_until_taken(node: Node, job: Job, id: str) -> list[Receipt | str]:
    """What a producer does: send with an id, again and again, until there is a yes. Returns the answers."""
    answers: list[Receipt | str] = []
    while True:
        try:
            answers.append(await node.send(job, id=id))
            return answers
        except (NotAcceptedError, IntakeFullError) as error:
            answers.append(error.code)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("point", [LOST, KEPT])
async def test_an_event_whose_commit_failed_is_accepted_if_it_was_stored_and_else_refused(point: str) -> None:
    app, till = shop()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job("a", 0))
        await asyncio.sleep(0.1)
        disk.fail_at(point)
        if point == KEPT:
            assert not (await node.send(Job("a", 1), id="1")).duplicate
        else:
            with pytest.raises(NotAcceptedError, match="send it again with the same id"):
                await node.send(Job("a", 1), id="1")
        answers = await send_until_taken(node, Job("a", 1), "1")
        assert isinstance(answers[-1], Receipt)
        assert answers[-1].duplicate == (point == KEPT)
        await until(lambda: node.status().ledger.done == 4)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).seen == [0, 1]
        assert node.status().imbalance == ""


@pytest.mark.parametrize("point", [LOST, KEPT])
@pytest.mark.parametrize("after", range(6))
async def test_a_failure_anywhere_loses_and_doubles_nothing(point: str, after: int) -> None:
    app, till = shop()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(point, after=after)
        for n in range(20):
            await send_until_taken(node, Job("ab"[n % 2], n), str(n))
        await until(lambda: disk.failed)
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 40)
        await asyncio.sleep(0.1)
        for offset, key in enumerate("ab"):
            assert (await node.state(till, key)).seen == list(range(offset, 20, 2))
        assert node.status().ledger.accepted == 20
        assert node.status().imbalance == ""


async def test_it_may_fail_again_and_again() -> None:
    app, till = shop()
    disk = Disk()
    async with disk.node(app) as node:
        for n in range(30):
            disk.fail_at((LOST, KEPT)[n % 2], after=n % 3)
            await send_until_taken(node, Job("a", n), str(n))
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 60)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).seen == list(range(30))
        assert node.status().imbalance == ""


@pytest.mark.parametrize("point", [LOST, KEPT])
async def test_everyone_who_waits_for_the_commit_that_failed_is_told_the_same(point: str) -> None:
    app, till = shop()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(point, after=1)
        first = asyncio.create_task(node.send(Job("a", 0)))
        await asyncio.sleep(COMMIT_S / 2)  # its commit is under way: the others gather for the next
        burst = [node.send(Job("a", n), id=str(n % 10)) for n in range(1, 31)]
        answers = await asyncio.gather(first, *burst, return_exceptions=True)
        told = ["yes" if isinstance(answer, Receipt) else type(answer).__name__ for answer in answers]
        assert told[0] == "yes"
        assert set(told[1:]) == ({"yes"} if point == KEPT else {"NotAcceptedError"})
        for n in range(1, 11):
            await send_until_taken(node, Job("a", n), str(n % 10))
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 22)
        await asyncio.sleep(0.1)
        assert sorted((await node.state(till, "a")).seen) == list(range(11))


@pytest.mark.parametrize("point", [LOST, KEPT])
async def test_what_was_not_sealed_yet_is_not_accepted(point: str) -> None:
    """Two groups: the one under way fails, the one that gathers behind it was never written."""
    app, _ = shop()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(point)
        under_way = asyncio.create_task(node.send(Job("a", 1), id="1"))
        await asyncio.sleep(COMMIT_S / 2)
        gathering = asyncio.create_task(node.send(Job("a", 2), id="2"))
        with pytest.raises(NotAcceptedError):
            await gathering
        if point == KEPT:
            await under_way
        else:
            with pytest.raises(NotAcceptedError):
                await under_way


@pytest.mark.parametrize("point", [LOST, KEPT])
@pytest.mark.parametrize("after", range(3))
async def test_who_asked_is_told_to_ask_again_and_is_answered_then(point: str, after: int) -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            account.cents += pay.cents
            return account.cents

    disk = Disk()
    async with disk.node(app) as node:
        for n in range(3):
            disk.fail_at(point, after=after)
            for _ in range(20):
                with suppress(AskError, RefusedError):
                    assert await node.ask(Pay(cents=5), id=str(n)) == 5 * n + 5
                    break
                await asyncio.sleep(0.05)
            assert await node.ask(Pay(cents=5), id=str(n)) == 5 * n + 5
            await asyncio.sleep(0.05)
        assert (await node.state(Accounts, "a")).cents == 15


@pytest.mark.parametrize("point", [LOST, KEPT])
async def test_a_retry_that_waited_goes_on_with_its_attempts(point: str) -> None:
    app, till = shop()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Alarm("a", 7))
        await until(lambda: node.status().ledger.in_pending == 1)
        disk.fail_at(point)
        await send_until_taken(node, Job("b", 1), "1")
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 3)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).seen == [7]
        assert node.status().ledger.dead == 0


async def test_handlers_that_run_are_cancelled_and_run_again_on_what_is_stored() -> None:
    app, begun, ended = App("shop"), list[int](), list[int]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            begun.append(job.n)
            log.seen.append(job.n)
            await asyncio.sleep(1)
            ended.append(job.n)

    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job("a", 1))
        await until(lambda: begun == [1])
        disk.fail_at(LOST)
        await send_until_taken(node, Job("b", 2), "2")
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 2)
        await asyncio.sleep(0.1)
        assert begun.count(1) == 2
        assert ended.count(1) == 1
        assert (await node.state(Till, "a")).seen == [1]
        assert node.status().ledger.retries == 0


async def test_a_store_that_fails_again_and_again_costs_a_running_handler_no_attempt() -> None:
    app, attempts = App("shop"), list[int]()

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.key == "slow":
                attempts.append(ctx.attempt)
                await asyncio.sleep(5)
            log.seen.append(job.n)

    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job("slow", 1))
        for n in range(8):
            await asyncio.sleep(0.1)
            await node.send(Job("b", n))  # a commit that notes what is running
            disk.fail_at((LOST, KEPT)[n % 2])
            await send_until_taken(node, Job("c", n), str(n))
        await until(lambda: _status_or_none(node) and node.status().ledger.waiting == 0)
        await asyncio.sleep(0.1)
        assert set(attempts) == {1}
        assert len(attempts) == 9
        assert node.status().ledger.dead == 0
        assert (await node.state(Till, "slow")).seen == [1]
        assert node.status().imbalance == ""


async def test_a_handler_that_swallows_its_cancellation_does_not_go_on_serving_the_dropped_partition() -> None:
    app, runs = App("shop"), list[str]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            runs.append(f"{job.n} begins")
            log.seen.append(job.n)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    disk = Disk()
    async with disk.node(app) as node:
        await node.send_many([Job("a", n) for n in range(3)])
        await until(lambda: runs)
        disk.fail_at(LOST)
        await send_until_taken(node, Job("b", 9), "9")
        await until(lambda: _status_or_none(node) and node.status().ledger.done == 4)
        await asyncio.sleep(0.1)
        assert (await node.state(Till, "a")).seen == [0, 1, 2]
        assert sorted(runs) == ["0 begins", "0 begins", "1 begins", "2 begins", "9 begins"]


async def test_the_node_takes_no_events_while_it_opens_the_store_again() -> None:
    app, _ = shop()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(LOST)
        with pytest.raises(NotAcceptedError):
            await node.send(Job("a", 1))
        with pytest.raises(IntakeFullError, match="the store is being opened"):
            await node.send(Job("a", 1))
        await asyncio.sleep(1)
        await node.send(Job("a", 1))


async def test_a_full_store_is_told_to_whoever_runs_the_node() -> None:
    app, _ = shop()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(LOST, error=StoreFullError("no room"))
        with pytest.raises(NotAcceptedError, match=r"no room|does not know"):
            await node.send(Job("a", 1))


def _status_or_none(node: Node) -> object:
    try:
        return node.status()
    except IntakeFullError:
        return None


async def test_a_handler_that_outlives_its_pipeline_calls_nobody_and_ends() -> None:
    """Found by the simulator, seed 2329: it waited for ever for a commit of the pipeline that was dropped."""
    app, disk = App("shop"), Disk()
    refused: list[str] = []
    called: list[int] = []

    @app.component(key="key", state=Log, retry=Retry(attempts=3, base_s=0.1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            async def call(key: str) -> None:
                called.append(ctx.attempt)

            if not begun:
                begun.append(job.n)
                until_s = asyncio.get_running_loop().time() + 20
                while (left_s := until_s - asyncio.get_running_loop().time()) > 0:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(left_s)
                try:
                    await ctx.once("call", call)
                except ContextClosedError as error:
                    refused.append(str(error))
                    raise
            await ctx.once("call", call)
            log.seen.append(job.n)

    begun: list[int] = []
    async with disk.node(app) as node:
        await node.send(Job("a", 1))
        await until(lambda: begun)
        disk.fail_at(CrashPoint.EXECUTE)
        with suppress(NotAcceptedError):
            await node.send(Job("b", 2))
        await asyncio.sleep(60)
        assert len(refused) == 1
        assert called.count(1) == len(called) == 1
        assert (await node.state(Till, "a")).seen == [1]
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "genesis-slot-1"][1:]


async def test_a_read_that_fails_in_a_slot_ends_the_pipeline_and_the_delivery_runs() -> None:
    """Found by the simulator, seed 681: the slot ended in silence, and the key waited for ever."""
    app, till = shop()
    disk = Disk()
    async with disk.node(app, cache_bytes=1) as node:
        await node.send(Job("a", 1))
        await asyncio.sleep(1)
        pipeline, load, failed = node._ready(), disk.engine.load_state, list[int]()

        async def load_once_not(partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
            if not failed:
                failed.append(1)
                raise StoreFailedError("a read failed")
            return await load(partition, addresses)

        async def no_prefetch(deliveries: list[Delivery]) -> None:
            """The cache has forgotten it: the slot reads for itself."""

        disk.engine.load_state = load_once_not  # type: ignore[method-assign]
        pipeline.prefetch = no_prefetch  # type: ignore[method-assign]
        await node.send(Job("b", 2))
        await asyncio.sleep(5)
        assert failed
        assert (await node.state(till, "b")).seen == [2]
        assert not node.status().ledger.waiting


async def test_a_delivery_that_is_read_slowly_is_not_passed_by_a_newer_one_of_its_key() -> None:
    """Found by the simulator, seeds 6, 26 and 76: the window had moved on before the older one was in it."""
    app, disk = App("shop"), Disk()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.key == "slow":
                await asyncio.sleep(0.02)
            log.seen.append(job.n)

    async with disk.node(app, window_bytes=1, cache_bytes=1, slots=1) as node:
        load, pipeline = disk.engine.load_state, node._ready()
        reading = asyncio.Event()

        async def load_slowly(partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
            if not reading.is_set() and addresses == ["till/a"] and pipeline.sealed is None:  # for the window
                reading.set()
                await asyncio.sleep(0.05)
            return await load(partition, addresses)

        await node.send_many([Job("slow", 1), Job("slow", 2)])  # one runs, and one is in the window, which is full
        disk.engine.load_state = load_slowly  # type: ignore[method-assign]
        await node.send(Job("a", 1))
        await reading.wait()
        await node.send(Job("a", 2))
        await until(lambda: not node.status().ledger.waiting)
        assert (await node.state(Till, "a")).seen == [1, 2]
