"""A dependency that is down under three layers that each try three times: how often it is called, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

from benchmarks.harness import Figure, Options, Result
from benchmarks.reference import AsWritten
from benchmarks.virtual import Values, in_virtual_time, open_loop, over_seeds, poisson
from genesis import Policy

LAYERS, ATTEMPTS = 3, 3
RATE, SECONDS = 100.0, 60.0
ANSWER_S = 0.005
"""How long the dependency takes to say that it is down."""
_SETTING = (
    "100 requests a second for a minute through three layers, each a policy of its own that tries three times, to a dependency "
    "that fails after 5 ms. "
)
FIGURES = (
    Figure(
        "calls_a_request",
        "",
        "<= 1.1",
        f"Calls of the dependency for each request. {_SETTING}Raw: three layers that each try three times at once.",
    ),
    Figure(
        "calls_without_circuit",
        "",
        "<= 1.1",
        "The same with circuits that refuse nothing and calls that are never abandoned: what the scope and the budget hold "
        "alone, as in the seconds before a circuit opens. Raw: as before.",
    ),
    Figure("as_written_calls", "", "", "The same for the rules as written. Raw: as before."),
)

Work = Callable[[], Awaitable[None]]


class Down:
    """A dependency that counts its calls and fails."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        await asyncio.sleep(ANSWER_S)
        raise ConnectionError("down")


def genesis(seed: int, down: Work, *, circuits: bool) -> Work:
    work = down
    for layer in range(LAYERS):
        policy = Policy(f"outage-{circuits}-{seed}-{layer}", attempts=ATTEMPTS, abandon_below=0.3 if circuits else 0.0)
        if not circuits:
            policy.only_measure()
        work = partial(policy.protect(idempotent=True).call, work)
    return work


def naive(down: Work) -> Work:
    async def tries(work: Work) -> None:
        for _ in range(ATTEMPTS - 1):
            with suppress(ConnectionError):
                return await work()
        return await work()

    work = down
    for _ in range(LAYERS):
        work = partial(tries, work)
    return work


def as_written(down: Work) -> Work:
    work = down
    for _ in range(LAYERS):
        work = partial(AsWritten(ATTEMPTS).call, work)
    return work


async def _calls_a_request(make: Callable[[Work], Work], seed: int, seconds: float) -> float:
    down, times = Down(), list(poisson(Random(seed), RATE, seconds))
    work = make(down)

    async def one(_: int) -> None:
        with suppress(Exception):
            await work()

    await open_loop(times, one)
    return down.calls / len(times)


def outage(seed: int, seconds: float = SECONDS) -> tuple[Values, Values]:
    def run(make: Callable[[Work], Work]) -> float:
        return in_virtual_time(_calls_a_request(make, seed, seconds))

    raw = run(naive)
    ours = {
        "calls_a_request": run(partial(genesis, seed, circuits=True)),
        "calls_without_circuit": run(partial(genesis, seed, circuits=False)),
        "as_written_calls": run(as_written),
    }
    return ours, dict.fromkeys(ours, raw)


def measure(options: Options) -> Iterator[Result]:
    seconds = max(10.0, SECONDS * options.scale)
    yield from over_seeds("outage", FIGURES, options.runs, partial(outage, seconds=seconds))
