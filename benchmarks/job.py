"""The job of the throughput benchmarks, the same on every side: event i adds an amount to one of 1,000 keys.

Standard library only, so that a raw side imports nothing of Genesis. The job is the one that the peers were measured with.
"""

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

KEYS = 1000
TICK_S = 0.001
"""An open loop sends all that is due at each tick: a timer for each event would measure the timers."""
WARM_UP_S = 0.5
"""Events sent before this are not counted in latencies."""
clock = time.perf_counter


def event(i: int) -> dict[str, Any]:
    return {"id": i, "key": f"k{i * 7919 % KEYS}", "amount": i % 97 + 1, "priority": i * 31 % 5}


def expected(n: int) -> dict[str, int]:
    """What the totals of n events must be."""
    totals: dict[str, int] = {}
    for i in range(n):
        e = event(i)
        totals[e["key"]] = totals.get(e["key"], 0) + e["amount"]
    return totals


class Spent:
    """Time and CPU time since it was made."""

    def __init__(self) -> None:
        self._clock, self._cpu = clock(), time.process_time()

    def per_event(self, n: int) -> dict[str, float]:
        """After n events: their rate, and the CPU time of one, which other work on the machine hardly changes."""
        return {"events_per_s": n / (clock() - self._clock), "cpu_us": 1e6 * (time.process_time() - self._cpu) / n}


class Meter:
    """Notes when each event was sent and how long it took."""

    def __init__(self, n: int) -> None:
        self.sent = array("d", bytes(8 * n))
        self.took = array("d", bytes(8 * n))
        self.left = n
        self.done = asyncio.Event()

    def take(self, i: int) -> dict[str, Any]:
        """An event, sent now."""
        made = event(i)
        self.sent[i] = clock()
        return made

    def handled(self, i: int) -> None:
        self.took[i] = clock() - self.sent[i]
        self.left -= 1
        if not self.left:
            self.done.set()

    def latencies(self) -> list[float]:
        """Seconds from the scheduled send of each event to its end, without the warm-up."""
        begin = self.sent[0] + WARM_UP_S
        return [took for sent, took in zip(self.sent, self.took, strict=True) if sent >= begin]


async def reached(condition: Callable[[], bool], every_s: float = 0.0) -> None:
    """Wait for something that nobody tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(every_s)


def due_by(tick: int, rate: float, n: int) -> int:
    """How many of n events are due when the tick begins."""
    return min(n, int(tick * rate * TICK_S))


async def open_loop(n: int, rate: float, meter: Meter, send: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Send n events at a fixed rate, whatever becomes of them.

    The time of an event is when it should have been sent: a side that keeps the sender waiting pays for it.
    """
    begin, tick, first = clock(), 0, 0
    while first < n:
        due = begin + tick * TICK_S
        wait = due - clock()
        if wait > 0:
            await asyncio.sleep(wait)
        tick += 1
        last = due_by(tick, rate, n)
        for i in range(first, last):
            made = event(i)
            meter.sent[i] = due
            await send(made)
        first = last
