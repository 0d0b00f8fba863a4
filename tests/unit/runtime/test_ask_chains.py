"""Handlers that ask: chains, circles, slots, and what a second attempt is answered."""

from __future__ import annotations

import asyncio

import pytest

from genesis import (
    App,
    AskCycleError,
    AskError,
    AskFailedError,
    Context,
    Retry,
    Settings,
    on,
)
from tests.unit.runtime.bank import Account, Balance, Chain, Pay, Through, bank
from tests.unit.runtime.support import Disk, Job, Log


def chain() -> App:
    """Components that ask each other."""
    app = App("chain")

    async def next_of(names: list[str], ctx: Context) -> list[str]:
        if not names:
            return []
        following = Through(names[1:]) if names[0] == "*" else Chain(names[1:], key=names[0])
        return await ctx.ask(following, deadline=20)

    @app.component(key="key", state=Log)
    class Links:
        @on(Chain)
        async def link(self, chain: Chain, log: Log, ctx: Context) -> list[str]:
            log.seen.append(1)
            return [chain.key, *await next_of(chain.names, ctx)]

    @app.component
    class Switch:
        @on(Through)
        async def switch(self, chain: Through, ctx: Context) -> list[str]:
            return ["*", *await next_of(chain.names, ctx)]

    return app


async def test_a_chain_of_questions_is_answered() -> None:
    async with chain().simulate() as sim:
        assert await sim.ask(Chain(["b", "*", "c", "*", "*", "d"], key="a")) == ["a", "b", "*", "c", "*", "*", "d"]


@pytest.mark.parametrize("names", [["a"], ["b", "a"], ["*", "a"], ["b", "*", "c", "*", "b"]])
async def test_a_chain_that_comes_back_to_a_key_that_waits_in_it_fails_at_once(names: list[str]) -> None:
    async with chain().simulate(errors="record") as sim:
        with pytest.raises(AskFailedError, match="waits for this answer itself"):
            await sim.ask(Chain(names, key="a"), deadline=3000)
        assert type(sim.failures[0][1]) is AskCycleError


async def test_a_chain_of_stateless_components_that_never_ends_fails() -> None:
    async with chain().simulate(errors="record") as sim:
        with pytest.raises(AskError):
            await sim.ask(Through(["*"] * 40), deadline=3000)
        cycle = next(error for _, error in sim.failures if isinstance(error, AskCycleError))
        assert "a chain of 33 asks ends here: switch:chain.through asks in circles" in str(cycle)


async def test_the_key_of_the_asker_is_kept_while_it_waits() -> None:
    app, order = App("shop"), list[str]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            order.append(f"begin {job.n}")
            await ctx.ask(Pay(cents=1, takes_s=1))
            order.append(f"end {job.n}")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            await asyncio.sleep(pay.takes_s)
            return 0

    async with app.simulate() as sim:
        for n in range(3):
            await sim.send(Job("a", n))
        await sim.settle()
        assert order == [f"{what} {n}" for n in range(3) for what in ("begin", "end")]


@pytest.mark.parametrize("slots", [1, 4, 64])
async def test_two_hundred_handlers_that_all_ask_do_not_wait_for_each_other_for_ever(slots: int) -> None:
    app = App("shop")

    @app.component(key="n", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            answers = [await ctx.ask(Through([str(job.n)])), await ctx.ask(Balance(str(job.n)))]
            assert answers == [["*", str(job.n)], 0]
            log.seen.append(job.n)

    @app.component
    class Switch:
        @on(Through)
        async def switch(self, through: Through, ctx: Context) -> list[str]:
            return ["*", *await ctx.ask(Chain([], key=through.names[0]))]

    @app.component(key="key", state=Account)
    class Links:
        @on(Chain)
        async def link(self, chain: Chain, account: Account, ctx: Context) -> list[str]:
            await asyncio.sleep(0.1)
            return [chain.key]

        @on(Balance, read_only=True)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            return account.cents

    async with app.simulate(settings=Settings(slots=slots)) as sim:
        for n in range(200):
            await sim.send(Job(n=n))
        await sim.settle()
        assert sim.ledger.done == 600
        assert sim.ledger.dead == 0


async def test_an_attempt_that_asks_again_is_given_the_answer_of_the_one_before() -> None:
    app, _, calls = bank()
    answers: list[int] = []

    @app.component(key="key", state=Log, retry=Retry(attempts=3, base_s=0.1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            answers.append(await ctx.ask(Pay(cents=5)))
            answers.append(await ctx.ask(Pay(cents=6)))
            if ctx.attempt < 3:
                raise ConnectionError

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        assert answers == [5, 11] * 3
        assert len(calls) == 2


async def test_an_attempt_that_asks_something_else_is_given_its_own_answer() -> None:
    app, _, _calls = bank()
    answers: list[int] = []

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if ctx.attempt == 1:
                await ctx.ask(Pay(cents=5))
                raise ConnectionError
            answers.append(await ctx.ask(Pay("b", cents=7)))

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.settle()
        assert answers == [7]


async def test_the_deadline_of_a_question_bounds_what_is_asked_on_its_way() -> None:
    app, waited = App("shop"), list[float]()

    @app.component
    class Switch:
        @on(Through, retry=Retry(attempts=1))
        async def switch(self, through: Through, ctx: Context) -> list[str]:
            begin = ctx.now()
            try:
                await ctx.ask(Pay(takes_s=100), deadline=50)
            finally:
                waited.append(ctx.now() - begin)
            return []

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay, timeout=None)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            await asyncio.sleep(pay.takes_s)
            return 0

    async with app.simulate(errors="record") as sim:
        with pytest.raises(AskError):
            await sim.ask(Through([]), deadline=5)
        await sim.settle()
        assert waited == [pytest.approx(5, abs=0.1)]


async def test_a_question_of_a_handler_is_not_shed_when_intake_is_full() -> None:
    app, answers, release = App("shop"), list[int](), asyncio.Event()

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await release.wait()
            answers.append(await ctx.ask(Pay(str(job.n), cents=1)))

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            return pay.cents

    async with app.simulate(errors="record", settings=Settings(backlog_max=5)) as sim:
        for n in range(5):
            await sim.send(Job(n=n))
        release.set()
        await sim.settle()
        assert answers == [1] * 5
        assert sim.dead() == []


async def test_a_question_of_a_handler_is_answered_while_the_node_drains() -> None:
    app, answers = App("shop"), list[int]()

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            await asyncio.sleep(1)
            answers.append(await ctx.ask(Balance()))

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Balance, read_only=True)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            return 7

    disk = Disk()
    async with disk.node(app) as node:
        await node.send(Job())
        await asyncio.sleep(0.5)
    assert answers == [7]


async def test_a_slot_that_was_added_for_a_question_leaves_when_nobody_asks_any_more() -> None:
    app, running, most = App("shop"), list[int](), list[int]()

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            if job.n == 0:
                await ctx.ask(Pay(cents=1, takes_s=0.1))
                most.clear()
                return
            running.append(job.n)
            most.append(len(running))
            await asyncio.sleep(1)
            running.remove(job.n)

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay)
        async def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            await asyncio.sleep(pay.takes_s)
            return 0

    async with app.simulate(settings=Settings(slots=2)) as sim:
        for n in range(20):
            await sim.send(Job(n=n))
        await sim.settle()
        assert max(most) == 2
