"""A store as a node sees it through a network and a disk that break: the contract of an engine, with every liberty it leaves.

An operation may be slow, fail before or after it took effect, be answered late, reach the store twice, or be answered with
UNKNOWN. What is stored lives in a `Store`, which nodes share and which outlives them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from genesis.chaos import faults as f
from genesis.chaos.loop import VirtualLoop
from genesis.chaos.stores import Store
from genesis.core.errors import StoreFailedError
from genesis.core.event import Delivery, Pending, Timer
from genesis.core.ports import Answer, Batch, CrashPoint, Head, StateRow, Usage
from genesis.engines.memory import snapshot

FAST_S = (0.0002, 0.002)
"""Shortest and longest time of an operation when nothing is wrong: a local disk, or a network of one hall."""
ANSWER_S = 1.0
"""How long some wait for the answer to a commit while the store is out of reach; others wait until it is back."""


class Weather:
    """What is wrong with the store of one node right now. A restart of the node does not change it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Nothing is wrong. `changed` is called when the store is out of reach, and when it is back."""
        self._changed = changed
        self.reachable = asyncio.Event()
        self.reachable.set()
        self.delay_s = 0.0
        self.full = False
        self.failing_commits: list[bool] = []
        """For each of the next commits, whether it is stored before it fails."""
        self.late_s: list[float] = []
        self.twice = 0
        self.failing_reads = 0

    def clear(self) -> None:
        """Nothing is wrong."""
        self.reachable.set()
        self.delay_s, self.full, self.twice, self.failing_reads = 0.0, False, 0, 0
        self.failing_commits.clear()
        self.late_s.clear()

    def suffer(self, fault: f.AnyFault, loop: asyncio.AbstractEventLoop) -> bool:
        """Let a fault of the store happen; what lasts ends by itself. False: it is none of the store's."""
        match fault:
            case f.CutOff(seconds=seconds):
                self.reachable.clear()
                self._changed()
                loop.call_later(seconds, self._reconnect)
            case f.SlowStore(seconds=seconds, delay_s=delay_s):
                self.delay_s = delay_s
                loop.call_later(seconds, setattr, self, "delay_s", 0.0)
            case f.StoreFull(seconds=seconds):
                self.full = True
                loop.call_later(seconds, setattr, self, "full", False)
            case f.CommitFails(stored=stored):
                self.failing_commits.append(stored)
            case f.CommitLate(delay_s=delay_s):
                self.late_s.append(delay_s)
            case f.CommitTwice():
                self.twice += 1
            case f.ReadFails():
                self.failing_reads += 1
            case _:
                return False
        return True

    def _reconnect(self) -> None:
        self.reachable.set()
        self._changed()


class Owner(Protocol):
    """Told what becomes of the commits of one process."""

    def tried(self, head: Head) -> None:
        """The store works on a commit."""
        ...

    def applied(self, head: Head) -> None:
        """It took effect, whoever gets to know of it."""
        ...

    def claimed(self, head: Head) -> None:
        """A new owner found this."""
        ...


