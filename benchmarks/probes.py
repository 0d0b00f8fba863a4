"""A circuit that is tried again: never more probes than allowed, and none lost that was cancelled. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

from benchmarks.harness import Figure, Options, Result
from benchmarks.reference import AsWritten
from benchmarks.virtual import Values, in_virtual_time, over_seeds
from genesis import Policy
from genesis.layers.mitigation.circuit import CircuitState

CALLERS, CANCELLED, PROBES = 1_000, 10_000, 3
ANSWER_S = 0.05
FIGURES = (
    Figure(
        "in_flight",
        "calls",
        "<= 3",
        "Most calls under way while HALF_OPEN, when 1,000 callers come at once, and again soon after they are refused, to a "
        "circuit that allows 3 probes. Raw: a circuit that lets everybody through once it is half open.",
    ),
    Figure(
        "as_written_in_flight", "calls", "", "The same for the rules as written, which let as many calls pass as must succeed."
    ),
    Figure("permits_lost", "permits", "0", "Of 3, after 10,000 probes that were cancelled while they ran, at any moment."),
    Figure("as_written_lost", "permits", "", "The same for the rules as written."),
)

Work = Callable[[], Awaitable[None]]


class Dependency:
    """Fails until it is mended; then answers after a while, and counts who asks at once."""

    def __init__(self) -> None:
        self.mended, self.under_way, self.most = False, 0, 0
        self.counts: Callable[[], bool] = lambda: True

    async def __call__(self) -> None:
        if not self.mended:
            raise ConnectionError("down")
        self.under_way += 1
        if self.counts():
            self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(ANSWER_S)
        finally:
            self.under_way -= 1


async def _half_open(call: Callable[[Work], Awaitable[None]], dependency: Dependency, wait_s: float) -> None:
    """Open the circuit, mend the dependency, and wait until it may be tried."""
    for _ in range(20):
        with suppress(Exception):
            await call(dependency)
    dependency.mended = True
    await asyncio.sleep(wait_s)


async def _stampede(call: Callable[[Work], Awaitable[None]], dependency: Dependency, rng: Random, callers: int) -> int:
    """Callers at once, each of which comes again, after a while, until it is served."""
    waits = [Random(rng.random()) for _ in range(callers)]

    async def caller(wait: Random) -> None:
        while True:
            try:
                return await call(dependency)
            except Exception:
                await asyncio.sleep(wait.uniform(0.0, 2 * ANSWER_S))

    await asyncio.gather(*[caller(wait) for wait in waits])
    return dependency.most


async def genesis_in_flight(seed: int, callers: int) -> int:
    dependency, policy = Dependency(), Policy(f"probes-{seed}", probes=PROBES)
    dependency.counts = lambda: policy.state is CircuitState.HALF_OPEN
    await _half_open(policy.call, dependency, policy.settings.recovery_timeout_s)
    return await _stampede(policy.call, dependency, Random(seed), callers)


async def written_in_flight(seed: int, callers: int) -> int:
    dependency, rules = Dependency(), AsWritten(1)
    dependency.counts = lambda: rules.state == "HALF_OPEN"
    await _half_open(rules.call, dependency, 5.0)
    return await _stampede(rules.call, dependency, Random(seed), callers)


async def naive_in_flight(seed: int, callers: int) -> int:
    """Once the circuit is half open it lets through who asks."""
    dependency = Dependency()
    dependency.mended = True

    async def call(work: Work) -> None:
        await work()

    return await _stampede(call, dependency, Random(seed), callers)


# --- cancelled probes -----------------------------------------------------------------------------------------------------


async def _lost(call: Callable[[Work], Awaitable[None]], wait_s: float, rng: Random, cancelled: int) -> int:
    """Cancel as many probes, one or several at a time, and see how many still may be under way."""
    dependency, loop = Dependency(), asyncio.get_running_loop()
    await _half_open(call, dependency, wait_s)
    ran = 0
    for _ in range(10 * cancelled):
        tasks = [loop.create_task(_quietly(call, dependency)) for _ in range(rng.randint(1, PROBES))]
        await asyncio.sleep(rng.uniform(0.0, 0.9 * ANSWER_S))
        ran += dependency.under_way
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if ran >= cancelled:
            break
    tasks = [loop.create_task(_quietly(call, dependency)) for _ in range(PROBES)]
    await asyncio.sleep(ANSWER_S / 2)
    passed = dependency.under_way
    await asyncio.wait(tasks)
    return PROBES - passed


async def _quietly(call: Callable[[Work], Awaitable[None]], work: Work) -> None:
    with suppress(Exception):
        await call(work)


async def genesis_lost(seed: int, cancelled: int) -> int:
    policy = Policy(f"lost-{seed}", probes=PROBES)
    return await _lost(policy.call, policy.settings.recovery_timeout_s, Random(seed), cancelled)


async def written_lost(seed: int, cancelled: int) -> int:
    return await _lost(AsWritten(1).call, 5.0, Random(seed), cancelled)


def probes(seed: int, callers: int = CALLERS, cancelled: int = CANCELLED) -> tuple[Values, Values]:
    ours = {
        "in_flight": in_virtual_time(genesis_in_flight(seed, callers)),
        "as_written_in_flight": in_virtual_time(written_in_flight(seed, callers)),
        "permits_lost": in_virtual_time(genesis_lost(seed, cancelled)),
        "as_written_lost": in_virtual_time(written_lost(seed, min(cancelled, 100))),
    }
    return ours, {"in_flight": in_virtual_time(naive_in_flight(seed, callers))}


def measure(options: Options) -> Iterator[Result]:
    one = partial(probes, callers=max(50, int(CALLERS * options.scale)), cancelled=max(100, int(CANCELLED * options.scale)))
    yield from over_seeds("probes", FIGURES, options.runs, one)
