"""The end of a node: what runs may end, what does not is given back, and nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from genesis import App, Context, DrainingError, Node, Request, Retry, on
from genesis.core.errors import ContextClosedError
from tests.unit.runtime.support import Alarm, Disk, Done, Job, Log, until


class Get(Request[int], type="get"):
    key: str = "a"
    takes_s: float = 0.0


def shop(takes_s: float = 0.0) -> tuple[App, type, list[tuple[int, int]]]:
    """An application whose handler takes some time, and notes (number, attempt) when it begins."""
    app, begun = App("shop"), list[tuple[int, int]]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            begun.append((job.n, ctx.attempt))
            log.seen.append(job.n)
            await asyncio.sleep(takes_s)
            ctx.emit(Done(job.key, job.n))

        @on(Done)
        async def done(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(100 + done.n)

    return app, Till, begun


async def test_running_handlers_may_end_and_what_they_did_is_stored() -> None:
    app, till, begun = shop(takes_s=5)
    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job("a", 1))
        await node.send(Job("a", 2))
        await until(lambda: begun)
    assert asyncio.get_running_loop().time() < 6
    assert begun == [(1, 1)], "nothing new is begun"
    begun.clear()
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 4)
        await asyncio.sleep(0.1)
        assert begun == [(2, 1)]
        assert sorted((await node.state(till, "a")).seen) == [1, 2, 101, 102]
        assert node.status().imbalance == ""


async def test_an_idle_node_stops_at_once() -> None:
    app, _, _ = shop()
    async with Disk().node(app) as node:
        await node.send(Job())
        await until(lambda: node.status().ledger.done == 2)
        begin = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begin < 0.1


async def test_what_does_not_end_in_time_is_given_back_and_no_attempt_is_counted() -> None:
    app, _till, begun = shop(takes_s=100)
    disk = Disk()
    async with disk.node(app, drain_s=2) as node:
        for n in range(5):
            await node.send(Job(str(n), n))
        await until(lambda: len(begun) == 5)
        begin = asyncio.get_running_loop().time()
    assert 2 <= asyncio.get_running_loop().time() - begin < 2.1
    begun.clear()
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 10, limit_s=200)
        assert sorted(begun) == [(n, 1) for n in range(5)]
        assert (node.status().ledger.retries, node.status().imbalance) == (0, "")


async def test_while_it_drains_it_takes_no_events() -> None:
    app, _, begun = shop(takes_s=5)
    disk = Disk()
    refused: list[str] = []

    async def send_late(node: Node) -> None:
        await asyncio.sleep(2)
        for send in (node.send(Job("b", 2)), node.send_many([Job("b", 2)]), node.ask(Get())):
            try:
                await send
            except DrainingError as error:
                refused.append(error.code)
            except Exception as error:
                refused.append(repr(error))

    app2 = app

    @app2.component(key="key", state=Log)
    class Other:
        @on(Get)
        async def get(self, get: Get, log: Log, ctx: Context) -> int:
            return 1

    async with disk.node(app2) as node:
        await node.send(Job("a", 1))
        await until(lambda: begun)
        late = asyncio.create_task(send_late(node))
    await late
    assert refused == ["draining"] * 3


async def test_who_waits_for_an_answer_at_the_end_is_told_to_ask_again() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Till:
        @on(Get, timeout=None)
        async def get(self, get: Get, log: Log, ctx: Context) -> int:
            await asyncio.sleep(get.takes_s)
            return 7

    disk = Disk()
    async with disk.node(app, drain_s=1) as node:
        quick = asyncio.create_task(node.ask(Get("a", 0.5)))
        slow = asyncio.create_task(node.ask(Get("b", 500), deadline=1000, id="1"))
        await asyncio.sleep(0.1)
    assert await quick == 7
    with pytest.raises(Exception, match=r"the node has stopped.*ask again with the same id"):
        await slow
    async with disk.node(app) as node:
        assert await node.ask(Get("b", 500), deadline=1000, id="1") == 7


@pytest.mark.parametrize("first_fails", [False, True])
async def test_a_handler_that_swallows_its_cancellation_at_the_end_does_not_count(first_fails: bool) -> None:
    app, ends = App("shop"), list[str]()

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=0.01))
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if first_fails and ctx.attempt == 1:
                raise ConnectionError
            log.seen.append(job.n)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(20)
                ends.append("slept")
                return
            with pytest.raises(ContextClosedError):
                ctx.emit(Done())
            ends.append("cancelled")

    disk = Disk()
    async with disk.node(app, drain_s=1) as node:
        await node.send(Job("a", 1))
        await until(lambda: node.status().running)
    assert ends == ["cancelled"]
    async with disk.node(app) as node:
        assert node.status().imbalance == ""
        assert node.status().ledger.waiting == 1
        await until(lambda: node.status().ledger.done == 1)
        await asyncio.sleep(0.1)
        assert ends == ["cancelled", "slept"]
        assert (await node.state(Till, "a")).seen == [1]
        assert (node.status().ledger.dead, node.status().imbalance) == (0, "")


@pytest.mark.parametrize("over_s", [n / 5000 for n in range(-2, 12)])
async def test_a_handler_that_ends_just_when_it_is_given_back_counts_once_or_runs_again(over_s: float) -> None:
    app, _, begun = shop(takes_s=1.0 + over_s)
    disk = Disk()
    async with disk.node(app, drain_s=1.0) as node:
        await node.send(Job("a", 1))
        await until(lambda: begun)
        await asyncio.sleep(0)
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 2)
        await asyncio.sleep(0.1)
        status = node.status()
        assert (status.ledger.external, status.ledger.emitted, status.ledger.waiting) == (1, 1, 0)
        assert status.imbalance == ""
        assert status.ledger.retries == 0


async def test_a_handler_that_will_not_stop_does_not_keep_the_node() -> None:
    app, stop = App("shop"), False

    @app.component(key="key", state=Log)
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            while not stop:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

    disk = Disk()
    async with disk.node(app, drain_s=1, grace_s=1) as node:
        await node.send(Job("a", 1))
        await until(lambda: node.status().running)
        begin = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begin < 4
    stop = True
    await asyncio.sleep(5)
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 1)
        await asyncio.sleep(0.1)
        assert (await node.state(Till, "a")).seen == [1]
        assert node.status().imbalance == ""


async def test_an_error_of_the_body_comes_out_after_the_drain() -> None:
    app, _till, begun = shop(takes_s=3)
    disk = Disk()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send(Job("a", 1))
            await until(lambda: begun)
            raise ZeroDivisionError
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 2)
        assert begun == [(1, 1)]


async def test_a_cancelled_body_drains_and_stays_cancelled() -> None:
    app, _till, begun = shop(takes_s=3)
    disk = Disk()

    async def serve() -> None:
        async with disk.node(app) as node:
            await node.send(Job("a", 1))
            await asyncio.sleep(1000)

    task = asyncio.create_task(serve())
    await until(lambda: begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 2)
        assert begun == [(1, 1)]


async def test_a_retry_that_waits_is_left_to_the_next_node() -> None:
    app, attempts = App("shop"), list[int]()

    @app.component(key="key", state=Log, retry=Retry(attempts=5, base_s=300, cap_s=300))
    class Till:
        @on(Alarm)
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            raise ConnectionError

    disk = Disk()
    for _ in range(3):
        async with disk.node(app) as node:
            if not attempts:
                await node.send(Alarm())
                await until(lambda: attempts)
            else:
                await asyncio.sleep(1)
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.dead == 1, limit_s=1500)
        assert attempts == [1, 2, 3, 4, 5]


async def test_a_node_that_was_stopped_answers_nothing_more() -> None:
    app, till, _ = shop()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job())
    for call in (node.send(Job()), node.ask(Get()), node.state(till, "a"), node.send_many([Job()])):
        with pytest.raises(Exception, match=r"stopped|stopping|draining|opened"):
            await call


async def test_a_handler_that_asks_while_the_node_drains_is_answered() -> None:
    app, answers = App("shop"), list[int]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await asyncio.sleep(1)
            answers.append(await ctx.ask(Get()))

    @app.component(key="key", state=Log)
    class Sums:
        @on(Get)
        async def get(self, get: Get, log: Log, ctx: Context) -> int:
            return 7

    async with Disk().node(app) as node:
        await node.send(Job())
        await asyncio.sleep(0.5)
    assert answers == [7]


async def test_an_event_that_kills_the_process_ends_as_crashed_after_a_clean_end_too() -> None:
    app, kills = App("shop"), list[int]()

    @app.component(key="key", state=Log, retry=Retry(attempts=3))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if not kills:
                await asyncio.sleep(1000)  # longer than a drain: it is given back
            kills.append(ctx.attempt)
            sim.world.die()

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        process = sim.world.hosts[0].process
        assert process is not None
        kills.append(0)
        process.remains[0].cancel()  # it closes in order
        await sim.settle()
        assert [letter.reason for letter in sim.dead()] == ["crashed"]
        assert kills == [0, 1, 1, 2, 3]
