"""Handlers, sinks and sources under a policy: while its circuit is open they wait before they begin, and lose nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest

from genesis import App, Context, Item, Message, Node, Policy, Reject, Request, Retry, UnavailableError, on
from genesis.core.errors import AskFailedError
from tests.unit.runtime.crm import Crm, shop
from tests.unit.runtime.support import Job, inside

HOUR_S = 3600.0


class Price(Request[int], type="price"):
    n: int = 0


@pytest.fixture
def policy() -> Iterator[Policy]:
    made = Policy("pricing of the tests under policies")
    yield made
    made.reset()


def opened(policy: Policy, for_s: float) -> Callable[[Node], Awaitable[None]]:
    """Opens the circuit in the time of a simulation."""

    async def work(node: Node) -> None:
        policy.force_open(for_s)

    return work


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("where", ["component", "on"])
async def test_a_handler_whose_dependency_is_out_waits_before_it_is_begun(where: str, plain: bool, policy: Policy) -> None:
    app, begun, down = App("shop"), list[int](), True

    class Async:
        async def price(self, job: Job, ctx: Context) -> None:
            self.work(job)

        def work(self, job: Job) -> None:
            begun.append(job.n)
            if down:
                raise ConnectionError("down")

    class Plain:
        def price(self, job: Job, ctx: Context) -> None:
            Async().work(job)

    cls = Plain if plain else Async
    cls.price = on(Job, policy=policy if where == "on" else None)(cls.price)
    app.component(retry=Retry(attempts=3), policy=policy if where == "component" else None)(cls)
    async with app.simulate(errors="record") as sim:
        for n in range(100):
            await sim.send(Job(n=n))
        await sim.advance(HOUR_S)
        assert 5 <= len(begun) <= 100
        assert (sim.ledger.dead, sim.ledger.done, sim.ledger.waiting) == (0, 0, 100)
        down = False
        begun.clear()
        await sim.settle()
        assert sorted(begun) == list(range(100))
        assert (sim.ledger.dead, sim.ledger.imbalance()) == (0, "")


async def test_the_timeout_of_a_handler_under_a_policy_is_its_own(policy: Policy) -> None:
    app, took = App("shop"), list[float]()

    @app.component(policy=policy, retry=Retry(attempts=2))
    class Till:
        @on(Job, timeout=10.0)
        async def price(self, job: Job, ctx: Context) -> None:
            begun = asyncio.get_running_loop().time()
            try:
                await asyncio.sleep(5.0 if job.n else 100.0)
            finally:
                took.append(asyncio.get_running_loop().time() - begun)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.settle()
        await sim.send(Job(n=0))
        await sim.advance(25.0)
        assert took == pytest.approx([5.0, 9.8, 9.8])
        assert policy.counts["timeout"] == 2


async def test_an_event_that_a_handler_rejects_is_no_failure_of_its_dependency(policy: Policy) -> None:
    app = App("shop")

    @app.component(policy=policy)
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None:
            raise Reject("no such thing")

    async with app.simulate(errors="record") as sim:
        for n in range(50):
            await sim.send(Job(n=n))
        await sim.settle()
        assert sim.ledger.dead == 50
    assert policy.state == "CLOSED"


async def test_a_question_that_is_only_read_is_under_the_policy_too(policy: Policy) -> None:
    app, begun = App("shop"), list[int]()

    @app.component(policy=policy)
    class Till:
        @on(Price, read_only=True)
        async def price(self, price: Price, ctx: Context) -> int:
            begun.append(price.n)
            return 7

    async with app.simulate() as sim:
        assert await inside(sim, lambda node: node.ask(Price())) == 7
        await inside(sim, opened(policy, 60.0))
        with pytest.raises(AskFailedError, match="CircuitOpenError"):
            await inside(sim, lambda node: node.ask(Price()))
    assert begun == [0]


async def test_a_sink_waits_as_long_as_its_circuit_says_and_keeps_its_items_and_their_order(policy: Policy) -> None:
    crm = Crm()

    def trouble(items: Sequence[Item[Job]]) -> None:
        raise UnavailableError("the desk")

    crm.trouble = trouble
    async with shop(crm, retry=Retry(attempts=2), batch=10, policy=policy).simulate(errors="record") as sim:
        for n in range(50):
            await sim.send(Job("a", n))
        await sim.advance(HOUR_S)
        assert len(crm.calls) <= 5 + 20, "until the circuit opened, then its probes, which double their distance"
        assert (sim.ledger.dead, sim.ledger.in_outbox, sim.ledger.retries) == (0, 50, 0)
        await inside(sim, opened(policy, HOUR_S))
        before = len(crm.calls)
        crm.trouble = lambda items: None
        await sim.advance(HOUR_S - 1)
        assert len(crm.calls) == before
        await sim.settle()
        assert crm.taken == list(range(50))


async def test_a_slow_call_of_a_sink_has_no_copy_beside_it(policy: Policy) -> None:
    crm, inside_now, most = Crm(), 0, 0

    async def trouble() -> None:
        nonlocal inside_now, most
        inside_now += 1
        most = max(most, inside_now)
        await asyncio.sleep(0.5 if len(crm.calls) == 100 else 0.01)
        inside_now -= 1

    crm.trouble = lambda items: trouble()
    async with shop(crm, batch=1, policy=policy).simulate() as sim:
        for n in range(120):
            await sim.send(Job("a", n))
        await sim.settle()
    assert crm.taken == list(range(120))
    assert most == 1


async def test_a_source_whose_dependency_is_out_comes_back_when_the_circuit_says(policy: Policy) -> None:
    app, begun, seen = App("shop"), list[float](), list[int]()

    @policy
    async def read() -> int:
        return 1

    @app.source
    async def feed(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        begun.append(asyncio.get_running_loop().time())
        for n in range(position or 0, 3):
            await read()
            yield n + 1, Job(n=n)

    @app.component
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None:
            seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        await inside(sim, opened(policy, 100.0))
        await sim.advance(1000.0)
        assert begun[1] - begun[0] >= 100.0
        assert (len(begun), seen) == (2, [0, 1, 2])
