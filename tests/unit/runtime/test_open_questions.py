"""Behaviour that a user would expect and that needs a decision first. Each test fails today, and says what is missing."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from genesis import App, Context, Message, Request, Retry, Settings, State, on
from tests.unit.runtime.support import Alarm, Disk, Job, Log, inside, until


def open_question(why: str):  # type: ignore[no-untyped-def]
    return pytest.mark.xfail(reason=why, strict=True)


class Tally(State):
    count: int = 0


class Offer(Message, type="offer", expires_after=5.0):
    key: str = "a"
    n: int = 0


class Get(Request[int], type="get"):
    key: str = "a"


class Sum(Request[int], type="sum"):
    key: str = "a"


# --- order ----------------------------------------------------------------------------------------------------------


@open_question(
    "a held delivery is brought up when nothing else of its key is pending, whatever the priorities: a CRITICAL one that "
    "was held behind the retry of a CRITICAL one then also waits for the retry of a NORMAL one, up to 300 s. "
    "PendingWork would have to count by priority, and `needs_next` to look at the most urgent held one."
)
async def test_a_critical_event_never_waits_for_the_retry_of_a_normal_one_of_its_key() -> None:
    app, fails = App("shop"), {1: 1, 2: 1}

    @app.component(key="key", state=Log)
    class Till:
        @on(Job, retry=Retry(base_s=300))
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            await self.work(job.n, log)

        @on(Alarm, retry=Retry(base_s=0.5))
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            await self.work(alarm.n, log)

        async def work(self, n: int, log: Log) -> None:
            if fails.get(n, 0):
                fails[n] -= 1
                raise ConnectionError
            log.seen.append(n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))  # fails, and waits for minutes
        await sim.advance(0.01)
        await sim.send(Alarm("a", 2))  # passes it, fails, and waits for half a second
        await sim.advance(0.01)
        await sim.send(Alarm("a", 3))  # is held behind the other alarm
        await sim.advance(2)
        assert sim.state(Till, "a").seen == [2, 3]


# --- state ----------------------------------------------------------------------------------------------------------


@open_question(
    "msgspec does not check assignments, and what was encoded is not decoded again: a wrong value is committed, and every "
    "later event of the key fails. Decoding the new bytes once (about 0.2 us for a small state) would fail the attempt "
    "that wrote them."
)
async def test_a_state_that_does_not_fit_its_class_fails_the_attempt_that_wrote_it() -> None:
    app = App("shop")

    @app.component(key="key", state=Tally, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, tally: Tally, ctx: Context) -> None:
            tally.count = "many" if job.n == 1 else tally.count + 1  # type: ignore[assignment]

    async with app.simulate(errors="record") as sim:
        for n in range(4):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.ledger.dead == 1
        assert sim.state(Till, "a").count == 3


# --- failures -------------------------------------------------------------------------------------------------------


# --- handlers -------------------------------------------------------------------------------------------------------


@open_question(
    "handlers of one slot share its task and so its context: a variable that one sets is seen by the next, of another "
    "tenant perhaps. Stepping each handler in a copy of the slot's context would keep them apart (about 0.3 us)."
)
async def test_a_context_variable_that_a_handler_sets_is_not_seen_by_the_next() -> None:
    app, tenant, found = App("shop"), contextvars.ContextVar("tenant", default="nobody"), list[str]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            found.append(tenant.get())
            tenant.set(job.key)

    async with app.simulate() as sim:
        for key in "ab":
            await sim.send(Job(key))
        await sim.settle()
        assert found == ["nobody", "nobody"]


@open_question(
    "a drain lets running handlers end, but starts nothing: one that asks then waits for its answer until `drain_s` is over "
    "and is given back. Slots could go on for what running handlers ask."
)
async def test_a_handler_that_asks_while_the_node_drains_is_answered() -> None:
    app, answers = App("shop"), list[int]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await asyncio.sleep(1)
            answers.append(await ctx.ask(Get()))

    @app.component(key="key", state=Tally)
    class Sums:
        @on(Get)
        async def get(self, get: Get, tally: Tally, ctx: Context) -> int:
            return 7

    async with Disk().node(app) as node:
        await node.send(Job())
        await asyncio.sleep(0.5)
    assert answers == [7]


@open_question(
    "a plain function that hangs keeps its thread after it was given up: with all `threads` gone, later ones wait in the "
    "pool, and that wait counts as their `timeout` and as their attempts. A pool whose lost threads are replaced, or a limit "
    "that begins when the function does, would keep them from dying unrun."
)
def test_plain_functions_that_hang_take_no_attempts_from_the_others() -> None:
    app, release, ran = App("shop"), threading.Event(), list[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=0.05)
        def serve(self, job: Job, ctx: Context) -> None:
            ran.append(job.n)
            if job.n < 2:
                release.wait(30)

    async def hang_and_go_on() -> None:
        try:
            async with app.running(store="memory:", settings=Settings(threads=2)) as node:
                await node.send_many([Job(n=n) for n in range(10)])
                await until(lambda: node.status().ledger.accepted and not node.status().ledger.waiting)
                assert sorted(ran) == list(range(10))
        finally:
            release.set()

    asyncio.run(hang_and_go_on())


# --- asking ---------------------------------------------------------------------------------------------------------


@open_question(
    "the answer 'it failed' of a question is kept under its id, and the replay of its dead letter answers under another: "
    "who asks again with the same id hears of the failure until the horizon has passed."
)
async def test_a_question_that_was_replayed_is_answered_when_it_is_asked_again() -> None:
    app, broken = App("shop"), True

    @app.component(key="key", state=Tally, retry=Retry(attempts=1))
    class Sums:
        @on(Get)
        async def get(self, get: Get, tally: Tally, ctx: Context) -> int:
            if broken:
                raise ConnectionError
            return 7

    async with app.simulate(errors="record") as sim:
        with pytest.raises(Exception, match="failed"):
            await sim.ask(Get(), id="1")
        broken = False
        (letter,) = sim.dead()
        assert await inside(sim, lambda node: node.operator.replay(f"{letter.delivery.id:016x}"))
        await sim.settle()
        assert await sim.ask(Get(), id="1") == 7


@open_question(
    "an id that was used for one question gives its answer to any other question too. The kept answer could hold the type, "
    "or a digest, of its question, so that the second is refused as a wrong use of the id."
)
async def test_an_id_that_was_used_for_another_question_is_refused() -> None:
    app = App("shop")

    @app.component(key="key", state=Tally)
    class Sums:
        @on(Get)
        async def get(self, get: Get, tally: Tally, ctx: Context) -> int:
            return 1

        @on(Sum)
        async def sum(self, sum: Sum, tally: Tally, ctx: Context) -> int:
            return 2

    async with app.simulate() as sim:
        assert await sim.ask(Get(), id="1") == 1
        with pytest.raises(Exception, match="id"):
            await sim.ask(Sum(), id="1")


# --- time -----------------------------------------------------------------------------------------------------------


@open_question(
    "an id is forgotten when newer ones are stored, never by time alone: without other traffic it is a duplicate for ever."
)
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
