"""Copies of slow calls, by the production policy in virtual time: what they cut, what they cost, and that they never hurt."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

from benchmarks.harness import Figure, Options, Result
from benchmarks.reference import AsWritten
from benchmarks.virtual import (
    Values,
    in_virtual_time,
    log_normal,
    open_loop,
    over_seeds,
    poisson,
    quantile,
    worst_share,
)
from genesis import Policy
from genesis.core.signals import Step, StepTaken

BUDGET_S = 10.0
# --- stragglers
RATE, SECONDS, WARM_S = 100.0, 120.0, 10.0
MEDIAN_S, SIGMA = 0.02, 0.3
STRAGGLERS, TIMES = 0.02, 20.0
# --- a pool of servers (literature: 10 servers, exponential, 1 % of the jobs 20 times as long)
SERVERS, SERVICE_S, LONG, LONG_TIMES = 10, 0.01, 0.01, 20.0
LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
POOL_CALLS = 20_000
# --- a brown-out
SLOW_TIMES, PHASE_S = 10.0, 10.0
NEWEST = 30
_STRAGGLERS = (
    "100 calls a second for 2 minutes, log-normal (median 20 ms, sigma 0.3), of which 2 % take 20 times as long; the "
    "first 10 s, in which latencies are learned, are left out. "
)
FIGURES = (
    Figure(
        "p99_cut",
        "",
        ">= 0.8",
        f"Share by which copies at p95 shorten the p99. {_STRAGGLERS}Raw: every call made twice.",
    ),
    Figure(
        "extra_share",
        "",
        "<= 0.05",
        "Copies for each call in the ten seconds in which they were most, less the one that is always granted. Raw: every call "
        "made twice.",
    ),
    Figure("as_written_p99_cut", "", "", "The same for the rules as written: nothing under an expected second has a copy."),
    Figure("as_written_extra_share", "", "", "The same for the rules as written."),
    Figure(
        "worst_ratio",
        "",
        "<= 1.02",
        "Highest ratio of the p99 with copies to that without, of ten loads (0.1 to 0.95) of 10 servers with a queue each, "
        "exponential service, of which 1 % takes 20 times as long; the server is drawn; a copy that queues is taken back, one "
        "that runs is not. 20,000 calls a load, the same ones on both sides. Raw: every call made twice at once.",
    ),
    Figure(
        "brownout_extra_share",
        "",
        "<= 0.05",
        "Copies for each call when everything is 10 times as slow in every other 10 seconds. Raw: every call made twice.",
    ),
    Figure(
        "brownout_blind",
        "copies",
        "0",
        "Copies started while more than half of the newest 30 calls took over 2.5 times the healthy p95. Raw: every call made "
        "twice.",
    ),
)

Work = Callable[[], Awaitable[None]]
Rule = Callable[[Work], Awaitable[None]]


class Copies:
    """When copies were started, and how many of them in spite of what is called blind."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.blindly = 0
        self.blind: Callable[[], bool] = lambda: False

    def started(self, at: float) -> None:
        self.at.append(at)
        self.blindly += self.blind()


