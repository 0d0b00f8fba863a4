"""What a protected call costs, beside a bare await, `asyncio.timeout` and the libraries for it, in turns in one process."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from benchmarks import peers
from benchmarks.harness import Figure, Options, Result, child, clock, progress, result
from benchmarks.peers import CIRCUITS, OTHERS, Function
from genesis import Policy

ROUNDS = 15
CALLS = 40_000
"""Of each kind and run, in rounds. The fastest round counts, since all that disturbs one makes it longer."""
ARMED_CALLS, ARMED_SLOW, ARMED_S = 60, 20, 0.002
"""Of one round of calls with a copy planned: so many that are measured, after so many that take long enough for a copy."""
FIGURES = (
    Figure(
        "whole_stack",
        "us",
        "<= 2.5, ratio <= 0.5",
        "A coroutine that returns at once, with deadline, fallback, abandonment, retry, hedge, circuit and timeout (limits are "
        "off), over a bare await. Raw: `asyncio.timeout` alone, over a bare await.",
    ),
    Figure(
        "beside_pyresilience",
        "us",
        "ratio <= 0.125",
        "The same. Raw: pyresilience with circuit, retry and timeout, over a bare await.",
    ),
    Figure(
        "circuit",
        "us",
        "ratio <= 1",
        "The same coroutine under a policy for what must not be repeated, with nothing asked for: circuit, timeout and what is "
        "learned. Raw: the cheapest circuit of the libraries below. Both over a bare await.",
    ),
    Figure(
        "suspends_once",
        "us",
        "",
        "The whole stack around a coroutine that awaits `asyncio.sleep(0)`, over it bare. Raw: `asyncio.timeout` alone.",
    ),
    Figure(
        "hedge_armed",
        "us",
        "",
        "The whole stack around a coroutine that returns at once, while calls take so long that a copy is planned: an attempt "
        "has a task of its own. Over a bare await. Raw: `asyncio.timeout` alone.",
    ),
    *(
        Figure(f"peer_{peer.__name__}", "us", "", f"{peer.__name__}, over a bare await. Raw: our circuit.")
        for peer in (*CIRCUITS, *OTHERS)
    ),
)


async def at_once() -> int:
    return 1


async def suspends() -> None:
    await asyncio.sleep(0)


async def _instead() -> int:
    return 2


def whole(name: str, work: Function) -> Function:
    """Everything that a policy can do for a call, but limits."""
    return Policy(name).protect(idempotent=True, fallback=_instead, deadline=2.0)(work)


def subjects() -> dict[str, Function]:
    """What is measured, by name. A library that is not installed is not measured."""
    found = {
        "bare": at_once,
        "timeout": peers.timeout(at_once),
        "whole_stack": whole("bench-whole", at_once),
        "circuit": Policy("bench-circuit")(at_once),
        "bare_suspends": suspends,
        "timeout_suspends": peers.timeout(suspends),
        "suspends_once": whole("bench-suspends", suspends),
    }
    for peer in (*CIRCUITS, *OTHERS):
        if find_spec(peer.__name__.removesuffix("_whole")):
            found[f"peer_{peer.__name__}"] = peer(at_once)
    return found


async def _took_us(work: Function, calls: int) -> float:
    begin = clock()
    for _ in range(calls):
        await work()
    return 1e6 * (clock() - begin) / calls


async def _armed_us(rounds: int) -> float:
    """Calls of a policy that knows of slow calls."""
    slow = [True]

    async def work() -> None:
        if slow[0]:
            await asyncio.sleep(ARMED_S)

    policy = Policy("bench-armed")
    call = policy.protect(idempotent=True, fallback=_instead, deadline=2.0)(work)
    best = float("inf")
    for _ in range(rounds + 1):
        slow[0] = True
        for _ in range(ARMED_SLOW):
            await call()
        policy.whole.refresh(policy.now())
        assert policy.whole.hedge_after_s > 0
        slow[0] = False
        best = min(best, await _took_us(call, ARMED_CALLS))
    return best


async def costs(calls: int) -> dict[str, float]:
    """Microseconds of a call of each kind, from rounds in turns."""
    all_of_them = subjects()
    best = dict.fromkeys(all_of_them, float("inf"))
    for _ in range(ROUNDS):
        for name, work in all_of_them.items():
            best[name] = min(best[name], await _took_us(work, calls // ROUNDS))
    return best | {"hedge_armed": await _armed_us(ROUNDS)}


def over_bare(run: dict[str, float]) -> dict[str, Any]:
    """Each figure and its raw limit, both over a bare await."""
    bare, suspended = run["bare"], run["bare_suspends"]
    timeout = run["timeout"] - bare
    circuits = [run[name] - bare for peer in CIRCUITS if (name := f"peer_{peer.__name__}") in run]
    ours = {"whole_stack": (run["whole_stack"] - bare, timeout)}
    if "peer_pyresilience_whole" in run:
        ours["beside_pyresilience"] = (run["whole_stack"] - bare, run["peer_pyresilience_whole"] - bare)
    circuit = run["circuit"] - bare
    ours["circuit"] = (circuit, min(circuits, default=circuit))
    ours["suspends_once"] = (run["suspends_once"] - suspended, run["timeout_suspends"] - suspended)
    ours["hedge_armed"] = (run["hedge_armed"] - bare, timeout)
    return ours | {name: (cost - bare, circuit) for name, cost in run.items() if name.startswith("peer_")}


def measure(options: Options) -> Iterator[Result]:
    runs = []
    for run in range(1, options.runs + 1):
        runs.append(over_bare(child(costs, calls=options.size(CALLS))))
        told = ", ".join(f"{name} {value:.2f}" for name, (value, _) in list(runs[-1].items())[:5])
        progress(f"call {run}/{options.runs}: {told}")
    for figure in FIGURES:
        if figure.name in runs[0]:
            values, raws = zip(*(run[figure.name] for run in runs), strict=True)
            yield result("call", figure, list(values), list(raws))
