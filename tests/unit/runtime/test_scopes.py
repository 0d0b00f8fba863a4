"""Deadlines travel: a handler's timeout and its asker's deadline end the calls and the questions inside it in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from math import inf

import pytest

from genesis import App, Context, DeadlineExceededError, Node, Policy, Request, Retry, on
from genesis.core.errors import CircuitOpenError
from genesis.runtime.scope import deadline, remaining_s
from tests.unit.runtime.support import Job, inside


class Ask(Request[float], type="ask"):
    """How many seconds are left?"""


class Outer(Request[float], type="outer"):
    """The same, by way of another component."""

    own_s: float = 30.0


@pytest.fixture
def policy() -> Iterator[Policy]:
    made = Policy("pricing of the scope tests", timeout_s=5.0)
    yield made
    made.reset()


async def test_a_protected_call_ends_before_its_handler_is_cut_off_and_the_circuit_hears_of_it(policy: Policy) -> None:
    app, caught = App("shop"), list[Exception]()

    @policy
    async def price() -> None:
        await asyncio.sleep(100)

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=2.0)
        async def price(self, job: Job, ctx: Context) -> None:
            begun = asyncio.get_running_loop().time()
            try:
                await price()
            except (DeadlineExceededError, CircuitOpenError) as error:
                caught.append(error)
                assert asyncio.get_running_loop().time() - begun == pytest.approx(1.96)

    async with app.simulate() as sim:
        for n in range(3):
            await sim.send(Job(n=n))
        await sim.settle()
        assert len(caught) == 3
        assert policy.counts["timeout"] == 3
        assert sim.ledger.done == 3


async def test_what_is_left_is_that_of_the_timeout_from_the_first_wait_on() -> None:
    app, left = App("shop"), list[float]()

    @app.component
    class Till:
        @on(Job, timeout=10.0)
        async def look(self, job: Job, ctx: Context) -> None:
            left.append(remaining_s())
            await asyncio.sleep(2.0)
            left.append(remaining_s())
            async with asyncio.TaskGroup() as group:
                group.create_task(self.child())
            with deadline(1.0):
                left.append(remaining_s())
            with deadline(100.0):
                left.append(remaining_s())

        async def child(self) -> None:
            left.append(remaining_s())

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
    assert left == pytest.approx([9.8, 7.8, 7.8, 1.0, 7.8])


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_without_a_timeout_has_all_the_time_there_is(threaded: bool) -> None:
    app, left = App("shop"), list[float]()

    class Till:
        async def look(self, job: Job, ctx: Context) -> None:
            left.append(remaining_s())

    class Plain:
        def look(self, job: Job, ctx: Context) -> None:
            left.append(remaining_s())

    cls = Plain if threaded else Till
    cls.look = on(Job, timeout=None)(cls.look)
    app.component(cls)
    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
    assert left == [inf]


async def test_a_plain_handler_has_its_timeout_from_its_beginning_in_a_thread_on() -> None:
    app, left = App("shop"), list[float]()

    @app.component
    class Till:
        @on(Job, timeout=10.0)
        def look(self, job: Job, ctx: Context) -> None:
            left.append(remaining_s())

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
    assert left == pytest.approx([9.8])


def asking_app() -> App:
    app = App("shop")

    @app.component
    class Clock:
        @on(Ask, timeout=60.0)
        async def left(self, ask: Ask, ctx: Context) -> float:
            return remaining_s()

    @app.component
    class Reception:
        @on(Outer, timeout=20.0)
        async def ask(self, outer: Outer, ctx: Context) -> float:
            return await ctx.ask(Ask(), deadline=outer.own_s)

    return app


@pytest.mark.parametrize(
    ("asked_s", "own_s", "left_s"),
    [(5.0, 30.0, 5.0), (30.0, 3.0, 3.0), (30.0, 30.0, 19.6)],
    ids=["the asker's", "its own", "the handler's timeout"],
)
async def test_a_question_inside_a_handler_has_the_nearest_of_three_deadlines(
    asked_s: float, own_s: float, left_s: float
) -> None:
    async with asking_app().simulate() as sim:

        async def ask(node: Node) -> float:
            return await node.ask(Outer(own_s), deadline=asked_s)

        assert await inside(sim, ask) == pytest.approx(left_s, abs=0.1)


async def test_a_question_inside_a_scope_ends_with_it() -> None:
    async with asking_app().simulate() as sim:

        async def ask(node: Node) -> float:
            with deadline(4.0):
                return await node.ask(Ask())

        async def late(node: Node) -> None:
            with deadline(0.0), pytest.raises(DeadlineExceededError, match="was not asked"):
                await node.ask(Ask())

        assert await inside(sim, ask) == pytest.approx(4.0, abs=0.1)
        await inside(sim, late)


async def test_what_outlives_its_handler_is_free_of_its_deadline() -> None:
    app, left, tasks = App("shop"), list[float](), list[asyncio.Task[None]]()

    @app.component
    class Till:
        @on(Job, timeout=1.0)
        async def begin(self, job: Job, ctx: Context) -> None:
            tasks.append(asyncio.get_running_loop().create_task(self.later()))
            await asyncio.sleep(0.1)

        async def later(self) -> None:
            await asyncio.sleep(5.0)
            left.append(remaining_s())

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.advance(10.0)
    assert left == [inf]


async def test_a_header_that_is_no_deadline_is_none() -> None:
    app, left = App("shop"), list[float]()

    @app.component
    class Till:
        @on(Job, timeout=10.0)
        async def look(self, job: Job, ctx: Context) -> None:
            left.append(remaining_s())

    async with app.simulate() as sim:
        for text in ("soon", "nan", "inf"):
            await inside(sim, lambda node, text=text: node.send(Job(), headers={"genesis-deadline": text}))
        await sim.settle()
    assert left == pytest.approx([9.8] * 3)
