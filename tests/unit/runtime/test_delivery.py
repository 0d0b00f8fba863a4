"""From the producer to the components: who gets an event, what is refused, and what a duplicate is."""

from __future__ import annotations

import asyncio

import pytest

from genesis import (
    App,
    Context,
    IntakeFullError,
    InvalidEventError,
    Message,
    Node,
    Priority,
    Request,
    Settings,
    UnknownTypeError,
    on,
)
from tests.unit.runtime.support import Alarm, Disk, Done, Job, Log, inside, spoken


class Blob(Message, type="blob"):
    data: bytes = b""


class Count(Request[int], type="count"):
    key: str = "a"


def diary(**settings: object) -> tuple[App, type]:
    """An application with one keyed component that notes what it saw."""
    app = App("diary")

    @app.component(key="key", state=Log)
    class Diary:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    return app, Diary


# --- fan-out --------------------------------------------------------------------------------------------------------


async def test_an_event_goes_to_every_component_that_handles_its_type_and_each_goes_its_own_way() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Stock:
        @on(Job)
        async def take(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    @app.component(key="n", state=Log)
    class Invoices:
        @on(Job)
        async def bill(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(-job.n)

    @app.component
    class Broken:
        @on(Job)
        async def fail(self, job: Job, ctx: Context) -> None:
            raise ValueError("out of paper")

    async with app.simulate(errors="record") as sim:
        receipt = await sim.send(Job("a", 7))
        assert receipt.deliveries == 3
        await sim.settle()
        assert sim.state(Stock, "a").seen == [7]
        assert sim.state(Invoices, 7).seen == [-7]
        assert [letter.delivery.component for letter in sim.dead()] == ["broken"]
        assert (sim.ledger.accepted, sim.ledger.external, sim.ledger.done, sim.ledger.dead) == (1, 3, 2, 1)
        assert sim.ledger.imbalance() == ""


async def test_an_emitted_event_fans_out_too() -> None:
    app = App("shop")

    @app.component
    class Door:
        @on(Job)
        async def ring(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(job.key, job.n))

    @app.component(key="key", state=Log)
    class Left:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(done.n)

    @app.component(key="key", state=Log)
    class Right:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(10 * done.n)

    async with app.simulate() as sim:
        await sim.send(Job("k", 3))
        await sim.settle()
        assert (sim.state(Left, "k").seen, sim.state(Right, "k").seen) == ([3], [30])
        assert (sim.ledger.emitted, sim.ledger.done) == (2, 3)


async def test_a_component_that_was_added_later_does_not_see_old_events() -> None:
    disk, (old, diary_class) = Disk(), diary()
    async with disk.node(old) as node:
        await node.send(Job("a", 1))

    new = App("diary")
    new.component(key="key", state=Log)(diary_class)

    @new.component(key="key", state=Log)
    class Late:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    async with disk.node(new) as node:
        await node.send(Job("a", 2))
        await asyncio.sleep(1)
        assert (await node.state(diary_class, "a")).seen == [1, 2]
        assert (await node.state(Late, "a")).seen == [2]


async def test_emitting_what_nobody_handles_is_no_error() -> None:
    app = App("shop")

    @app.component
    class Door:
        @on(Job)
        async def ring(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=job.n))

    async with app.simulate() as sim:
        await sim.send(Job(n=1))
        await sim.settle()
        assert spoken(sim) == [1]
        assert (sim.ledger.emitted, sim.ledger.done) == (0, 1)


# --- refused at the gate --------------------------------------------------------------------------------------------


async def test_an_event_that_nobody_handles_is_refused_with_a_suggestion() -> None:
    class Typo(Message, type="jop"):
        pass

    app, _ = diary()
    async with app.simulate() as sim:
        with pytest.raises(UnknownTypeError, match=r"nobody handles 'jop'; did you mean 'job'\?"):
            await sim.send(Typo())
        assert (sim.ledger.offered, sim.ledger.refused, sim.ledger.accepted) == (1, 1, 0)


async def test_what_is_no_message_is_refused() -> None:
    app, _ = diary()
    async with app.simulate() as sim:
        with pytest.raises(UnknownTypeError, match="is no message: send an instance of a class that extends Message"):
            await sim.send({"key": "a"})  # type: ignore[arg-type]


async def test_a_read_only_request_is_asked_and_not_sent() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Stock:
        @on(Count, read_only=True)
        async def count(self, query: Count, log: Log, ctx: Context) -> int:
            return len(log.seen)

    async with app.simulate() as sim:
        with pytest.raises(UnknownTypeError, match="ask it, it is not sent"):
            await sim.send(Count())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Job(5, 1), "Expected `str`, got `int`"),  # type: ignore[arg-type]
        (Job("a", None), "Expected `int`, got `N"),  # type: ignore[arg-type]
        (Job("", 1), "a key has 1 to 512 characters"),
        (Job("x" * 513, 1), "a key has 1 to 512 characters"),
        (Job("a\0b", 1), "a key has 1 to 512 characters and no NUL"),
        (Job("\ud800", 1), "surrogates not allowed"),
        (Job("a", 1 << 70), "int"),
    ],
)
async def test_an_event_that_does_not_fit_is_refused_at_the_gate_and_not_remembered(bad: Job, says: str) -> None:
    app, diary_class = diary()
    async with app.simulate() as sim:
        with pytest.raises(InvalidEventError, match=says):
            await sim.send(bad, id="one")
        assert sim.ledger.refused == 1
        assert not (await sim.send(Job("a", 1), id="one")).duplicate
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1]


