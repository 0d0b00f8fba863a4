"""A load on an application, and what it shows: how much gets through, and how long an event takes at half of that.

In: an application on a store of its own, and messages that are sent again and again, each time with a new id. Out: figures.
An event has ended when the last of its deliveries was committed. In the open loop it is as old as the moment at which it
should have been sent, so that a sender who is kept waiting does not hide what he waited.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from random import SystemRandom

from genesis.cli.talk import FAILED, USAGE, Failure, say
from genesis.config import Settings, engine_for
from genesis.core.errors import RefusedError
from genesis.core.event import Delivery
from genesis.core.message import Message
from genesis.core.ports import CrashPoint, Ledger
from genesis.runtime.definition import Definition
from genesis.runtime.life import Life
from genesis.runtime.node import Node

SENDERS = 64
"""Tasks that each send one event after the other's receipt."""
WINDOW = 1024
"""Events that were sent and have not ended, at the most, while the rate is measured: enough to keep everything busy, and few
enough that slow handlers do not leave hours of work behind."""
TICK_S = 0.001
"""The open loop sends all that is due at each tick: a timer for each event would measure the timers."""
WARM_UP = 0.1
"""Share of the open loop that is not counted."""
QUIET_S = 10.0
"""When nothing ends for so long, nothing will."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a load showed."""

    events: int
    events_per_s: float
    """From the first send to the last commit, with senders that wait for their receipts."""
    offered_per_s: float
    """Of the open loop."""
    latencies_s: list[float]
    """Of its events, sorted: from when one should have been sent to the commit of what it did."""
    ledger: Ledger

    def quantile_s(self, q: float) -> float:
        """The latency that a share `q` of the events is at or below."""
        return self.latencies_s[max(0, ceil(q * len(self.latencies_s)) - 1)]


class Meter:
    """Knows when each event ended. It is called along the commit path, as a drill that kills the process would be."""

    def __init__(self) -> None:
        self.life: Life | None = None
        self.sent = self.ended = 0
        self.last_s = 0.0
        """When the last commit that ended an event was durable."""
        self.took: list[tuple[float, float]] = []
        """Of each event that ended: when it was due, and how long it took."""
        self.moved = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._open: dict[str, tuple[float, int]] = {}
        """Of each event that has not ended: when it was due, and how many of its deliveries are left."""
        self._sealed: list[Delivery] = []

    def sends(self, due_s: float, deliveries: int) -> str:
        """An event is about to be sent. Returns its id."""
        event_id = str(self.sent)
        self.sent += 1
        self._open[event_id] = due_s, deliveries
        return event_id

    def __call__(self, point: CrashPoint) -> None:
        """Look at the group that is on its way, and count what ended with it when it is durable."""
        if point is CrashPoint.APPEND:
            pipeline = self.life.pipeline if self.life is not None else None
            group = pipeline.sealed if pipeline is not None else None
            self._sealed = [*group.done, *group.late] if group is not None else []
        elif point is CrashPoint.ANSWER and self._sealed:
            self._count(self._sealed, self._clock())
            self._sealed = []

    def _count(self, deliveries: list[Delivery], now_s: float) -> None:
        before = self.ended
        for delivery in deliveries:
            due_s, left = self._open.get(delivery.event_id, (0.0, 0))
            if left > 1:
                self._open[delivery.event_id] = due_s, left - 1
            elif left:  # else it was caused by another event
                del self._open[delivery.event_id]
                self.took.append((due_s, now_s - due_s))
                self.ended += 1
        if self.ended > before:
            self.last_s = now_s
            self.moved.set()


