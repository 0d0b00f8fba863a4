"""Where a partition stands, as numbers for people and machines; and the housekeeper that stores them once a second."""

from __future__ import annotations

import asyncio
import os
import socket
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from genesis.core.event import Priority
from genesis.core.message import encode
from genesis.core.ports import Ledger
from genesis.runtime.pipeline import Pipeline
from genesis.runtime.policy import policies

if TYPE_CHECKING:
    from genesis.runtime.sink import SinkRunner
    from genesis.runtime.slot import Slots
    from genesis.runtime.source import SourceRunner

PERIOD_S = 1.0
CIRCUITS_MAX = 100
"""Circuits that are told of: a person reads no more."""


class SinkStatus(msgspec.Struct):
    """How a sink fares."""

    state: str
    """``running``, ``failed`` (it is called again at `next_at`), or ``stopped``."""
    waiting: int
    """Deliveries in the outbox."""
    error: str = ""
    """Of the last call, if that failed."""
    since: float | None = None
    """Since when every call has failed, wall clock."""
    next_at: float | None = None


class Status(msgspec.Struct):
    """A snapshot of one partition."""

    app: str
    pid: int
    host: str
    at: float
    ledger: Ledger
    waiting: dict[str, int]
    """Deliveries in lanes, by priority."""
    born: dict[str, int]
    ended: dict[str, int]
    latency_s: dict[str, dict[str, float]]
    """By priority: p50, p99 and max from birth to commit of what ended since the start, seconds."""
    running: int
    stuck: int
    parked: int
    paused: dict[str, float]
    """Handlers whose dependency is down, and seconds until the next probe."""
    refuses: str
    """Why nothing new is accepted; empty while it is."""
    sources: dict[str, dict[str, str]]
    imbalance: str
    """What does not add up in the ledger; empty when all does."""
    paused_since: dict[str, float] = {}
    """When the housekeeper first saw a handler paused that still is, seconds since the epoch."""
    sinks: dict[str, SinkStatus] = {}
    circuits: dict[str, tuple[str, str]] = {}
    """State and reason of the circuits that are not CLOSED, 100 at most, by their policy and shard."""


def status_of(pipeline: Pipeline, slots: Slots | None, sources: list[SourceRunner], sinks: list[SinkRunner]) -> Status:
    """Look at a partition."""
    head, now = pipeline.head, pipeline.clock.now()
    names = [priority.name for priority in Priority]
    waiting = head.waiting_by_lane
    ledger: Ledger = msgspec.structs.replace(head.ledger)
    wall, refusal = pipeline.clock.wall(), pipeline.admission.ask(ledger.waiting)
    return Status(
        app=pipeline.definition.name,
        pid=os.getpid(),
        host=socket.gethostname(),
        at=wall,
        ledger=ledger,
        waiting={name: waiting[2 * i] + waiting[2 * i + 1] for i, name in enumerate(names)},
        born=dict(zip(names, head.born_by_priority, strict=True)),
        ended=dict(zip(names, head.ended_by_priority, strict=True)),
        latency_s={
            name: {"p50": sketch.quantile(0.5), "p99": sketch.quantile(0.99), "max": sketch.max}
            for name, sketch in zip(names, pipeline.latency, strict=True)
            if sketch.count
        },
        running=len(pipeline.running),
        stuck=slots.stuck if slots is not None else 0,
        parked=pipeline.pending.parked,
        paused={route: max(0.0, until - now) for route, until in pipeline.lanes.paused().items()},
        refuses=refusal[0] if refusal is not None else "",
        sources={runner.source.name: {"state": runner.state, "error": runner.error} for runner in sources},
        imbalance=ledger.imbalance(),
        sinks={runner.sink.name: runner.status for runner in sinks},
        circuits=dict(islice((found for policy in policies() for found in policy.troubles().items()), CIRCUITS_MAX)),
    )


class Readiness(msgspec.Struct, frozen=True):
    """Whether events would be accepted now. Each field says why not, and is empty when all is well."""

    store: str = ""
    intake: str = ""


class Housekeeper:
    """Once a second: tells the gate how much room there is, forgets old ids, and stores the status when something changed."""

    def __init__(self, pipeline: Pipeline, slots: Slots, sources: list[SourceRunner], sinks: list[SinkRunner]) -> None:
        self._pipeline, self._slots, self._sources, self._sinks = pipeline, slots, sources, sinks
        self._last: Any = None
        self._paused_since: dict[str, float] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(PERIOD_S)

    def look(self) -> None:
        """One look."""
        pipeline = self._pipeline
        usage = pipeline.engine.usage()
        pipeline.admission.tell_usage(usage.used_bytes, usage.free_bytes)
        pipeline.forget_ids()
        if not pipeline.engine.traits.durable:
            return
        status = status_of(pipeline, self._slots, self._sources, self._sinks)
        status.paused_since = {route: self._paused_since.get(route, status.at) for route in status.paused}
        self._paused_since = status.paused_since
        edges = status.sources, status.sinks, status.circuits
        seen = (status.ledger, status.running, status.stuck, edges, sorted(status.paused), bool(status.refuses))
        if seen != self._last:
            self._last = seen
            pipeline.group.batch.put("fact", "status", encode(status))
            pipeline.group.rows += 1
            pipeline.work.set()