class Twice:
    """The naive rule: each call is made twice at once, and the first one that ends counts."""

    def __init__(self) -> None:
        self.copies = Copies()

    async def call(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        self.copies.started(loop.time())
        tasks = [loop.create_task(_of(work)) for _ in range(2)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _of(work: Work) -> None:
    await work()


def hedged(name: str) -> tuple[Policy, Rule, Copies]:
    """The production policy with its defaults but for a long timeout, and when it starts copies."""
    policy, copies = Policy(name, timeout_s=30.0), Copies()

    def started(step: StepTaken) -> None:
        if step.step is Step.HEDGED:
            copies.started(step.at)

    policy.listen(started, StepTaken)
    return policy, policy.protect(idempotent=True).call, copies


# --- stragglers -----------------------------------------------------------------------------------------------------------


def straggling(rng: Random) -> float:
    return log_normal(rng, MEDIAN_S, SIGMA) * (TIMES if rng.random() < STRAGGLERS else 1.0)


async def _stream(
    rule: Rule, seed: int, seconds: float, draw: Callable[[Random, float], float]
) -> tuple[list[float], list[float]]:
    """When calls came, and how long those after the warm-up took. The first attempt of a call is the same whatever the rule."""
    rng, copies_rng = Random(seed), Random(-seed)
    times = list(poisson(rng, RATE, seconds))
    firsts = [Random(f"{seed}-{i}") for i in range(len(times))]
    loop, came, took = asyncio.get_running_loop(), list[float](), list[float]()

    async def one(i: int) -> None:
        began, made = loop.time(), [0]

        async def work() -> None:
            made[0] += 1
            await asyncio.sleep(draw(firsts[i] if made[0] == 1 else copies_rng, loop.time()))

        await rule(work)
        came.append(began)
        if began >= WARM_S:
            took.append(loop.time() - began)

    await open_loop(times, one)
    return sorted(came), took


async def _alone(work: Work) -> None:
    await work()


def _p99_and_share(rule: Rule, copies: Copies, seed: int, seconds: float) -> tuple[float, float]:
    came, took = in_virtual_time(_stream(rule, seed, seconds, lambda rng, _: straggling(rng)))
    return quantile(took, 0.99), worst_share(came, copies.at, BUDGET_S)


def stragglers(seed: int, seconds: float = SECONDS) -> tuple[Values, Values]:
    alone_s, _ = _p99_and_share(_alone, Copies(), seed, seconds)
    _, rule, copies = hedged(f"stragglers-{seed}")
    ours_s, share = _p99_and_share(rule, copies, seed, seconds)
    twice = Twice()
    twice_s, twice_share = _p99_and_share(twice.call, twice.copies, seed, seconds)

    async def written() -> tuple[float, float]:
        rules = AsWritten(attempts=1, expected_s=MEDIAN_S)

        async def written_rule(work: Work) -> None:
            with suppress(TimeoutError):  # over a second: cut off, and not made again
                await rules.call(work)

        _, took = await _stream(written_rule, seed, seconds, lambda rng, _: straggling(rng))
        return quantile(took, 0.99), rules.calls - len(list(poisson(Random(seed), RATE, seconds)))

    written_s, more = in_virtual_time(written())
    ours = {"p99_cut": 1 - ours_s / alone_s, "extra_share": share}
    ours |= {"as_written_p99_cut": 1 - written_s / alone_s, "as_written_extra_share": more / (RATE * seconds)}
    return ours, {"p99_cut": 1 - twice_s / alone_s, "extra_share": twice_share}


# --- a pool ---------------------------------------------------------------------------------------------------------------


class Server:
    """One after the other. Who is cancelled while it waits does no work; who is cancelled while it runs is finished."""

    def __init__(self) -> None:
        self._queue: deque[tuple[asyncio.Future[None], float]] = deque()
        self._busy = False

    async def serve(self, service_s: float) -> None:
        done = asyncio.get_running_loop().create_future()
        self._queue.append((done, service_s))
        if not self._busy:
            self._next()
        await done

    def _next(self) -> None:
        while self._queue:
            done, service_s = self._queue.popleft()
            if not done.cancelled():
                self._busy = True
                asyncio.get_running_loop().call_later(service_s, self._ended, done)
                return
        self._busy = False

    def _ended(self, done: asyncio.Future[None]) -> None:
        if not done.done():
            done.set_result(None)
        self._next()


def service_s(rng: Random) -> float:
    return rng.expovariate(1 / SERVICE_S) * (LONG_TIMES if rng.random() < LONG else 1.0)


async def _pool(rule: Rule, seed: int, load: float, calls: int) -> float:
    """The p99 of a pool under a load."""
    rng, copies_rng = Random(seed), Random(-seed)
    rate = load * SERVERS / (SERVICE_S * (1 + LONG * (LONG_TIMES - 1)))
    times = list(poisson(rng, rate, calls / rate))
    firsts = [(rng.randrange(SERVERS), service_s(rng)) for _ in times]
    servers = [Server() for _ in range(SERVERS)]
    loop, took = asyncio.get_running_loop(), list[float]()

    async def one(i: int) -> None:
        began, made = loop.time(), [0]

        async def work() -> None:
            made[0] += 1
            at, needs_s = firsts[i] if made[0] == 1 else (copies_rng.randrange(SERVERS), service_s(copies_rng))
            await servers[at].serve(needs_s)

        await rule(work)
        took.append(loop.time() - began)

    await open_loop(times, one)
    return quantile(took, 0.99)


def pool(seed: int, load: float, calls: int = POOL_CALLS) -> tuple[float, float, float]:
    """The p99 without copies, with ours, and of every call made twice."""
    run = partial(_pool, seed=seed, load=load, calls=calls)
    _, rule, _ = hedged(f"pool-{load}-{seed}")
    return in_virtual_time(run(_alone)), in_virtual_time(run(rule)), in_virtual_time(run(Twice().call))


def pools(seed: int, calls: int = POOL_CALLS) -> tuple[Values, Values]:
    ours, twice = 0.0, 0.0
    for load in LOADS:
        alone_s, ours_s, twice_s = pool(seed, load, calls)
        ours, twice = max(ours, ours_s / alone_s), max(twice, twice_s / alone_s)
    return {"worst_ratio": ours}, {"worst_ratio": twice}


# --- a brown-out ----------------------------------------------------------------------------------------------------------


def brown(rng: Random, now: float) -> float:
    slow = now >= 2 * WARM_S and (now // PHASE_S) % 2 == 1
    return log_normal(rng, MEDIAN_S, SIGMA) * (SLOW_TIMES if slow else 1.0)


def slow_over_s() -> float:
    """What a call takes at least to be slow: 2.5 times the p95 of healthy ones."""
    rng = Random(0)
    return 2.5 * quantile([log_normal(rng, MEDIAN_S, SIGMA) for _ in range(10_000)], 0.95)


async def _browned(rule: Rule, copies: Copies, seed: int, seconds: float) -> tuple[float, float]:
    """Copies for each call, and copies while most calls were slow."""
    newest, over_s, loop = deque[bool](maxlen=NEWEST), slow_over_s(), asyncio.get_running_loop()
    copies.blind = lambda: sum(newest) > NEWEST / 2

    async def watched(work: Work) -> None:
        began = loop.time()
        await rule(work)
        newest.append(loop.time() - began > over_s)

    came, _ = await _stream(watched, seed, seconds, brown)
    return len(copies.at) / len(came), copies.blindly


def brownout(seed: int, seconds: float = SECONDS) -> tuple[Values, Values]:
    _, rule, copies = hedged(f"brownout-{seed}")
    share, blind = in_virtual_time(_browned(rule, copies, seed, seconds))
    twice = Twice()
    twice_share, twice_blind = in_virtual_time(_browned(twice.call, twice.copies, seed, seconds))
    ours = {"brownout_extra_share": share, "brownout_blind": blind}
    return ours, {"brownout_extra_share": twice_share, "brownout_blind": twice_blind}


def one(seed: int, scale: float = 1.0) -> tuple[Values, Values]:
    """All figures of a seed."""
    seconds, calls = max(3 * WARM_S, SECONDS * scale), max(500, int(POOL_CALLS * scale))
    parts = stragglers(seed, seconds), pools(seed, calls), brownout(seed, seconds)
    return {k: v for ours, _ in parts for k, v in ours.items()}, {k: v for _, raw in parts for k, v in raw.items()}


def measure(options: Options) -> Iterator[Result]:
    yield from over_seeds("hedge", FIGURES, options.runs, partial(one, scale=options.scale))
