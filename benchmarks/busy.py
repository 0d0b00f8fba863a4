"""Do commits go on while the event loop is kept busy? The writer's thread needs its turns."""

import asyncio
import sys
from collections.abc import Iterator
from itertools import count, pairwise, product

from benchmarks.app import Added, Totals, app
from benchmarks.harness import Figure, Options, Result, pairs, result
from benchmarks.job import Meter, clock, event
from benchmarks.sqlite import on_disk
from genesis import Settings
from genesis.core.ports import CrashPoint

PRODUCERS = 64
SECONDS = 3.0
PIECES_MS = (5, 50)
SWITCHES = {"": 1e-4, "_default": 5e-3}
"""Seconds after which a thread that waits gets its turn: as `genesis run` sets it, and as Python does."""
FIGURES = tuple(
    Figure(
        f"{what}_{piece}ms{switch}",
        unit,
        "",
        f"{meaning} while 64 tasks send to a store on SQLite and plain Python holds the event loop for {piece} ms at a time, "
        f"with the switch interval of {'Python' if switch else '`genesis run`'}. Raw: the same, loop not held.",
    )
    for switch, piece in product(SWITCHES, PIECES_MS)
    for what, unit, meaning in (("commits", "1/s", "Commits a second"), ("longest_gap", "ms", "Longest time between commits"))
)


class Commits:
    """Times of the commits, noted in the writer as soon as they are durable."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, point: CrashPoint) -> None:
        if point is CrashPoint.COMMIT:
            self.times.append(clock())


async def commits(folder: str, piece_s: float, switch_s: float, seconds: float) -> dict[str, float]:
    sys.setswitchinterval(switch_s)
    Totals.meter = Meter(1 << 20)
    seen, numbers = Commits(), count()
    async with app.running(f"{folder}/bench.db", settings=Settings(), crash=seen) as node:

        async def produce() -> None:
            for i in numbers:
                e = event(i)
                await node.send(Added(**e), id=str(i))

        producing = [asyncio.create_task(produce()) for _ in range(PRODUCERS)]
        begin = clock()
        while clock() < begin + seconds:
            until = clock() + piece_s
            while clock() < until:
                pass
            await asyncio.sleep(0 if piece_s else seconds)
        end = clock()
        for task in producing:
            task.cancel()
    times = [begin, *(t for t in seen.times if begin < t < end), end]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return {"commits": (len(times) - 2) / (end - begin), "longest_gap": 1e3 * max(gaps)}


def measure(options: Options) -> Iterator[Result]:
    figures = {figure.name: figure for figure in FIGURES}
    seconds = max(0.3, SECONDS * options.scale)
    for (switch, switch_s), piece in product(SWITCHES.items(), PIECES_MS):

        def side(piece_s: float, switch_s: float = switch_s) -> dict[str, float]:
            return on_disk(commits, piece_s=piece_s, switch_s=switch_s, seconds=seconds)

        what = f"busy {piece} ms{switch.replace('_', ', ')}"
        runs = list(pairs(what, options.runs, lambda: side(0.0), lambda: side(piece / 1e3)))  # noqa: B023 - called now
        for name in ("commits", "longest_gap"):
            figure = figures[f"{name}_{piece}ms{switch}"]
            yield result("busy", figure, [ours[name] for _, ours in runs], [raw[name] for raw, _ in runs])
