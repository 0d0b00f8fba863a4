"""Questions and answers."""

from __future__ import annotations

import asyncio

import pytest

from genesis import (
    App,
    AskFailedError,
    Context,
    DeadlineExceededError,
    DefinitionError,
    Node,
    Request,
    Settings,
    on,
)
from tests.unit.runtime.bank import Account, Balance, Nothing, Pay, bank
from tests.unit.runtime.support import CRASH_POINTS, Job, inside

# --- answers --------------------------------------------------------------------------------------------------------


async def test_the_answer_comes_after_the_commit() -> None:
    app, accounts, _ = bank()

    async def pay_and_look(node: Node) -> tuple[int, int]:
        answer = await node.ask(Pay(cents=5))
        return answer, (await node.state(accounts, "a")).cents

    async with app.simulate() as sim:
        assert await inside(sim, pay_and_look) == (5, 5)
        assert await sim.ask(Pay(cents=6)) == 11
        assert (sim.ledger.accepted, sim.ledger.done) == (2, 2)


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("after", range(3))
async def test_asking_again_with_the_same_id_after_a_crash_pays_once_and_gives_the_same_answer(point: str, after: int) -> None:
    app, accounts, _ = bank()
    async with app.simulate() as sim:
        assert await sim.ask(Pay(cents=1)) == 1
        sim.crash_at(point, after=after)
        assert await sim.ask(Pay(cents=5), id="pay-1") == 6  # the simulation asks again when it is killed meanwhile
        assert await sim.ask(Pay(cents=5), id="pay-1") == 6
        await sim.settle()
        assert sim.state(accounts, "a").cents == 6
        assert sim.ledger.imbalance() == ""


async def test_the_same_id_gives_the_same_answer_later_and_while_it_is_worked_on() -> None:
    app, accounts, calls = bank()

    async def ask_thrice(node: Node) -> list[int]:
        return await asyncio.gather(*(node.ask(Pay(cents=5, takes_s=1), id="1") for _ in range(3)))

    async with app.simulate() as sim:
        assert await inside(sim, ask_thrice) == [5, 5, 5]
        assert await sim.ask(Pay(cents=7)) == 12
        assert await sim.ask(Pay(cents=5, takes_s=1), id="1") == 5
        await sim.crash()
        assert await sim.ask(Pay(cents=5, takes_s=1), id="1") == 5
        assert len(calls) == 2
        assert sim.state(accounts, "a").cents == 12


async def test_answers_are_kept_for_the_horizon_and_then_forgotten() -> None:
    app, _, calls = bank()
    async with app.simulate(settings=Settings(dedupe_s=60)) as sim:
        for n in range(20):
            await sim.ask(Pay(cents=1), id=str(n))
        await sim.advance(61)
        for n in range(20, 50):
            await sim.ask(Pay(cents=1), id=str(n))
        kept = await inside(sim, lambda node: node._ready().engine.scan(0, "reply", "", 1000))
        assert len(kept) == 30
        assert len(calls) == 50


async def test_a_question_that_is_tried_again_is_answered_by_the_attempt_that_succeeds() -> None:
    app, _, calls = bank()
    async with app.simulate(errors="record") as sim:
        assert await sim.ask(Pay(cents=-5)) == -5
        assert len(calls) == 3


async def test_a_question_may_be_answered_with_nothing() -> None:
    app = App("bank")

    @app.component
    class Desk:
        @on(Nothing)
        async def nothing(self, nothing: Nothing, ctx: Context) -> None:
            return None

    async with app.simulate() as sim:
        assert await sim.ask(Nothing()) is None


async def test_a_def_handler_answers_too() -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Pay)
        def pay(self, pay: Pay, account: Account, ctx: Context) -> int:
            account.cents += pay.cents
            return account.cents

        @on(Balance, read_only=True)
        def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            return account.cents

    async with app.simulate() as sim:
        assert await sim.ask(Pay(cents=5)) == 5
        assert await sim.ask(Balance()) == 5


# --- read-only ------------------------------------------------------------------------------------------------------