async def test_a_payload_over_a_mebibyte_is_refused() -> None:
    app = App("shop")

    @app.component
    class Store:
        @on(Blob)
        async def put(self, blob: Blob, ctx: Context) -> None:
            pass

    async with app.simulate() as sim:
        await sim.send(Blob(bytes(1_000_000)))
        with pytest.raises(Exception, match="the limit is 1048576"):
            await sim.send(Blob(bytes(1 << 20)))
        await sim.settle()
        assert (sim.ledger.done, sim.ledger.refused) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 9},
        {"priority": -1},
        {"headers": {"n": 1}},
        {"headers": {"x": "\ud800"}},
        {"source": 5},
        {"source": "\ud800"},
        {"id": 5},
        {"id": "\ud800"},
    ],
    ids=str,
)
async def test_a_wrong_argument_of_send_is_refused_and_hurts_nobody_else(wrong: dict[str, object]) -> None:
    app, diary_class = diary()

    async def one_wrong_one_right(node: Node) -> None:
        with pytest.raises(InvalidEventError):
            await node.send(Job("a", 1), **wrong)  # type: ignore[arg-type]
        await node.send(Job("a", 2))

    async with app.simulate() as sim:
        await inside(sim, one_wrong_one_right)
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [2]
        assert (sim.ledger.accepted, sim.ledger.refused) == (1, 1)


async def test_a_full_backlog_refuses_with_a_time_to_come_back_and_takes_events_again_when_it_has_drained() -> None:
    gate = asyncio.Event()
    app = App("shop")

    @app.component
    class Slow:
        @on(Job, timeout=None)
        async def work(self, job: Job, ctx: Context) -> None:
            await gate.wait()

    async with app.simulate(settings=Settings(backlog_max=10)) as sim:
        for n in range(10):
            await sim.send(Job(n=n))
        with pytest.raises(IntakeFullError, match="10 deliveries wait") as refusal:
            await sim.send(Job(n=10), id="late")
        assert refusal.value.retry_after_s > 0
        gate.set()
        await sim.settle()
        assert not (await sim.send(Job(n=10), id="late")).duplicate
        await sim.settle()
        assert (sim.ledger.done, sim.ledger.refused) == (11, 1)


# --- what travels along ---------------------------------------------------------------------------------------------


async def test_a_handler_sees_where_its_event_comes_from() -> None:
    seen: list[object] = []
    app = App("shop")

    @app.component(key="key", state=Log)
    class Stock:
        @on(Job)
        async def take(self, job: Job, log: Log, ctx: Context) -> None:
            seen.extend([ctx.event_id, ctx.source, ctx.priority, ctx.key, ctx.attempt, ctx.headers])
            ctx.emit(Alarm("b"))

        @on(Alarm)
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            seen.extend([ctx.source, ctx.priority, ctx.key, ctx.headers])

    headers = {"traceparent": "00-1-2-01", "tenant": "blue"}
    async with app.simulate() as sim:
        await inside(sim, lambda node: node.send(Job("a/b"), id="1", source="till", priority=Priority.LOW, headers=headers))
        await sim.settle()
    assert seen[:6] == ["1", "till", Priority.LOW, "a/b", 1, headers]
    assert seen[6:] == ["shop", Priority.CRITICAL, "b", {"traceparent": "00-1-2-01"}]  # the trace goes on, the rest ends


async def test_a_key_may_be_a_number_or_made_by_a_function() -> None:
    app = App("shop")

    @app.component(key=lambda job: job.n % 2, state=Log)
    class Halves:
        @on(Job)
        async def take(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

        @on(Alarm, key="n")
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(-alarm.n)

    async with app.simulate() as sim:
        for n in range(4):
            await sim.send(Job(n=n))
        await sim.send(Alarm(n=1))
        await sim.settle()
        assert sim.state(Halves, 0).seen == [0, 2]
        assert sim.state(Halves, "1").seen == [1, 3, -1]  # keys are compared as text