class Load:
    """Sends to a node that runs."""

    def __init__(self, node: Node, meter: Meter, messages: Sequence[tuple[Message, int]]) -> None:
        """Send these messages, each given with the number of its deliveries."""
        self._node, self._meter, self._messages = node, meter, messages
        self._clock = asyncio.get_running_loop().time

    async def flood(self, seconds: float) -> float:
        """Send as fast as receipts come. Events a second."""
        begin, meter = self._clock(), self._meter

        async def produce() -> None:
            while (now := self._clock()) < begin + seconds:
                while meter.sent - meter.ended >= WINDOW:
                    await self._more()
                await self._send(now)

        async with _together() as group:
            for _ in range(SENDERS):
                group.create_task(produce())
        await self._all_ended()
        return meter.ended / (meter.last_s - begin)

    async def flow(self, rate: float, seconds: float) -> list[float]:
        """Send at a fixed rate, whatever becomes of it. Latencies, sorted, without those of the warm-up, unless that is all."""
        self._meter.took.clear()
        begin, sent, tick, count = self._clock(), 0, 0, max(1, int(rate * seconds))
        async with _together() as group:
            while sent < count:
                due = begin + tick * TICK_S
                await asyncio.sleep(due - self._clock())
                tick += 1
                for _ in range(min(count, ceil(tick * rate * TICK_S)) - sent):
                    group.create_task(self._send(due))
                    sent += 1
        await self._all_ended()
        warm = begin + WARM_UP * count / rate
        counted = [took for due, took in self._meter.took if due >= warm]
        return sorted(counted or [took for _, took in self._meter.took])

    async def _send(self, due_s: float) -> None:
        message, deliveries = self._messages[self._meter.sent % len(self._messages)]
        await self._node.send(message, id=self._meter.sends(due_s, deliveries))

    async def _all_ended(self) -> None:
        while self._meter.ended < self._meter.sent:
            await self._more()

    async def _more(self) -> None:
        """Wait until something more has ended. Raises Failure when nothing does."""
        meter = self._meter
        meter.moved.clear()
        try:
            async with asyncio.timeout(QUIET_S):
                await meter.moved.wait()
        except TimeoutError:
            status = self._node.status()
            paused = f"; {', '.join(sorted(status.paused))} waits for what is unavailable" if status.paused else ""
            raise Failure(
                f"nothing ended for {QUIET_S:g} s: of {meter.sent:,} events {meter.sent - meter.ended:,} have not,"
                f" {status.running:,} run and {status.ledger.in_pending:,} deliveries wait for a retry or their key{paused}",
                FAILED,
            ) from None


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A group of tasks whose first error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def measure(
    definition: Definition, store: Path, settings: Settings, kind: str, lines: Sequence[tuple[str, bytes]], seconds: float
) -> Figures:
    """Load an application on a new store, without its sources.

    Args:
        definition: The application.
        store: Where the store is made.
        settings: Of the node.
        kind: The type of the messages.
        lines: Messages as JSON, each with its place for people.
        seconds: How long each of the two loads lasts.

    Raises:
        Failure: a message does not fit, or events do not end.
        RefusedError: an event was not accepted.
    """
    # A second way to be stopped: what is temporary is removed as after Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    meter = Meter()
    engine = engine_for(str(store), settings)
    life = meter.life = Life(definition, engine, settings.node(), rng=SystemRandom(), crash=meter, sources=False)
    async with Node(life).run() as node:
        load = Load(node, meter, _messages(node, definition, kind, lines))
        say(f"{seconds:g} s as fast as it goes: {SENDERS} senders that wait for their receipts")
        rate = await load.flood(seconds)
        say(f"{seconds:g} s at half of {rate:,.0f} events a second, whatever becomes of them")
        latencies_s = await load.flow(rate / 2, seconds)
        return Figures(meter.ended, rate, rate / 2, latencies_s, node.status().ledger)


def _messages(node: Node, definition: Definition, kind: str, lines: Sequence[tuple[str, bytes]]) -> list[tuple[Message, int]]:
    deliveries = len(definition.routes_of(kind))
    messages = []
    for place, line in lines:
        try:
            messages.append((node.message(kind, line), deliveries))
        except RefusedError as error:
            raise Failure(f"{place}: {error}", USAGE) from error
    return messages
