"""What waits must not weigh: memory of an event that waits in memory, and of a million that wait on disk."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from benchmarks import backlog, raw_queue
from benchmarks.app import Committed
from benchmarks.harness import (
    Figure,
    Options,
    Result,
    child,
    clock,
    copy,
    leave,
    pairs,
    progress,
    result,
    results,
    rss_bytes,
    scratch,
)
from benchmarks.job import reached
from genesis import Settings

EVENTS, DRAINED = 200_000, 800_000
MIB = 1 << 20
FIGURES = (
    Figure(
        "bytes_per_event",
        "bytes",
        "<= 1024",
        "Memory that grows with each event (payload of 100 bytes, ids deduped) that waits in the memory engine while every "
        "handler is stopped. Raw: dicts in an unbounded asyncio.PriorityQueue.",
    ),
    Figure(
        "drain_rss_mib",
        "MiB",
        "flat: ratio near 1",
        "Memory of the process after it drained 800,000 of 1,000,000 events that waited on SQLite, each of its own key. "
        "Raw: the same process after the first 400,000, when its caches are full.",
    ),
    Figure(
        "drain_last_quarter",
        "1/s",
        "steady: ratio near 1",
        "Rate of the last quarter of those 800,000. Raw: rate of the first quarter, in the same process.",
    ),
)


async def in_memory(n: int) -> None:
    backlog.Accounts.shut = True
    async with backlog.app.running("memory:", settings=Settings()) as node:
        before = rss_bytes()
        for i, order in enumerate(backlog.orders(0, n)):
            await node.send(order, id=str(i))
        await reached(lambda: node.status().ledger.waiting == n)
        leave({"bytes_per_event": (rss_bytes() - before) / n})


class Drain(Committed):
    """Notes time and memory at each quarter of what is drained."""

    def __init__(self, n: int) -> None:
        super().__init__(1)
        self._quarter = n // 4
        self._count = 0
        self.marks: list[tuple[float, int]] = []

    def durable(self, events: list[int]) -> None:
        self._count += len(events)
        if self._count >= len(self.marks) * self._quarter:
            self.marks.append((clock(), rss_bytes()))
            if len(self.marks) == 5:
                self.done.set()


async def drain(path: str, n: int) -> None:
    meter = backlog.Accounts.meter = Drain(n)
    async with backlog.app.running(path, settings=Settings(), crash=meter):
        await meter.done.wait()
        marks = meter.marks
        times = [later[0] - earlier[0] for earlier, later in pairwise(marks)]
        leave({"rss_mib": [rss / MIB for _, rss in marks], "rates": [n / 4 / seconds for seconds in times]})


def drained(n: int, events: int) -> dict[str, Any]:
    with scratch() as folder:
        copy(backlog.ready(n), folder)
        return child(drain, path=f"{folder}/backlog.db", n=events)


def measure(options: Options) -> Iterator[Result]:
    n = options.size(EVENTS)
    runs = list(pairs("waiting", options.runs, lambda: child(raw_queue.waiting, n=n), lambda: child(in_memory, n=n)))
    yield from results("waiting", FIGURES[:1], runs)
    drains = []
    for run in range(1, options.runs + 1):
        drains.append(drained(options.size(backlog.EVENTS), options.size(DRAINED)))
        rss, rates = (", ".join(f"{number:,.0f}" for number in drains[-1][what]) for what in ("rss_mib", "rates"))
        progress(f"waiting {run}/{options.runs}: MiB at the quarters {rss}; events/s in them {rates}")
    yield result("waiting", FIGURES[1], [d["rss_mib"][-1] for d in drains], [d["rss_mib"][2] for d in drains])
    yield result("waiting", FIGURES[2], [d["rates"][-1] for d in drains], [d["rates"][0] for d in drains])
