"""A dependency that is down behind a policy: deliveries wait for its circuit, spend no attempts on the outage, and come back in
small numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from genesis import App, Context, Node, Policy, Retry, on
from genesis.runtime.status import Status
from tests.unit.runtime.support import Job, inside

HOUR_S = 3600.0
EVENTS = 200


class Pricing:
    """Something outside that hangs or raises while it is down, and counts how it is called."""

    def __init__(self, how: str) -> None:
        self.how, self.down = how, True
        self.calls = self.inside = 0
        self.loads: list[tuple[float, int]] = []
        """When each call began, and how many were under way then."""

    async def price(self) -> None:
        self.calls += 1
        self.inside += 1
        self.loads.append((asyncio.get_running_loop().time(), self.inside))
        try:
            if self.down and self.how == "hangs":
                await asyncio.sleep(HOUR_S)
            await asyncio.sleep(0.05)
            if self.down:
                raise ConnectionError("down")
        finally:
            self.inside -= 1


async def _status(node: Node) -> Status:
    return node.status()


@pytest.fixture
def policy() -> Iterator[Policy]:
    made = Policy("pricing of the outage tests")
    yield made
    made.reset()


def shop(pricing: Pricing, policy: Policy, retry: Retry | None) -> tuple[App, list[int]]:
    app, priced = App("shop"), list[int]()
    protected = policy(pricing.price)

    @app.component(retry=retry)
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None:
            await protected()
            priced.append(job.n)

    return app, priced


@pytest.mark.parametrize("attempts", [5, 3])
@pytest.mark.parametrize("how", ["hangs", "raises"])
async def test_an_hour_without_the_dependency_means_waiting_work_and_few_calls(how: str, attempts: int, policy: Policy) -> None:
    pricing = Pricing(how)
    app, priced = shop(pricing, policy, Retry(attempts=attempts))
    async with app.simulate(errors="record") as sim:
        for n in range(EVENTS):
            await sim.send(Job(n=n))
        await sim.advance(HOUR_S)
        assert (priced, sim.ledger.dead, sim.ledger.waiting) == ([], 0, EVENTS)
        (circuit,) = (await inside(sim, _status)).circuits.values()
        assert circuit[0] == "OPEN"
        assert "a probe failed" in circuit[1]
        assert pricing.calls <= 100, "those of all slots until the circuit opened, then one probe every five minutes"
        began, pricing.down = len(pricing.loads), False
        await sim.settle()
        assert (sorted(priced), sim.ledger.dead, sim.ledger.imbalance()) == (list(range(EVENTS)), 0, "")
        drain = pricing.loads[began:]
        assert [load for _, load in drain[:3]] == [1, 1, 1], "probes, one after the other"
        assert all(load <= max(1, number // 2) for number, (_, load) in enumerate(drain, start=1)), (
            "each success lets one more out"
        )
        assert max(load for _, load in drain) == 64, "in the end as many as there are slots"


@pytest.mark.parametrize("how", ["hangs", "raises"])
async def test_the_only_delivery_there_is_does_not_die_before_the_circuit_has_opened(how: str, policy: Policy) -> None:
    pricing = Pricing(how)
    app, priced = shop(pricing, policy, Retry(attempts=3))
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=7))
        await sim.advance(HOUR_S)
        assert (sim.ledger.dead, sim.ledger.retries) == (0, 2)
        pricing.down = False
        await sim.settle()
        assert (priced, sim.ledger.dead) == ([7], 0)


async def test_an_event_that_the_dependency_cannot_digest_dies_while_others_are_priced(policy: Policy) -> None:
    app, priced = App("shop"), list[int]()

    @policy
    async def price(n: int) -> None:
        await asyncio.sleep(0.01)
        if n == 7:
            raise ConnectionError("cannot digest this")

    @app.component(retry=Retry(attempts=3))
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None:
            await price(job.n)
            priced.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in range(100):
            await sim.send(Job(n=n))
            await sim.advance(0.1)
        await sim.settle()
        assert (len(priced), sim.ledger.dead, sim.ledger.retries) == (99, 1, 2)


@pytest.mark.parametrize("how", ["as it is", "cause", "fallback"])
async def test_an_outage_is_known_however_it_reaches_the_handler(how: str, policy: Policy) -> None:
    app, down, priced = App("shop"), True, list[int]()

    class PriceError(Exception):
        """What the code between the handler and the policy makes of any failure."""

    def no_price() -> None:
        raise LookupError("no price is known")

    async def ask() -> None:
        if down:
            raise ConnectionError("down")

    protected = policy.protect(fallback=no_price if how == "fallback" else None)(ask)

    @app.component(retry=Retry(attempts=2))
    class Till:
        @on(Job)
        async def price(self, job: Job, ctx: Context) -> None:
            try:
                await protected()
            except ConnectionError as error:
                raise PriceError from error
            except Exception as error:
                if how == "cause":
                    raise PriceError from error
                raise
            priced.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in range(10):
            await sim.send(Job(n=n))
        await sim.advance(HOUR_S)
        assert (priced, sim.ledger.dead) == ([], 0)
        down = False
        await sim.settle()
        assert sorted(priced) == list(range(10))
