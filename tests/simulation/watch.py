"""What must be so at every moment, looked at while a world runs: memory and waiting are bounded, and the ledger adds up."""

from __future__ import annotations

import asyncio
from typing import Any

from genesis.chaos import faults
from genesis.chaos.world import World
from genesis.layers.recovery.overlay import ROW_BYTES
from genesis.layers.recovery.pending import KEY_MAX
from genesis.runtime.life import NodeSettings
from genesis.runtime.pipeline import Pipeline
from tests.simulation.clients import Clients

LOOK_S, CALM_LOOK_S = 0.25, 5.0
READ_BYTES = 140_000
"""A window is over its bound by one group or one read of 256 rows at most: those of this workload are smaller than so."""
TASKS = 120
"""A process has so many beside its slots: what it is made of, and calls of clients, those that were given up included."""
CALMED_S, OVERDUE_S = 60.0, 25.0
"""So long after the last fault, no timer is overdue for longer than so: the loader looks every 15 s."""
TICK_LANE = 4
"""Begun work of normal priority: nothing but ticks, and replays."""


class Watched(World):
    """A world that remembers the latest time that any clock of it has shown."""

    _highest = 0.0

    def highest_wall(self) -> float:
        """That time."""
        self._highest = max(self._highest, *(host.wall() for host in self.hosts))
        return self._highest

    def lowest_wall(self) -> float:
        """What the clock says that is behind all others."""
        return min(host.wall() for host in self.hosts)

    def inject(self, fault: faults.AnyFault) -> None:
        """A clock may be set back now."""
        self.highest_wall()
        super().inject(fault)


class Watch:
    """Looks again and again."""

    def __init__(self, world: Watched, settings: NodeSettings, clients: Clients) -> None:
        self._world, self._settings, self._clients = world, settings, clients
        self.wrong: dict[str, str] = {}
        """The first complaint of each kind."""
        self.every_s = LOOK_S
        self.calm_at: float | None = None
        """Virtual time from which on nothing goes wrong any more."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()
            await asyncio.sleep(self.every_s)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.calm_at, self.every_s = self._world.loop.time(), CALM_LOOK_S

    def look(self) -> None:
        """One look, at all that lives."""
        self._look_at_store()
        for host in self._world.hosts:
            process = host.process
            if process is not None and process.node is not None:
                life = process.node._life
                if life.pipeline is not None and life.slots is not None:
                    self._look_at(life.pipeline, life.slots.stuck, len(process.remains))

    def _bound(self, what: str, found: float, most: float) -> None:
        if found > most:
            at = self._world.loop.time()
            self.wrong.setdefault(what, f"{what}: {found} at {at:.2f} s, the bound is {most}")

    def _look_at_store(self) -> None:
        ledger = self._clients.store.head().ledger
        if imbalance := ledger.imbalance():
            self.wrong.setdefault("imbalance", imbalance)
        highest = self._world.highest_wall()
        over = sum(1 for until in self._clients.lives.values() if until <= highest)
        self._bound("expired before their time", ledger.expired, over)
        if self.calm_at is not None and self._world.loop.time() > self.calm_at + CALMED_S:
            first = min((timer.due for timer in self._clients.store.timers()), default=highest)
            self._bound("overdue timers (s)", self._world.lowest_wall() - first, OVERDUE_S)
        self._bound("ticks in their lane", self._clients.store.head().waiting_by_lane[TICK_LANE], 1 + ledger.replay)

    def _look_at(self, pipeline: Pipeline, stuck: int, tasks: int) -> None:
        settings, asking = self._settings, pipeline.asks.in_handlers
        for lane in pipeline.lanes.lanes:
            self._bound("bytes in a window", lane.bytes, settings.window_bytes + READ_BYTES)
            self._bound("bytes that a window lacks", -lane.bytes, 0)
        self._bound("handlers at once", len(pipeline.running), settings.slots + asking)
        self._bound("tasks", tasks, settings.slots + asking + stuck + TASKS)
        for address in pipeline.pending.keys:
            self._bound("pending of a key", pipeline.pending.count(address), KEY_MAX)
        self._look_at_cache(pipeline.overlay)

    def _look_at_cache(self, overlay: Any) -> None:
        """What is committed is kept within the bound, the youngest aside."""
        rows = [row for at, row in overlay._newest.items() if at not in overlay._open and at not in overlay._sealed]
        weights = [len(body) + ROW_BYTES for _, body in rows]
        self._bound("cached states", sum(weights), self._settings.cache_bytes + max(weights, default=0))
