"""Dependencies that are slow and fail now and then (the specification's scenario 3): how many calls succeed, and at what cost.

In virtual time, and on loopback: there, a real server answers over TCP, and all latencies and the settings that are times are a
twentieth, but for the windows over which budgets and latencies are kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from math import inf
from random import Random
from typing import Any

from benchmarks.harness import Figure, Options, Result
from benchmarks.reference import AsWritten
from benchmarks.virtual import Values, in_virtual_time, open_loop, over_seeds, poisson
from genesis import Policy

CALLS, RATE, TAIL_S = 1_000, 10.0, 60.0
"""Calls that are counted, at so many a second; others follow for some time, or the last retries would be in no traffic."""
BANDS = {"le1": (0.2, 1.0), "1to2": (1.0, 2.0), "2to3": (2.0, 3.0)}
"""Latencies in seconds, evenly spread."""
FAULTS = {"98": (0.01, 0.01), "75": (0.2, 0.05)}
"""Shares of attempts that fail when they would have answered, and of those that never answer."""
SCALE = 20.0
UNPROTECTED_S, DEADLINE_S = 30.0, 60.0
SETTINGS: dict[str, dict[str, Any]] = {"98": {}, "75": {"attempts": 6, "budget_share": 0.5, "deadline_s": DEADLINE_S}}
"""What a policy is told beside the expected latency and that calls may be repeated: nothing, and more attempts and budget."""
TIMES = ("timeout_s", "timeout_resilient_s", "timeout_ultra_s", "ultra_threshold_s", "backoff_s", "recovery_timeout_s")
EXTRA = {"98": "<= 0.05", "75": "<= 0.4"}


def _figures(place: str) -> Iterator[Figure]:
    for kind in FAULTS:
        for band, (low_s, high_s) in BANDS.items():
            calls = (
                f"of 1,000 calls of {low_s:g} to {high_s:g} s that succeed in {kind} % unprotected{place and ', on loopback'}"
            )
            yield Figure(f"{place}success_{kind}_{band}", "", ">= 0.999", f"Share {calls}. Raw: unprotected.")
            yield Figure(
                f"{place}extra_{kind}_{band}", "", EXTRA[kind], f"Attempts {calls}, beyond one for each. Raw: rules as written."
            )
            if not place:
                yield Figure(f"as_written_{kind}_{band}", "", "", f"Share {calls} by the rules as written. Raw: unprotected.")


FIGURES = (*_figures(""), *_figures("loopback_"))
Work = Callable[[], Awaitable[None]]


class Faulty:
    """Draws of each attempt what becomes of it; `answer` takes the time and the outcome."""

    def __init__(self, rng: Random, kind: str, band: str, answer: Callable[[float, bool], Awaitable[None]]) -> None:
        self.attempts, self._rng = 0, rng
        self._failing, self._hanging = FAULTS[kind]
        self._band, self._answer = BANDS[band], answer

    async def __call__(self) -> None:
        self.attempts += 1
        takes_s, drawn = self._rng.uniform(*self._band), self._rng.random()
        hangs = drawn < self._hanging
        await self._answer(10 * DEADLINE_S if hangs else takes_s, not hangs and drawn < self._hanging + self._failing)


async def virtual_answer(takes_s: float, fails: bool) -> None:
    await asyncio.sleep(takes_s)
    if fails:
        raise ConnectionError("refused")


async def _calls(
    call: Callable[[Work], Awaitable[None]], faulty: Faulty, seed: int, calls: int, scale: float
) -> tuple[float, float]:
    """The share of the first `calls` that succeeded, and the attempts beyond one for each, of all."""
    good = 0

    async def one(i: int) -> None:
        nonlocal good
        with suppress(Exception):
            await call(faulty)
            good += i < calls

    times = list(islice(poisson(Random(-seed), RATE * scale, inf), calls + int(RATE * TAIL_S)))
    await open_loop(times, one)
    return good / calls, faulty.attempts / len(times) - 1


def protected(name: str, kind: str, band: str, scale: float = 1.0) -> Callable[[Work], Awaitable[None]]:
    """The production policy; no fallback stands in, so that each good answer is one of the dependency."""
    policy = Policy(name, **SETTINGS[kind])
    if scale != 1.0:
        policy = Policy(f"{name}-scaled", policy.settings, **{what: getattr(policy.settings, what) / scale for what in TIMES})
    return policy.protect(idempotent=True, expected_latency=sum(BANDS[band]) / 2 / scale).call


async def unprotected(work: Work, scale: float = 1.0) -> None:
    async with asyncio.timeout(UNPROTECTED_S / scale):
        await work()


async def _band(seed: int, kind: str, band: str, calls: int) -> tuple[Values, Values]:
    def faulty() -> Faulty:
        return Faulty(Random(f"{seed}-{kind}-{band}"), kind, band, virtual_answer)

    name, attempts = f"{kind}_{band}", SETTINGS[kind].get("attempts", 3)
    bare, _ = await _calls(unprotected, faulty(), seed, calls, 1.0)
    rules = AsWritten(attempts, sum(BANDS[band]) / 2)
    written, written_extra = await _calls(rules.call, faulty(), seed, calls, 1.0)
    good, extra = await _calls(protected(f"latencies-{name}-{seed}", kind, band), faulty(), seed, calls, 1.0)
    ours = {f"success_{name}": good, f"extra_{name}": extra, f"as_written_{name}": written}
    return ours, {f"success_{name}": bare, f"extra_{name}": written_extra, f"as_written_{name}": bare}


# --- loopback -------------------------------------------------------------------------------------------------------------


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer after as long as the client says, in the way it says."""
    asked = (await reader.readline()).split()
    if not asked:  # it gave up while it connected
        writer.close()
        return
    takes_s, answer = asked
    ends = asyncio.ensure_future(reader.read())  # a client that gives up closes
    await asyncio.wait([ends], timeout=float(takes_s))
    ends.cancel()
    writer.write(answer)
    writer.close()


async def _loopback(seed: int, kind: str, band: str, calls: int) -> tuple[Values, Values]:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async def answer(takes_s: float, fails: bool) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"{takes_s / SCALE} {'no' if fails else 'yes'}\n".encode())
            if await reader.read() != b"yes":
                raise ConnectionError("refused")
        finally:
            writer.close()

    def faulty() -> Faulty:
        return Faulty(Random(f"{seed}-{kind}-{band}"), kind, band, answer)

    name = f"{kind}_{band}"
    async with server:
        bare, _ = await _calls(partial(unprotected, scale=SCALE), faulty(), seed, calls, SCALE)
        good, extra = await _calls(protected(f"loopback-{name}-{seed}", kind, band, SCALE), faulty(), seed, calls, SCALE)
    return {f"loopback_success_{name}": good, f"loopback_extra_{name}": extra}, {f"loopback_success_{name}": bare}


def latencies(seed: int, calls: int = CALLS, loopback: bool = True) -> tuple[Values, Values]:
    ours, raw = Values(), Values()
    for kind in FAULTS:
        for band in BANDS:
            runs = [in_virtual_time(_band(seed, kind, band, calls))]
            if loopback:
                runs.append(asyncio.run(_loopback(seed, kind, band, calls)))
            for our, other in runs:
                ours |= our
                raw |= other
    return ours, raw


def measure(options: Options) -> Iterator[Result]:
    yield from over_seeds("latencies", FIGURES, options.runs, partial(latencies, calls=options.size(CALLS)))