async def test_a_read_only_question_is_answered_from_committed_state_without_the_lock_and_without_a_trace() -> None:
    app, _, _ = bank()

    async def look_while_paying(node: Node) -> list[int]:
        await node.ask(Pay(cents=5))
        paying = asyncio.create_task(node.ask(Pay(cents=6, takes_s=10)))
        await asyncio.sleep(1)
        before = await node.ask(Balance())
        await paying
        return [before, await node.ask(Balance())]

    async with app.simulate() as sim:
        assert await inside(sim, look_while_paying) == [5, 11]
        assert sim.ledger.offered == 2
        assert await sim.ask(Balance("nobody")) == 0


async def test_what_a_read_only_handler_does_to_its_state_is_gone() -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Balance, read_only=True)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            account.cents += 1
            return account.cents

    async with app.simulate() as sim:
        assert [await sim.ask(Balance()) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("what", ["emit", "after", "cancel", "once", "ask"])
async def test_a_read_only_handler_only_answers(what: str) -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Balance, read_only=True)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            match what:
                case "emit":
                    ctx.emit(Job())
                case "after":
                    ctx.after(1, Job())
                case "cancel":
                    ctx.cancel("x")
                case "once":
                    await ctx.once("x", lambda key: asyncio.sleep(0))
                case "ask":
                    await ctx.ask(Balance("b"))
            return 0

    async with app.simulate() as sim:
        with pytest.raises(AskFailedError, match="is read-only: it only answers"):
            await sim.ask(Balance())


# --- no answer ------------------------------------------------------------------------------------------------------


async def test_a_question_whose_handler_fails_for_good_says_so_now_and_later() -> None:
    app, _, _ = bank()
    async with app.simulate(errors="record") as sim:
        for _ in range(2):
            with pytest.raises(AskFailedError, match=r"accounts:account.pay: rejected: too much"):
                await sim.ask(Pay(cents=-2000), id="1")
        await sim.crash()
        with pytest.raises(AskFailedError, match="too much"):
            await sim.ask(Pay(cents=-2000), id="1")
        assert sim.ledger.dead == 1


async def test_an_answer_that_does_not_come_in_time_comes_when_asked_again() -> None:
    app, _, calls = bank()
    async with app.simulate() as sim:
        with pytest.raises(DeadlineExceededError, match=r"did not answer in 1\.000 s"):
            await sim.ask(Pay(cents=5, takes_s=10), deadline=1.0, id="1")
        assert await sim.ask(Pay(cents=5, takes_s=10), deadline=60, id="1") == 5
        assert len(calls) == 1


async def test_a_deadline_in_the_past_is_exceeded_at_once() -> None:
    app, _, _ = bank()
    async with app.simulate() as sim:
        before = sim.now()
        for deadline in (0.0, -1.0):
            with pytest.raises(DeadlineExceededError):
                await sim.ask(Pay(cents=5), deadline=deadline)
        assert sim.now() - before < 0.1


async def test_a_read_only_handler_that_fails_or_takes_too_long_fails_the_question() -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Balance, read_only=True, timeout=1.0)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            if query.key == "slow":
                await asyncio.sleep(10)
            raise ValueError("no such account")

    async with app.simulate() as sim:
        with pytest.raises(AskFailedError, match="ValueError: no such account"):
            await sim.ask(Balance())
        with pytest.raises(AskFailedError, match=r"took over 1\.0 s"):
            await sim.ask(Balance("slow"))


@pytest.mark.parametrize("read_only", [False, True])
async def test_an_answer_of_another_type_than_promised_fails_the_question(read_only: bool) -> None:
    app = App("bank")

    @app.component(key="key", state=Account)
    class Accounts:
        @on(Balance, read_only=read_only)
        async def balance(self, query: Balance, account: Account, ctx: Context) -> int:
            return "much"  # type: ignore[return-value]

    async with app.simulate(errors="record") as sim:
        with pytest.raises(AskFailedError, match="Expected `int`, got `str`"):
            await sim.ask(Balance())


async def test_only_a_request_can_be_asked_and_only_one_that_somebody_handles() -> None:
    class Unknown(Request[int], type="account.balanse"):
        pass

    app, _, _ = bank()
    async with app.simulate() as sim:
        with pytest.raises(DefinitionError, match="Job is no request: it has no answer"):
            await sim.ask(Job())  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"did you mean 'account.balance'"):
            await sim.ask(Unknown())
