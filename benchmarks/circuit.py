"""How soon a circuit sees that a dependency fails, and how often it opens for one that comes and goes. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from random import Random

from benchmarks.harness import Figure, Options, Result, progress, result
from benchmarks.reference import AsWritten
from benchmarks.virtual import Values, in_virtual_time, open_loop, quantile, steady
from genesis import Policy
from genesis.core.signals import CircuitChanged

SEEDS, OPENING_SEEDS = 200, 20
RATE, HEALTHY_S, FAILING_S = 100.0, 20.0, 10.0
FAILURES = 0.5
ANSWER_S = 0.005
PHASE_S, MINUTES_S = 5.0, 300.0
_STEP = "100 calls a second, after 20 healthy seconds half of them fail; 200 seeds. "
FIGURES = (
    Figure("resilient_s", "s", "<= 0.5", f"From the step to RESILIENT, or OPEN if that comes first; median. {_STEP}"),
    Figure("resilient_p99_s", "s", "<= 0.5", "The same, 99 of 100 seeds."),
    Figure("open_s", "s", "<= 1", "From the step to OPEN; median. Raw: the rules as written."),
    Figure("open_p99_s", "s", "<= 1", "The same, 99 of 100 seeds. Raw: the rules as written."),
    Figure(
        "openings",
        "openings",
        "<= 12",
        "While the dependency answers for 5 s and fails for 5 s, for 5 minutes, at 100 calls a second; most of 20 seeds. Raw: "
        "the rules as written.",
    ),
)
NEVER_S = FAILING_S
"""What counts where it never came to it."""
Work = Callable[[], Awaitable[None]]
Call = Callable[[Work], Awaitable[None]]


async def _calls(call: Call, seed: int, seconds: float, failures: Callable[[float], float]) -> None:
    rng, loop = Random(seed), asyncio.get_running_loop()

    async def work() -> None:
        fails = rng.random() < failures(loop.time())
        await asyncio.sleep(rng.uniform(0.5, 1.5) * ANSWER_S)
        if fails:
            raise ConnectionError("down")

    async def one(_: int) -> None:
        with suppress(Exception):
            await call(work)

    await open_loop(steady(RATE, seconds), one)


def _step(at: float) -> float:
    return FAILURES if at >= HEALTHY_S else 0.0


def _comes_and_goes(at: float) -> float:
    return at // PHASE_S % 2


async def step(seed: int) -> Values:
    """When the circuit saw the step, ours and the one as written."""
    policy, seen = Policy(f"step-{seed}"), dict[str, float]()
    policy.listen(lambda change: seen.setdefault(change.new, change.at - HEALTHY_S), CircuitChanged)
    await _calls(policy.call, seed, HEALTHY_S + FAILING_S, _step)
    opened_s = seen.get("OPEN", NEVER_S)
    return {"resilient_s": min(seen.get("RESILIENT", NEVER_S), opened_s), "open_s": opened_s}


async def step_as_written(seed: int) -> float:
    rules, opened = AsWritten(1), list[float]()
    loop = asyncio.get_running_loop()

    async def call(work: Work) -> None:
        try:
            await rules.call(work)
        finally:
            if rules.openings and not opened:
                opened.append(loop.time() - HEALTHY_S)

    await _calls(call, seed, HEALTHY_S + FAILING_S, _step)
    return opened[0] if opened else NEVER_S


async def openings(seed: int, seconds: float = MINUTES_S) -> int:
    policy, opened = Policy(f"comes-and-goes-{seed}"), list[float]()
    policy.listen(lambda change: opened.append(change.at) if change.new == "OPEN" else None, CircuitChanged)
    await _calls(policy.call, seed, seconds, _comes_and_goes)
    return len(opened)


async def openings_as_written(seed: int, seconds: float = MINUTES_S) -> int:
    rules = AsWritten(1)
    await _calls(rules.call, seed, seconds, _comes_and_goes)
    return rules.openings


def measure(options: Options) -> Iterator[Result]:
    seeds = range(1, max(3, int(SEEDS * options.scale)) + 1)
    steps = [in_virtual_time(step(seed)) for seed in seeds]
    written = [in_virtual_time(step_as_written(seed)) for seed in seeds]
    progress(f"circuit: {len(seeds)} steps")
    for name in ("resilient_s", "open_s"):
        values, raws = [found[name] for found in steps], written if name == "open_s" else None
        figures = {figure.name: figure for figure in FIGURES}
        yield result("circuit", figures[name], values, raws)
        late = [quantile(values, 0.99)]
        yield result("circuit", figures[name.replace("_s", "_p99_s")], late, [quantile(raws, 0.99)] if raws else None)
    seeds = range(1, max(2, int(OPENING_SEEDS * options.scale)) + 1)
    ours = [float(in_virtual_time(openings(seed))) for seed in seeds]
    theirs = [float(in_virtual_time(openings_as_written(seed))) for seed in seeds]
    yield result("circuit", FIGURES[-1], [max(ours)], [max(theirs)])
