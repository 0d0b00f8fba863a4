"""What the simulations of protected calls share: virtual time, calls that come when they come, and seeds that are told."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from math import exp
from random import Random
from typing import Any, TypeVar

from benchmarks.harness import Figure, Result, progress, result
from genesis.chaos.loop import VirtualLoop
from genesis.runtime.log import silence

T = TypeVar("T")
Values = dict[str, float]
"""Figures of one seed by name."""


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a world whose time jumps to the next timer, as fast as the machine can."""
    loop = VirtualLoop()
    try:
        with silence():
            return loop.run_nested(work)
    finally:
        loop.close()


def poisson(rng: Random, rate_per_s: float, for_s: float) -> Iterator[float]:
    """Times at which calls come, at random."""
    at = rng.expovariate(rate_per_s)
    while at < for_s:
        yield at
        at += rng.expovariate(rate_per_s)


def steady(rate_per_s: float, for_s: float) -> Iterator[float]:
    """Times at which calls come, one like the other."""
    return (i / rate_per_s for i in range(int(for_s * rate_per_s)))


async def open_loop(times: Iterable[float], one: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Make each call at its time, whatever became of those before, and wait for all."""
    loop, tasks = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    begin = loop.time()
    for i, at in enumerate(times):
        if begin + at > loop.time():
            await asyncio.sleep(begin + at - loop.time())
        tasks.append(loop.create_task(one(i)))
    await asyncio.gather(*tasks)


def log_normal(rng: Random, median_s: float, sigma: float) -> float:
    """A latency: half of them are shorter than the median."""
    return median_s * exp(rng.gauss(0.0, sigma))


def quantile(values: Iterable[float], q: float) -> float:
    """The value that a share `q` of them is at or below; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def worst_share(calls: list[float], extras: list[float], window_s: float) -> float:
    """The highest share of extras among the calls of a window, less the one extra that is always granted.

    A window ends at an extra: that is where the share is highest.
    """
    worst, first_call, first_extra, passed = 0.0, 0, 0, 0
    for count, at in enumerate(extras, 1):
        while passed < len(calls) and calls[passed] <= at:
            passed += 1
        while first_call < passed and calls[first_call] <= at - window_s:
            first_call += 1
        while extras[first_extra] <= at - window_s:
            first_extra += 1
        if passed > first_call:
            worst = max(worst, (count - first_extra - 1) / (passed - first_call))
    return worst


def over_seeds(
    bench: str, figures: Iterable[Figure], seeds: int, one: Callable[[int], tuple[Values, Values]]
) -> Iterator[Result]:
    """Run `one` with the seeds 1, 2, ... It returns its figures, and of some the raw limit."""
    runs: list[tuple[Values, Values]] = []
    for seed in range(1, seeds + 1):
        runs.append(one(seed))
        if seed % max(1, seeds // 5) == 0:
            progress(f"{bench}: seeds 1 to {seed} of {seeds}")
    for figure in figures:
        values = [ours[figure.name] for ours, _ in runs]
        raws = [raw[figure.name] for _, raw in runs] if figure.name in runs[0][1] else None
        yield result(bench, figure, values, raws)
