"""Asking again: the same id gives the same answer, and only to the same question."""

from __future__ import annotations

import pytest

from genesis import App, Context, Request, Retry, State, on
from tests.unit.runtime.support import inside


class Tally(State):
    count: int = 0


class Get(Request[int], type="get"):
    key: str = "a"


class Sum(Request[int], type="sum"):
    key: str = "a"


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
