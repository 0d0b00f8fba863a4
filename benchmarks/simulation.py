"""The production code in virtual time on the model of a store: how much faster than life, in one process and on all cores."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

from benchmarks.app import LEVELS, Added, Totals, app, totals
from benchmarks.harness import Figure, Options, Result, child, pairs, results
from benchmarks.job import Meter, event, expected, reached
from genesis import GenesisError, Node, Settings
from genesis.chaos import faults
from genesis.chaos.explore import GENTLE
from genesis.chaos.loop import VirtualLoop
from genesis.chaos.model import FAST_S
from genesis.chaos.world import World
from genesis.runtime.log import silence

RATE = 100.0
EVENTS = 6_000
CLIENTS = 64
FAULTS = 20
SEED = 1
_BY_HAND = "a task for each event that waits twice as long as the store takes, and adds up, on the same loop."
FIGURES = (
    Figure(
        "virtual_s_per_s",
        "s/s",
        ">= 100",
        "Virtual seconds in a second of one process (CPU time: nothing else waits), while 100 events come in each virtual "
        "second, whatever becomes of them: keyed state (1,000 keys), 5 priorities, a calm store of 0.2 to 2 ms, until all are "
        f"done. Raw: {_BY_HAND}",
    ),
    Figure("faults_virtual_s_per_s", "s/s", ">= 100", "The same with 20 faults. Raw: as before, none."),
    Figure(
        "machine_virtual_s_per_s",
        "s/s",
        ">= 100",
        "The same with 20 faults, in a process for each core at once, by the clock on the wall: what seeds are run with. Raw: "
        "as before, none.",
    ),
    Figure(
        "events_per_s",
        "1/s",
        "",
        "Events in such a second when 64 clients send one after the other, as soon as they have their yes. Raw: by hand.",
    ),
)


async def send(node: Node, i: int) -> None:
    e = event(i)
    await node.send(Added(**e), id=str(i), priority=LEVELS[e["priority"]])


async def client(world: World, i: int) -> None:
    """Until it has its yes."""
    while True:
        try:
            return await world.call(partial(send, i=i))
        except GenesisError:
            await asyncio.sleep(0.1)


One = Callable[[int], Coroutine[Any, Any, None]]
"""From the sending of an event to its yes."""


async def in_turn(n: int, one: One) -> None:
    """Clients that send one after the other."""
    numbers = iter(range(n))

    async def sending() -> None:
        for i in numbers:
            await one(i)

    await asyncio.gather(*[sending() for _ in range(CLIENTS)])


async def open_loop(n: int, one: One) -> None:
    """Each at its time."""
    loop, tasks = asyncio.get_running_loop(), []
    for i in range(n):
        await asyncio.sleep(i / RATE - loop.time())
        tasks.append(loop.create_task(one(i)))
    await asyncio.gather(*tasks)


def measured(loop: VirtualLoop, n: int, cpu_s: float, wall_s: float) -> dict[str, float]:
    return {
        "machine_virtual_s_per_s": loop.time() / wall_s,
        "virtual_s_per_s": loop.time() / cpu_s,
        "faults_virtual_s_per_s": loop.time() / cpu_s,
        "events_per_s": n / cpu_s,
        "callbacks": loop.steps / n,
    }


@silence()
def genesis(n: int, count: int, fast: bool) -> dict[str, float]:
    Totals.meter = Meter(n)
    begin, began = time.process_time(), time.perf_counter()
    world = World(app.definition(), seed=SEED, settings=Settings().node())
    schedule = faults.draw(Random(SEED), count, over_s=n / RATE, kinds=GENTLE)

    async def scenario() -> tuple[float, float]:
        trouble = asyncio.create_task(world.follow(schedule))
        await (in_turn if fast else open_loop)(n, partial(client, world))
        await trouble
        world.calm()
        await reached(lambda: world.store.head().ledger.done == n, every_s=0.01)
        spent = time.process_time() - begin, time.perf_counter() - began
        assert await world.call(totals) == expected(n)
        return spent

    spent = world.run(scenario())
    answer = measured(world.loop, n, *spent)
    world.close()
    assert not world.violations, world.violations
    return answer


def by_hand(n: int, fast: bool) -> dict[str, float]:
    begin, began = time.process_time(), time.perf_counter()
    loop, rng, done = VirtualLoop(Random(SEED)), Random(SEED), dict[str, int]()

    async def one(i: int) -> None:
        e = event(i)
        for _ in range(2):
            await loop.nap(rng.uniform(*FAST_S))
        done[e["key"]] = done.get(e["key"], 0) + e["amount"]

    async def scenario() -> tuple[float, float]:
        await (in_turn if fast else open_loop)(n, one)
        return time.process_time() - begin, time.perf_counter() - began

    spent = loop.run_nested(scenario())
    assert done == expected(n)
    answer = measured(loop, n, *spent)
    loop.close()
    return answer


def at_once(processes: int, side: Callable[..., Any], **arguments: Any) -> dict[str, float]:
    """What as many processes did together."""
    with ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(lambda _: child(side, **arguments), range(processes)))
    return {name: sum(answer[name] for answer in answers) for name in answers[0]}


def measure(options: Options) -> Iterator[Result]:
    n = options.size(EVENTS)
    cores = len(os.sched_getaffinity(0))
    for figure, count, fast, processes in zip(
        FIGURES, (0, FAULTS, FAULTS, 0), (False, False, False, True), (1, 1, cores, 1), strict=True
    ):
        raw = partial(at_once, processes, by_hand, n=n, fast=fast)
        ours = partial(at_once, processes, genesis, n=n, count=count, fast=fast)
        yield from results("simulation", [figure], list(pairs(figure.name, options.runs, raw, ours)))
