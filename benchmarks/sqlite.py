"""Durable, effectively-once events on SQLite, beside plain `sqlite3` doing the same work."""

import asyncio
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks import raw_sqlite
from benchmarks.app import LEVELS, Added, Committed, Totals, app, totals
from benchmarks.harness import Figure, Options, Result, child, pairs, percentiles, result, results, scratch
from benchmarks.job import Meter, Spent, expected, open_loop, reached
from genesis import Settings

EVENTS = 200_000
PRODUCERS = 64
LATENCY_S = 5.0
FIGURES = (
    Figure(
        "events_per_s",
        "1/s",
        "ratio >= 0.35, aim 0.6",
        "200,000 events from 64 tasks that each await their receipt, until the last result is durable. Raw: plain sqlite3, "
        "same payload, envelope, tables, dedupe and PRAGMAs, in commits of 100 with synchronous=FULL: one commit takes 100 "
        "events in, the next applies them.",
    ),
    Figure(
        "cpu_us", "us", "", "CPU time of an event in the same runs, threads and kernel included: steadier on a shared machine."
    ),
    Figure(
        "p50_ms",
        "ms",
        "",
        "From the scheduled send to the durable result, in an open loop at half of the rate above, in bursts of one a "
        "millisecond. Raw: the loop above at the same rate, each commit takes what is due.",
    ),
    Figure("p99_ms", "ms", "< 25", "The same, 99 of 100."),
    Figure(
        "raw_kit",
        "1/s",
        "",
        "The queue on sqlite3 that the peers were measured beside (q-100-FULL): no dedupe, no envelope, totals added by SQL.",
    ),
)


async def throughput(folder: str, n: int) -> dict[str, float]:
    meter = Totals.meter = Meter(n + 1)
    async with app.running(f"{folder}/bench.db", settings=Settings()) as node:
        numbers = iter(range(n))

        async def produce() -> None:
            for i in numbers:
                e = meter.take(i)
                await node.send(Added(**e), id=str(i), priority=LEVELS[e["priority"]])

        begin = Spent()
        async with asyncio.TaskGroup() as group:
            for _ in range(PRODUCERS):
                group.create_task(produce())
        await reached(lambda: meter.left == 1, 0.0005)
        await node.send(Added(n, "k0", 0, 0), id=str(n))  # its yes comes with or after the commit of the last result
        spent = begin.per_event(n)
        assert await totals(node) == expected(n)
    return spent


async def latency(folder: str, n: int, rate: float) -> dict[str, float]:
    meter = Totals.meter = Committed(n)
    async with app.running(f"{folder}/bench.db", settings=Settings(), crash=meter) as node:
        sending: set[asyncio.Task[Any]] = set()

        async def send(e: dict[str, Any]) -> None:
            task = asyncio.create_task(node.send(Added(**e), id=str(e["id"]), priority=LEVELS[e["priority"]]))
            sending.add(task)
            task.add_done_callback(sending.discard)

        await open_loop(n, rate, meter, send)
        await meter.done.wait()
        assert await totals(node) == expected(n)
    return percentiles(meter.latencies())


def on_disk(side: Any, **arguments: Any) -> Any:
    """Run a side with a folder of its own."""
    with scratch() as folder:
        return child(side, folder=folder, **arguments)


def measure(options: Options) -> Iterator[Result]:
    n = options.size(EVENTS)
    kits = []

    def raw() -> Any:
        kits.append(on_disk(raw_sqlite.kit, n=n)["events_per_s"])
        return on_disk(raw_sqlite.throughput, n=n)

    runs = list(pairs("sqlite", options.runs, raw, lambda: on_disk(throughput, n=n)))
    rate = median(ours["events_per_s"] for _, ours in runs) / 2
    yield from results("sqlite", FIGURES[:2], runs)
    load = {"n": int(rate * LATENCY_S), "rate": rate}
    runs = list(pairs("sqlite", options.runs, lambda: on_disk(raw_sqlite.latency, **load), lambda: on_disk(latency, **load)))
    yield from results("sqlite", FIGURES[2:4], runs)
    yield result("sqlite", FIGURES[4], kits)
