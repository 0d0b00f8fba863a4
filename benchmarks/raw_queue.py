"""The raw limit in memory: a worker on an `asyncio.PriorityQueue`, written by hand. It promises nothing."""

import asyncio
from typing import Any

from benchmarks.harness import percentiles, rss_bytes
from benchmarks.job import Meter, Spent, expected, open_loop

ROOM = 1000


class Worker:
    """A bounded queue, and the task that empties it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._queue: asyncio.PriorityQueue[tuple[int, int, dict[str, Any]]] = asyncio.PriorityQueue(ROOM)
        self.totals: dict[str, int] = {}
        self.task = asyncio.create_task(self._consume())

    async def _consume(self) -> None:
        while True:
            item = await self._queue.get()
            await self._handle(item[2])

    async def _handle(self, e: dict[str, Any]) -> None:
        key = e["key"]
        self.totals[key] = self.totals.get(key, 0) + e["amount"]
        self._meter.handled(e["id"])

    async def put(self, e: dict[str, Any]) -> None:
        await self._queue.put((e["priority"], e["id"], e))


async def throughput(n: int) -> dict[str, float]:
    meter = Meter(n)
    worker = Worker(meter)
    begin = Spent()
    for i in range(n):
        await worker.put(meter.take(i))
    await meter.done.wait()
    spent = begin.per_event(n)
    worker.task.cancel()
    assert worker.totals == expected(n)
    return spent


async def latency(n: int, rate: float) -> dict[str, float]:
    meter = Meter(n)
    worker = Worker(meter)
    await open_loop(n, rate, meter, worker.put)
    await meter.done.wait()
    worker.task.cancel()
    return percentiles(meter.latencies())


async def waiting(n: int) -> dict[str, float]:
    """Memory of what waits in an unbounded queue."""
    queue: asyncio.PriorityQueue[tuple[int, int, dict[str, Any]]] = asyncio.PriorityQueue()
    before = rss_bytes()
    for i in range(n):
        await queue.put((2, i, {"id": i, "key": f"account-{i:07}", "text": f"{i:08}{'.' * 40}"}))
    return {"bytes_per_event": (rss_bytes() - before) / n}
