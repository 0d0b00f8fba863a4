"""A workload for policies: components that call a dependency which fails, hangs and crawls, while processes die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from genesis import App, Context, Message, Policy, State, on
from genesis.chaos.simulation import Simulation
from genesis.layers.mitigation.settings import PolicySettings

SETTINGS = PolicySettings(
    timeout_s=0.5, timeout_resilient_s=0.5, timeout_ultra_s=1.0, ultra_threshold_s=0.4, concurrency=16, queue=64
)
pricing = Policy("simulated-pricing", SETTINGS)
app = App("quotes")


class Quote(Message, type="quotes.quote"):
    key: str
    n: int


class Seen(State):
    numbers: list[int] = []  # noqa: RUF012 - msgspec copies it


class Dependency:
    """Answers in 20 ms; in some spans of time it raises, never answers, or takes twenty times as long."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.calls = self.under_way = self.most = 0
        self._spans: list[tuple[float, float, str]] = []
        at = 0.0
        for _ in range(6):
            at += rng.uniform(0.5, 4.0)
            until = at + rng.uniform(0.5, 8.0)
            self._spans.append((at, until, rng.choice(["raises", "hangs", "crawls"])))
            at = until

    def heal(self) -> None:
        """From now on it answers."""
        self._spans.clear()

    async def answer(self) -> float:
        now = asyncio.get_running_loop().time()
        trouble = next((what for start, end, what in self._spans if start <= now < end), "")
        self.calls += 1
        with self._counted():
            if trouble == "raises":
                await asyncio.sleep(self._rng.choice([0.0, 0.005]))
                raise ConnectionError("the dependency is down")
            if trouble == "hangs":
                await asyncio.sleep(1e6)
            await asyncio.sleep(self._rng.lognormvariate(-4, 0.3) * (20 if trouble == "crawls" else 1))
            return 1.0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            yield
        finally:
            self.under_way -= 1


class World:
    """What the app of the world that runs now calls."""

    dependency: Dependency


@pricing.protect(idempotent=True)
async def quote() -> float:
    return await World.dependency.answer()


@app.component(key="key", state=Seen)
class Quotes:
    @on(Quote, timeout=20.0)
    async def price(self, asked: Quote, seen: Seen, ctx: Context) -> None:
        await quote()
        seen.numbers.append(asked.n)


async def scenario(sim: Simulation) -> None:
    """Everything is priced once and in order, nothing is given up, and the policy has nothing left in its hands."""
    World.dependency = Dependency(sim.world.rng("dependency"))
    for n in range(120):
        await sim.send(Quote(f"k{n % 10}", n))
        await sim.advance(0.05)
    await sim.advance(20.0)
    World.dependency.heal()
    await sim.settle()
    await sim.advance(60.0)
    for key in range(10):
        assert sim.state(Quotes, f"k{key}").numbers == list(range(key, 120, 10))
    assert not sim.dead(), sim.dead()
    left = pricing.view()
    assert left["under_way"] == left["permits"] == left["places"] == 0, left
    assert World.dependency.under_way == 0
    assert World.dependency.most <= SETTINGS.concurrency
