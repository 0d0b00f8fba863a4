"""Any mixture of concurrent calls through a policy, in virtual time: nothing leaks on any way out, and the figures add up."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from genesis import CircuitState, Policy
from genesis.chaos.loop import VirtualLoop
from genesis.core.errors import GenesisError
from genesis.core.signals import AttemptEnded, CircuitChanged, Outcome, Signal, StepTaken

WAYS = ("call", "call", "decorated", "decorated", "block", "guard", "stream", "plain")
ENDS = ("good", "bad", "slow", "slow", "slow", "hang", "failing late", "ignored", "an answer", "limited inside", "deaf")
SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "attempts": st.integers(1, 3),
        "hedges": st.sampled_from([1, 2, 0]),
        "concurrency": st.sampled_from([0, 0, 0, 1, 3]),
        "queue": st.sampled_from([0, 2]),
        "queue_s": st.sampled_from([0.2, float("inf")]),
        "rate_per_s": st.sampled_from([0.0, 0.0, 0.0, 20.0]),
        "throttle": st.sampled_from([0.0, 0.0, 2.0]),
        "stale_s": st.sampled_from([0.0, 5.0]),
        "deadline_s": st.sampled_from([float("inf"), 0.7]),
        "initial": st.sampled_from([CircuitState.CLOSED, CircuitState.CLOSED, *CircuitState]),
        "failure_threshold": st.sampled_from([2.0, 1000.0]),
        "recovery_timeout_s": st.just(1.0),
        "probes": st.integers(1, 2),
        "ramp": st.sampled_from([0, 2]),
        "hedge_share": st.sampled_from([10.0, 0.05, 0.0]),
        "budget_share": st.sampled_from([10.0, 0.1, 0.0]),
        "budget_floor": st.sampled_from([0, 3]),
    }
)
SEEDS = st.integers(0, 9)
_numbers = count(1)


@dataclass(frozen=True)
class One:
    """One call of a program."""

    at_s: float
    way: str
    idempotent: bool
    fallback: bool
    ends: tuple[str, ...]
    cancel_after_s: float | None


ONES = st.builds(
    One,
    at_s=st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.5]),
    way=st.sampled_from(WAYS),
    idempotent=st.booleans(),
    fallback=st.booleans(),
    ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3).map(tuple),
    cancel_after_s=st.sampled_from([None, None, None, None, 0.0, 0.02, 0.11, 0.5]),
)


class LimitedInsideError(GenesisError):
    """Of another dependency: it is ignored."""


@dataclass
class World:
    """A policy, what it was asked and what it told."""

    policy: Policy
    begun: int = 0
    ended: int = 0
    running: int = 0
    signals: list[Signal] = field(default_factory=list)
    results: list[object] = field(default_factory=list)

    async def work(self, ends: tuple[str, ...], number: list[int]) -> str:
        end = ends[min(number[0], len(ends) - 1)]
        number[0] += 1
        self.begun += 1
        self.running += 1
        try:
            return await self._end(end)
        finally:
            self.ended += 1
            self.running -= 1

    async def _end(self, end: str) -> str:
        if end == "bad":
            raise ConnectionError(end)
        if end == "failing late":
            await asyncio.sleep(0.08)
            raise ConnectionError(end)
        if end == "ignored":
            raise KeyError(end)
        if end == "an answer":
            await asyncio.sleep(0.01)
            raise ValueError(end)
        if end == "limited inside":
            raise LimitedInsideError(end)
        if end == "deaf":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1.0)
        if end in ("slow", "hang"):
            await asyncio.sleep(0.3 if end == "slow" else 1e6)
        return end

    def plain(self, ends: tuple[str, ...]) -> str:
        self.begun += 1
        self.ended += 1
        if ends[0] in ("bad", "failing late"):
            raise ConnectionError(ends[0])
        return ends[0]

    async def call(self, one: One) -> object:
        number = [0]
        options: dict[str, Any] = {"idempotent": one.idempotent, "fallback": (lambda *_: "instead") if one.fallback else None}
        operation = self.policy.protect(**options)
        if one.way == "call":
            return await operation.call(self.work, one.ends, number)
        if one.way == "decorated":
            return await operation(self.work)(one.ends, number)
        if one.way == "plain":
            return operation(self.plain)(one.ends)
        if one.way == "guard":
            return await self.policy.guard(self.work(one.ends, number))
        if one.way == "block":
            async with self.policy.attempt():
                return await self.work(one.ends, number)

        async def items(_: object) -> Any:
            yield await self.work(one.ends, number)
            yield "more"

        operation = self.policy.protect(idempotent=one.idempotent)
        return [item async for item in operation(items)(one.ends)]


async def _program(settings: dict[str, Any], ones: list[One], *, learns: bool, listens: bool) -> World:
    ignored = (KeyError, LimitedInsideError)
    policy = Policy(f"program-{next(_numbers)}", failure_on=ConnectionError, ignore=ignored, **settings)
    world, loop = World(policy), asyncio.get_running_loop()
    now = policy.now()
    if learns:
        for _ in range(100):
            policy.whole.good(0.1, now)
        policy.whole.refresh(now)
    if listens:
        policy.listen(world.signals.append)

    async def run(one: One) -> None:
        await asyncio.sleep(one.at_s)
        task = loop.create_task(world.call(one))
        if one.cancel_after_s is not None:
            loop.call_later(one.cancel_after_s, task.cancel)
        try:
            world.results.append(await task)
        except asyncio.CancelledError:
            assert one.cancel_after_s is not None
            assert task.cancelled()
        except Exception as error:
            world.results.append(error)
        assert task.cancelling() <= 1

    await asyncio.gather(*(run(one) for one in ones))
    await asyncio.sleep(300.0)  # losers that do not hear have ended too
    return world


@given(
    settings=SETTINGS,
    ones=st.lists(ONES, min_size=2, max_size=12),
    learns=st.booleans(),
    listens=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nothing_leaks_and_the_figures_add_up(
    settings: dict[str, Any], ones: list[One], learns: bool, listens: bool, seed: int
) -> None:
    loop = VirtualLoop(Random(seed))
    try:
        world = loop.run_nested(_program(settings, ones, learns=learns, listens=listens))
        assert asyncio.all_tasks(loop) == set()
        assert loop.timers == 0
    finally:
        loop.close()
    policy, part = world.policy, world.policy.whole
    assert (world.running, part.under_way, part.observed) == (0, 0, False)
    assert policy.gate._places.busy == len(policy.gate._places) == 0
    assert part.circuit._probes == part.circuit._ramped == []
    assert all(not isinstance(one, AssertionError) for one in world.results)
    assert world.begun == world.ended <= sum(policy.counted().get(outcome, 0) for outcome in Outcome)
    if listens:
        _add_up(world, settings, len(ones), 100 if learns else 0)


def _add_up(world: World, settings: dict[str, Any], calls: int, learned: int) -> None:
    counts, signals = world.policy.counted(), world.signals
    attempts = [one for one in signals if isinstance(one, AttemptEnded)]
    assert sum(counts.get(outcome, 0) for outcome in Outcome) == len(attempts)
    for outcome in Outcome:
        assert counts.get(outcome, 0) == sum(one.outcome is outcome for one in attempts)
    steps = [one.step for one in signals if isinstance(one, StepTaken)]
    for step in set(steps):
        assert counts[step] == steps.count(step)
    assert counts.get("hedged", 0) == counts.get("hedge won", 0) + counts.get("hedge lost", 0)
    retries, hedges = counts.get("retried", 0), counts.get("hedged", 0)
    # All within ten seconds, but for what a long program leaves out of the window: never more than all calls would pay for.
    assert retries + hedges <= settings["budget_share"] * (calls + learned) + settings["budget_floor"] + _long(world)
    assert hedges <= settings["hedge_share"] * (calls + learned) + (settings["hedge_share"] > 0) + _long(world)
    changes = [one for one in signals if isinstance(one, CircuitChanged)]
    assert not changes or changes[-1].new == world.policy.state
    assert world.policy.state in CircuitState


def _long(world: World) -> int:
    """Extras that fell out of the ten seconds of the budget: a token each, at most."""
    times = [one.at for one in world.signals]
    return 0 if not times or max(times) < 9.0 else len(times)


@given(
    ends=st.lists(st.sampled_from(["good", "bad", "slow", "hang", "failing late"]), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_a_call_tells_at_most_one_outcome(ends: list[str], seed: int) -> None:
    async def main() -> None:
        policy = Policy(f"program-{next(_numbers)}", attempts=3, failure_threshold=1000.0, hedge_share=10.0, budget_share=10.0)
        now = policy.now()
        for _ in range(100):
            policy.whole.good(0.1, now)
        policy.whole.refresh(now)
        world = World(policy)
        before = policy.whole.circuit.window.calls
        with contextlib.suppress(Exception):
            await policy.protect(idempotent=True).call(world.work, tuple(ends), [0])
        await asyncio.sleep(10.0)
        assert policy.whole.circuit.window.calls == before + 1

    loop = VirtualLoop(Random(seed))
    try:
        loop.run_nested(main())
    finally:
        loop.close()
