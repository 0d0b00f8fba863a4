"""The raw limits in memory: workers on an `asyncio.PriorityQueue`, written by hand.

One does the same work as Genesis: typed events, each id once, a typed state for each key, a ledger. The other only hands
events over; peers are measured beside it. Both run handlers that cannot fail, and promise nothing.
"""

import asyncio
from typing import Any

import msgspec

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


class Added(msgspec.Struct, frozen=True, gc=False):
    """The event, typed."""

    id: int
    key: str
    amount: int
    priority: int


class Total(msgspec.Struct):
    """The state of a key."""

    total: int = 0


class Keeper:
    """A worker that does the same work: events are checked and known by their ids, states are structs, all is counted."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._queue: asyncio.PriorityQueue[tuple[int, int, Added]] = asyncio.PriorityQueue(ROOM)
        self._known: set[str] = set()
        self._states: dict[str, Total] = {}
        self._accepted, self._duplicate = 0, 0
        self._waiting, self._done = [0] * 5, [0] * 5
        self.task = asyncio.create_task(self._consume())

    async def _consume(self) -> None:
        while True:
            priority, _, added = await self._queue.get()
            state = self._states.get(added.key)
            if state is None:
                state = self._states[added.key] = Total()
            await self._handle(added, state)
            self._waiting[priority] -= 1
            self._done[priority] += 1

    async def _handle(self, added: Added, state: Total) -> None:
        state.total += added.amount
        self._meter.handled(added.id)

    async def put(self, e: dict[str, Any]) -> None:
        added, event_id = msgspec.convert(e, Added), str(e["id"])
        if event_id in self._known:
            self._duplicate += 1
            return
        self._known.add(event_id)
        self._accepted += 1
        self._waiting[added.priority] += 1
        await self._queue.put((added.priority, self._accepted, added))

    @property
    def totals(self) -> dict[str, int]:
        """By key. The ledger must add up."""
        assert self._accepted == sum(self._done) + sum(self._waiting)
        return {key: state.total for key, state in self._states.items()}


async def throughput(n: int) -> dict[str, float]:
    meter = Meter(n)
    return await _until_done(n, meter, Keeper(meter))


async def bare_throughput(n: int) -> dict[str, float]:
    meter = Meter(n)
    return await _until_done(n, meter, Worker(meter))


async def _until_done(n: int, meter: Meter, worker: Worker | Keeper) -> dict[str, float]:
    begin = Spent()
    for i in range(n):
        await worker.put(meter.take(i))
    await meter.done.wait()
    await asyncio.sleep(0)
    spent = begin.per_event(n)
    worker.task.cancel()
    assert worker.totals == expected(n)
    return spent


async def latency(n: int, rate: float) -> dict[str, float]:
    meter = Meter(n)
    worker = Keeper(meter)
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
