"""Learned timeouts: how many good calls they cut off, and how long they wait for calls that hang. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from math import exp
from random import Random

from benchmarks.harness import Figure, Options, Result
from benchmarks.virtual import Values, in_virtual_time, log_normal, open_loop, over_seeds, steady
from genesis import Policy
from genesis.core.errors import CallTimeoutError
from genesis.layers.mitigation.timeouts import timeout_as_written_s

CALLS, RATE = 10_000, 20.0
MEAN_S = 1.0
SIGMAS = (0.3, 0.7, 1.0)
HUNG = 0.002
"""Share of calls that never answer: so rare that the circuit has no part in it."""
FIXED_S = 30.0
_SETTING = (
    f"log-normal, mean {MEAN_S:g} s, which the policy is told, {CALLS:,} calls at {RATE:g} a second, of which {HUNG:.1%} hang."
)


def _cut(sigma: float) -> Figure:
    return Figure(
        f"cut_{sigma:g}",
        "",
        "<= 0.007",
        f"Share of good calls that are cut off at a sigma of {sigma:g}: {_SETTING} "
        "Raw: the rule as written, max(2.5 x expected, base).",
    )


FIGURES = (
    *(_cut(sigma) for sigma in SIGMAS),
    *(
        Figure(
            f"hung_{sigma:g}_s",
            "s",
            "ratio <= 0.5",
            f"Mean time that is waited for a call that hangs, at a sigma of {sigma:g}. Raw: a fixed timeout of {FIXED_S:g} s.",
        )
        for sigma in SIGMAS
    ),
)
Work = Callable[[], Awaitable[None]]


async def _run(call: Callable[[Work], Awaitable[None]], seed: int, sigma: float, calls: int) -> tuple[float, float]:
    """The share of good calls that were cut off, and the mean wait for those that hang."""
    rng, loop = Random(f"{seed}-{sigma}"), asyncio.get_running_loop()
    takes = [float("inf") if rng.random() < HUNG else log_normal(rng, MEAN_S / exp(sigma**2 / 2), sigma) for _ in range(calls)]
    cut, waits = 0, list[float]()

    async def one(i: int) -> None:
        nonlocal cut
        began, hangs = loop.time(), takes[i] == float("inf")
        try:
            await call(loop.create_future if hangs else partial(asyncio.sleep, takes[i]))
        except (CallTimeoutError, TimeoutError):
            cut += not hangs
        if hangs:
            waits.append(loop.time() - began)

    await open_loop(steady(RATE, calls / RATE), one)
    return cut / sum(taken < float("inf") for taken in takes), sum(waits) / len(waits) if waits else 0.0


async def genesis(seed: int, sigma: float, calls: int) -> tuple[float, float]:
    """A policy that may not open, become RESILIENT or copy: its timeouts alone."""
    policy = Policy(
        f"timeouts-{sigma}-{seed}", attempts=1, hedges=0, ultra_threshold_s=1e6, failure_threshold=1e6, abandon_below=0.0
    )
    return await _run(policy.protect(expected_latency=MEAN_S).call, seed, sigma, calls)


async def as_written(seed: int, sigma: float, calls: int) -> tuple[float, float]:
    """The literal timeout, of the true mean, around each call."""
    limit_s = timeout_as_written_s(1.0, MEAN_S)

    async def call(work: Work) -> None:
        async with asyncio.timeout(limit_s):
            await work()

    return await _run(call, seed, sigma, calls)


def timeouts(seed: int, calls: int = CALLS) -> tuple[Values, Values]:
    ours, raw = Values(), Values()
    for sigma in SIGMAS:
        ours[f"cut_{sigma:g}"], ours[f"hung_{sigma:g}_s"] = in_virtual_time(genesis(seed, sigma, calls))
        raw[f"cut_{sigma:g}"], _ = in_virtual_time(as_written(seed, sigma, calls))
        raw[f"hung_{sigma:g}_s"] = FIXED_S
    return ours, raw


def measure(options: Options) -> Iterator[Result]:
    yield from over_seeds("timeouts", FIGURES, options.runs, partial(timeouts, calls=options.size(CALLS)))