class ModelEngine:
    """An engine of one node, in the weather of that node."""

    def __init__(
        self,
        store: Store,
        weather: Weather,
        rng: Random,
        loop: VirtualLoop,
        *,
        crash: Callable[[CrashPoint], None],
        owner: Owner,
    ) -> None:
        """Describe it.

        Args:
            store: What is stored.
            weather: What is wrong.
            rng: Draws how long operations take.
            loop: Where they take so long.
            crash: Called at named points of the commit path.
            owner: Told of each commit and claim.
        """
        self._shared, self._store = store, store.engine(self._pass)
        self._weather, self._rng, self._loop = weather, rng, loop
        self._crash, self._owner = crash, owner
        self._head: Head | None = None
        self._commits = False
        self.traits = self._store.traits

    def cut(self) -> None:
        """The node is dead: whatever its remains still call takes no effect."""
        self._store.cut()

    def _pass(self, point: CrashPoint) -> None:
        if point is CrashPoint.COMMIT and self._head is not None:
            self._owner.applied(self._head)
        self._crash(point)

    async def _arrive(self) -> None:
        """What is asked for reaches the store."""
        weather = self._weather
        took_s = self._rng.uniform(*FAST_S)
        if weather.delay_s:
            took_s += weather.delay_s * self._rng.random()
        await self._loop.nap(took_s)
        while not weather.reachable.is_set():
            await weather.reachable.wait()

    async def _read(self) -> None:
        await self._arrive()
        if self._weather.failing_reads:
            self._weather.failing_reads -= 1
            raise StoreFailedError("a read failed")

    # --- ownership and commits --------------------------------------------------------------------------------------

    async def claim(self, partition: int, owner: str) -> Head:
        """Become the owner under a new epoch."""
        await self._arrive()
        head = await self._store.claim(partition, owner)
        self._owner.claimed(head)
        return head

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """Store the batch and the head, if the epoch is the current one."""
        assert not self._commits, "a commit is under way"
        self._commits = True
        try:
            return await self._commit(partition, snapshot(head), batch)
        finally:
            self._commits = False

    async def _commit(self, partition: int, frozen: Head, batch: Batch) -> Answer:
        weather = self._weather
        if not weather.reachable.is_set() and self._rng.random() < 0.5:
            await asyncio.sleep(ANSWER_S)
            if not weather.reachable.is_set():
                return self._unknown()
        await self._arrive()
        fails = weather.failing_commits.pop(0) if weather.failing_commits else None
        if fails is False:
            return self._unknown()
        answer = self._take(partition, frozen, batch)
        if weather.twice and answer is Answer.COMMITTED:
            weather.twice -= 1
            stored = self._shared.head()
            if (stored.epoch, stored.commit_id) < (frozen.epoch, frozen.commit_id):  # else it was here before
                answer = self._take(partition, frozen, batch)
        if fails is True and answer is Answer.COMMITTED:
            return self._unknown()
        if weather.late_s:
            await asyncio.sleep(weather.late_s.pop(0))
        return answer

    def _take(self, partition: int, head: Head, batch: Batch) -> Answer:
        self._head = head
        self._owner.tried(head)
        return self._store.take(partition, head, batch)

    def _unknown(self) -> Answer:
        self._store.fail(StoreFailedError("nobody knows what became of the commit"))
        return Answer.UNKNOWN

    async def close(self, partition: int, head: Head) -> None:
        """Give up ownership. Nothing is stored if it was lost before."""
        await self._arrive()
        await self._store.close(partition, head)

    # --- reads ------------------------------------------------------------------------------------------------------

    async def read(self, partition: int, lane: int, after: int, limit: int, wall: float) -> list[Delivery | int]:
        """Deliveries of a lane, in order."""
        await self._read()
        return await self._store.read(partition, lane, after, limit, wall)

    async def load(self, partition: int, table: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Rows of a named table."""
        await self._read()
        return await self._store.load(partition, table, keys)

    async def load_state(self, partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
        """Committed states."""
        await self._read()
        return await self._store.load_state(partition, addresses)

    async def scan(self, partition: int, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Rows of a named table, in key order."""
        await self._read()
        return await self._store.scan(partition, table, after, limit)

    async def scan_state(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, StateRow]]:
        """States whose address starts with `prefix`, in address order."""
        await self._read()
        return await self._store.scan_state(partition, prefix, after, limit)

    async def scan_pending(self, partition: int, after: int, limit: int) -> list[Pending]:
        """Pending deliveries, in id order."""
        await self._read()
        return await self._store.scan_pending(partition, after, limit)

    async def behind(self, partition: int, address: str) -> Pending | None:
        """The first held delivery of an address."""
        await self._read()
        return await self._store.behind(partition, address)

    async def due_pending(self, partition: int, before: float, after: tuple[float, int], limit: int) -> list[Pending]:
        """Pending deliveries that are due, in order of (due, id)."""
        await self._read()
        return await self._store.due_pending(partition, before, after, limit)

    async def due_timers(self, partition: int, before: float, limit: int) -> list[Timer]:
        """Timers that are due, in order of due time."""
        await self._read()
        return await self._store.due_timers(partition, before, limit)

    def usage(self) -> Usage:
        """Room used and left."""
        usage = self._store.usage()
        return Usage(usage.used_bytes, 0) if self._weather.full else usage
