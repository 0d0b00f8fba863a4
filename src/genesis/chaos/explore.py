"""A scenario of the user in many worlds: each seed another order, other faults, and the same promises.

In: an app, a scenario, seeds. Out: what was gone through, and the first seed that broke a promise, with the fewest faults
that do it. A scenario is a coroutine function that is given a `Simulation`: it sends, asks, waits and asserts. After it
faults stop, everything must come to its end, the ledger must add up, and nothing may be left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from genesis.chaos import faults
from genesis.chaos.shrink import shrink
from genesis.chaos.simulation import Simulation
from genesis.core.errors import GenesisError
from genesis.runtime.definition import Definition
from genesis.runtime.life import NodeSettings
from genesis.runtime.log import silence

Scenario = Callable[[Simulation], Awaitable[Any]]
FAULTS = 20
SPAN_S = (1.0, 300.0)
"""Faults begin while the scenario runs; of one that takes no time, in its first second, of a long one in its first minutes."""
GENTLE = tuple(kind for kind in faults.KINDS if kind not in ("handler-raises", "handler-hangs", "handler-ignores-cancel"))
"""Faults that cost no attempts: with these, an app whose handlers do not fail by themselves has no dead letters."""


def gentle(store: str) -> tuple[str, ...]:
    """The gentle faults that a store can suffer."""
    return GENTLE + faults.ON_DISK if store == "sqlite" else GENTLE


class PromiseBrokenError(GenesisError):
    """A scenario failed in a world that production may meet. Carries the `Run` as `run`."""

    code = "promise-broken"

    def __init__(self, run: Run) -> None:
        self.run = run
        super().__init__(f"seed {run.seed}: {run.error}\n{run.story()}")


@dataclass
class Run:
    """One seed, to its end."""

    seed: int
    error: str
    """Which promise was broken; empty when none was."""
    schedule: list[faults.Happening]
    timeline: list[tuple[float, str, str]]
    """(virtual seconds, where, what) of all that happened."""
    injected: Counter[str]
    kills: int
    deliveries: int
    dead: int
    """Of these, how many ended as dead letters."""
    virtual_s: float

    def story(self) -> str:
        """What happened, a line each."""
        lines = [f"{at:10.4f} s  {where:8} {what}" for at, where, what in self.timeline]
        count = len(self.schedule)
        return "\n".join([f"with {count} fault{'s' * (count != 1)}:", *lines])


@dataclass
class Exploration:
    """What was gone through."""

    runs: int = 0
    deliveries: int = 0
    dead: int = 0
    kills: int = 0
    virtual_s: float = 0.0
    injected: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """One more."""
        self.runs += 1
        self.deliveries += run.deliveries
        self.dead += run.dead
        self.kills += run.kills
        self.virtual_s += run.virtual_s
        self.injected += run.injected


@dataclass(frozen=True)
class Explorer:
    """How an app is explored."""

    definition: Definition
    scenario: Scenario
    settings: NodeSettings
    nodes: int = 1
    count: int = FAULTS
    """Faults of each world."""
    kinds: Sequence[str] = GENTLE
    store: str = "memory"

    async def explore(self, seeds: Iterable[int], *, told: Callable[[Run], None] = lambda run: None) -> Exploration:
        """Run seed after seed.

        Args:
            seeds: Which.
            told: Called after each.

        Raises:
            PromiseBrokenError: of the first seed that failed, with the fewest faults that make it fail.
            ValueError: there is no fault of one of the kinds.
        """
        found = Exploration()
        for seed in seeds:
            run = await self.run(seed, await self.schedule(seed))
            found.add(run)
            told(run)
            if run.error:
                raise PromiseBrokenError(await self.smallest(run))
        return found

    async def schedule(self, seed: int) -> list[faults.Happening]:
        """The faults of a seed, spread over the time that the scenario takes without any."""
        calm = await self.run(seed, [])
        low, high = SPAN_S
        span_s = min(high, max(low, calm.virtual_s))
        return faults.draw(Random(f"{seed}/faults"), self.count, over_s=span_s, nodes=self.nodes, kinds=self.kinds)

    async def run(self, seed: int, schedule: list[faults.Happening]) -> Run:
        """One world from its beginning to its end, in silence."""
        with silence():
            return await self._run(seed, schedule)

    async def _run(self, seed: int, schedule: list[faults.Happening]) -> Run:
        sim = Simulation(
            self.definition,
            seed=seed,
            errors="record",
            settings=self.settings,
            nodes=self.nodes,
            store=self.store,
            schedule=schedule,
            exploring=True,
        )
        world, error = sim.world, ""
        try:
            await self.scenario(sim)
            virtual_s = world.loop.time()
            world.calm()
            await sim.settle()
            error = world.store.head().ledger.imbalance()
        except Exception as failure:
            virtual_s, error = world.loop.time(), f"{type(failure).__name__}: {failure}"
        except BaseException:  # whoever explores is interrupted
            sim.close()
            raise
        ledger = world.store.head().ledger
        sim.close()
        error = error or "; ".join(world.violations)
        return Run(seed, error, schedule, world.timeline, world.injected, world.kills, ledger.born, ledger.dead, virtual_s)

    async def smallest(self, run: Run) -> Run:
        """The same failure with as few faults as can be found."""
        best = run

        async def fails(part: list[faults.Happening]) -> bool:
            nonlocal best
            again = await self.run(run.seed, part)
            if again.error:
                best = again
            return bool(again.error)

        await shrink(run.schedule, fails)
        return best
