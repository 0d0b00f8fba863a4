"""Events through Genesis in memory, one `await node.send()` each, beside a worker on a priority queue."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks import raw_queue
from benchmarks.app import LEVELS, Added, Committed, Totals, app, totals
from benchmarks.harness import Figure, Options, Result, child, pairs, percentiles, result, results
from benchmarks.job import Meter, Spent, expected, open_loop, reached
from genesis import Settings

EVENTS = 100_000
LATENCY_S = 3.0
FIGURES = (
    Figure(
        "events_per_s",
        "1/s",
        "ratio >= 0.4, aim 0.8",
        "100,000 events, one `await node.send()` each, keyed state (1,000 keys), 5 priorities, ledger and dedupe on, until all "
        "are done. Raw: a worker written by hand on an asyncio.PriorityQueue of 1,000 that does the same work (typed events, "
        "ids seen once, a typed state for each key, counters).",
    ),
    Figure(
        "cpu_us", "us", "", "CPU time of an event in the same runs, threads and kernel included: steadier on a shared machine."
    ),
    Figure(
        "beside_bare_per_s",
        "1/s",
        "ratio >= 0.4, aim 0.8",
        "The same events beside a bare worker that hands dicts over and adds them up, with no ids, types or counters: what "
        "peers are measured beside.",
    ),
    Figure(
        "p50_ms",
        "ms",
        "",
        "From the scheduled send to the commit, in an open loop at half of the rate above, in bursts of one a millisecond. "
        "Raw: to the end of the handler, at the same rate.",
    ),
    Figure("p99_ms", "ms", "", "The same, 99 of 100."),
)


async def throughput(n: int) -> dict[str, float]:
    meter = Totals.meter = Meter(n)
    async with app.running("memory:", settings=Settings()) as node:
        begin = Spent()
        for i in range(n):
            e = meter.take(i)
            await node.send(Added(**e), id=str(i), priority=LEVELS[e["priority"]])
        await meter.done.wait()
        await reached(lambda: node.status().ledger.done == n)
        spent = begin.per_event(n)
        assert await totals(node) == expected(n)
    return spent


async def latency(n: int, rate: float) -> dict[str, float]:
    meter = Totals.meter = Committed(n)
    async with app.running("memory:", settings=Settings(), crash=meter) as node:

        async def send(e: dict[str, Any]) -> None:
            await node.send(Added(**e), id=str(e["id"]), priority=LEVELS[e["priority"]])

        await open_loop(n, rate, meter, send)
        await meter.done.wait()
        assert await totals(node) == expected(n)
    return percentiles(meter.latencies())


def measure(options: Options) -> Iterator[Result]:
    n = options.size(EVENTS)
    runs = list(pairs("memory", options.runs, lambda: child(raw_queue.throughput, n=n), lambda: child(throughput, n=n)))
    rate = median(ours["events_per_s"] for _, ours in runs) / 2
    yield from results("memory", FIGURES[:2], runs)
    runs = list(pairs("bare", options.runs, lambda: child(raw_queue.bare_throughput, n=n), lambda: child(throughput, n=n)))
    rates = [[side["events_per_s"] for side in sides] for sides in zip(*runs, strict=True)]
    yield result("memory", FIGURES[2], rates[1], rates[0])
    load = {"n": int(rate * LATENCY_S), "rate": rate}
    runs = list(pairs("memory", options.runs, lambda: child(raw_queue.latency, **load), lambda: child(latency, **load)))
    yield from results("memory", FIGURES[3:], runs)
