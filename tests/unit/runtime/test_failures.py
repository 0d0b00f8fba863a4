"""A handler that fails: how often it is tried, what of it stays, what a dead letter holds, and that nobody else is hurt."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from genesis import App, Context, Message, Reject, Request, Retry, State, on
from tests.unit.runtime.support import Alarm, Done, Job, Log, inside, spoken


class Heavy(State):
    data: bytes = b""


class Level(Request[int], type="level"):
    key: str = "a"


class Box(Message, type="box"):
    items: list[int]


async def test_a_failing_handler_is_tried_as_often_as_it_says_then_the_event_is_a_dead_letter() -> None:
    app, times = App("shop", version="1.2.3"), list[float]()

    @app.component(key="key", state=Log, retry=Retry(attempts=4, base_s=1.0, cap_s=2.0))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            times.append(ctx.now())
            assert ctx.attempt == len(times)
            raise ConnectionError("no paper")

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1), id="order-1", source="till-3")
        await sim.settle()
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert len(times) == 4
        assert all(0 <= wait <= limit + 0.01 for wait, limit in zip(waits, (1.0, 2.0, 2.0), strict=True))
        assert [type(error) for _, error in sim.failures] == [ConnectionError] * 4

        (letter,) = sim.dead()
        assert (letter.reason, letter.detail, letter.error) == ("failed", "ConnectionError: no paper", "ConnectionError")
        assert letter.attempts == 4
        assert 'raise ConnectionError("no paper")' in letter.traceback
        assert (letter.app_version, letter.state_version) == ("1.2.3", 1)
        assert letter.died_at >= times[-1]
        assert (letter.delivery.event_id, letter.delivery.source, letter.delivery.type) == ("order-1", "till-3", "job")
        assert (letter.delivery.address, letter.delivery.payload) == ("till/a", b"\x82\xa3key\xa1a\xa1n\x01")
        assert (sim.ledger.dead, sim.ledger.retries, sim.ledger.done) == (1, 3, 0)
        assert sim.ledger.imbalance() == ""


async def test_a_dead_letter_keeps_the_headers() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            raise Reject("closed")

    async with app.simulate(errors="record") as sim:
        await inside(sim, lambda node: node.send(Job(), headers={"tenant": "blue"}))
        await sim.settle()
        assert sim.dead()[0].delivery.headers == {"tenant": "blue"}


async def test_a_rejected_event_is_a_dead_letter_at_once() -> None:
    app, calls = App("shop"), 0

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            nonlocal calls
            calls += 1
            log.seen.append(job.n)
            ctx.emit(Done(n=job.n))
            raise Reject("no such article")

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        (letter,) = sim.dead()
        assert (calls, letter.reason, letter.detail, letter.attempts) == (1, "rejected", "no such article", 1)
        assert sim.state(Till, "a").seen == []
        assert spoken(sim) == []


async def test_the_retry_of_a_handler_counts_before_the_one_of_its_component() -> None:
    app = App("shop")

    @app.component(retry=Retry(attempts=2))
    class Till:
        @on(Job, retry=Retry(attempts=3))
        async def serve(self, job: Job, ctx: Context) -> None:
            raise ValueError

        @on(Alarm)
        async def alarm(self, alarm: Alarm, ctx: Context) -> None:
            raise ValueError

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.send(Alarm())
        await sim.settle()
        assert {letter.delivery.type: letter.attempts for letter in sim.dead()} == {"job": 3, "alarm": 2}


async def test_by_default_five_attempts_are_made() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            raise ValueError

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        assert [letter.attempts for letter in sim.dead()] == [5]


async def test_attempts_are_counted_across_a_crash() -> None:
    app, calls = App("shop"), 0

    @app.component(key="key", retry=Retry(attempts=3, base_s=10))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            nonlocal calls
            calls += 1
            raise ValueError

    async with app.simulate(seed=3, errors="record") as sim:
        await sim.send(Job())
        await sim.advance(0.1)
        assert calls == 1
        await sim.crash()
        await sim.settle()
        assert calls == 3
        assert [letter.attempts for letter in sim.dead()] == [3]


# --- nothing of a failed attempt stays ------------------------------------------------------------------------------


async def test_nothing_of_a_failed_attempt_stays() -> None:
    app, items = App("shop"), list[list[int]]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            assert log.seen == []
            log.seen.append(job.n)
            ctx.emit(Done(n=ctx.attempt))
            ctx.after(1, Alarm(n=ctx.attempt), name=f"timer-{ctx.attempt}")
            ctx.cancel("old")
            if ctx.attempt < 3:
                raise ConnectionError
            await asyncio.sleep(0.1)

        @on(Alarm)
        async def alarm(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(100 + alarm.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.settle()
        await sim.advance(60)
        assert sim.state(Till, "a").seen == [1, 103]
        assert spoken(sim) == [3]
        assert items == []


async def test_a_failed_attempt_does_not_cancel_a_timer() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 0:
                ctx.after(30, Alarm(n=7), name="closing")
                return
            ctx.cancel("closing")
            raise Reject("not yet")

        @on(Alarm)
        async def alarm(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(alarm.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=0))
        await sim.send(Job(n=1))
        await sim.advance(60)
        assert sim.state(Till, "a").seen == [7]


async def test_a_message_that_a_failed_attempt_changed_is_whole_again_in_the_next() -> None:
    app, seen = App("shop"), list[list[int]]()

    @app.component
    class Till:
        @on(Box)
        async def unpack(self, box: Box, ctx: Context) -> None:
            seen.append(list(box.items))
            box.items.clear()
            if ctx.attempt == 1:
                raise ValueError

    async with app.simulate(errors="record") as sim:
        await sim.send(Box([1, 2]))
        await sim.settle()
        assert seen == [[1, 2], [1, 2]]


async def test_an_answer_that_cannot_be_encoded_fails_the_attempt_and_leaves_nothing_behind() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=2))
    class Stock:
        @on(Level)
        async def level(self, level: Level, log: Log, ctx: Context) -> Any:
            log.seen.append(1)
            ctx.emit(Done(n=1))
            ctx.after(1, Job())
            return object()

        @on(Job)
        async def job(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(2)

    async with app.simulate(errors="record") as sim:
        await sim.send(Level())
        await sim.settle()
        await sim.advance(5)
        assert sim.state(Stock, "a").seen == []
        assert spoken(sim) == []
        assert [(letter.reason, letter.error) for letter in sim.dead()] == [("failed", "TypeError")]
        assert sim.ledger.imbalance() == ""


async def test_a_state_that_cannot_be_encoded_fails_the_attempt_and_leaves_nothing_behind() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=2))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            ctx.emit(Done(n=job.n))
            log.seen.append(object() if job.n == 1 else job.n)  # type: ignore[arg-type]

    async with app.simulate(errors="record") as sim:
        for n in (1, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Till, "a").seen == [2]
        assert spoken(sim) == [2]
        assert [letter.error for letter in sim.dead()] == ["TypeError"]


async def test_a_state_over_a_mebibyte_fails_the_attempt() -> None:
    app = App("shop")

    @app.component(key="key", state=Heavy, retry=Retry(attempts=1))
    class Safe:
        @on(Job)
        async def put(self, job: Job, heavy: Heavy, ctx: Context) -> None:
            heavy.data += bytes(job.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1_000_000))
        await sim.send(Job("a", 1_000_000))
        await sim.send(Job("a", 10_000))
        await sim.settle()
        assert len(sim.state(Safe, "a").data) == 1_010_000
        (letter,) = sim.dead()
        assert letter.error == "StateTooLargeError"
        assert "split it over more keys" in letter.detail


async def test_one_call_may_emit_nine_hundred_records_and_no_more() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            for n in range(job.n):
                ctx.emit(Done("all", n))

    @app.component(key="key", state=Log)
    class Book:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(done.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 901))
        await sim.send(Job("b", 900))
        await sim.settle()
        assert sim.state(Book, "all").seen == list(range(900))
        (letter,) = sim.dead()
        assert (letter.error, letter.delivery.address) == ("BatchLimitError", "till/a")
        assert "emit one event that does the rest" in letter.detail


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ctx: ctx.emit(Done(n="one")),
        lambda ctx: ctx.emit(Done(), priority=9),
        lambda ctx: ctx.emit("done"),
        lambda ctx: ctx.after(float("nan"), Done()),
        lambda ctx: ctx.after(float("inf"), Done()),
        lambda ctx: ctx.at("noon", Done()),
        lambda ctx: ctx.after(1, Done(), priority=9),
        lambda ctx: ctx.after(1, Done(), name=5),
        lambda ctx: ctx.after(1, Done(), name="\ud800"),
        lambda ctx: ctx.after(1, Done(n="one")),
        lambda ctx: ctx.cancel(5),
    ],
    ids=range(11),
)
async def test_a_wrong_call_of_the_context_fails_its_own_attempt_and_nothing_else(wrong: Callable[[Any], object]) -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            if job.n == 1:
                wrong(ctx)

    async with app.simulate(errors="record") as sim:
        for n in (1, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        await sim.advance(10)
        assert sim.state(Till, "a").seen == [2]
        assert len(sim.dead()) == 1
        assert sim.ledger.imbalance() == ""
