"""An engine in memory: for tests, for simulation, and for work whose loss with the process is accepted.

It is the model that other engines are checked against. What it stores lives in a `MemoryStorage`, which outlives the
engine, so that a crash is a new engine on the same storage.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum
from itertools import islice

import msgspec

from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.event import Delivery, Pending, Timer, lane_start
from genesis.core.ports import Answer, Batch, Crasher, CrashPoint, Head, StateRow, Traits, Usage
from genesis.engines.memory_rows import Partition

ROW_BYTES = 1024
"""What a row counts for in `usage`: the most that a waiting delivery with a payload of 100 bytes takes."""

_pack_head = msgspec.msgpack.Encoder().encode
_unpack_head = msgspec.msgpack.Decoder(Head).decode


class MemoryStorage:
    """What survives an engine in memory: the disk of a simulated node."""

    def __init__(self, quota_bytes: int = 4 << 30) -> None:
        self.quota_bytes = quota_bytes
        self.partitions: defaultdict[int, Partition] = defaultdict(Partition)


class _Life(Enum):
    OPEN = "open"
    FAILED = "its store failed: claim it again"
    CUT = "its node crashed"


class MemoryEngine:
    """An engine on a `MemoryStorage`.

    With `immediate`, a commit never waits, and a delivery is stored as the object that was handed over; so is the head
    when there is no `crash`, because such a commit cannot fail. Without, a commit takes `delay()` seconds before it
    takes effect, and copies are stored, so that nothing of a crashed node is seen by the next one. A `crash` that
    raises a `StoreError` is a failing disk: the answer is UNKNOWN.
    """

    def __init__(
        self,
        storage: MemoryStorage | None = None,
        *,
        immediate: bool = True,
        crash: Crasher | None = None,
        delay: Callable[[], float] = float,
    ) -> None:
        self.storage = storage or MemoryStorage()
        self.traits = Traits(name="memory", durable=False, immediate=immediate)
        self.last_error: StoreError | None = None
        """Why the last commit was answered with UNKNOWN."""
        self._crash, self._delay = crash, delay
        self._sure = immediate and crash is None
        self._own = None if immediate else _stored_copy
        self._life = _Life.OPEN
        self._under_way: set[int] = set()

    def cut(self) -> None:
        """The node is dead: whatever its remains still call raises `StoreError`, and takes no effect."""
        self._life = _Life.CUT

    def fail(self, error: StoreError) -> None:
        """The store failed: nothing more is stored until the next `claim`."""
        if self._life is _Life.OPEN:
            self._life, self.last_error = _Life.FAILED, error

    async def claim(self, partition: int, owner: str) -> Head:
        """Become the owner under a new epoch."""
        if self._life is _Life.FAILED:
            self._life = _Life.OPEN
        stored = self._partition(partition)
        stored.epoch += 1
        stored.head = snapshot(stored.head)  # what the last owner still counts in its own is not ours
        head = snapshot(stored.head)
        head.last_epoch, head.epoch = head.epoch, stored.epoch
        return head

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """Store the batch and the head, if the epoch is the current one."""
        if not self._sure:
            head = snapshot(head)  # now: the owner goes on counting in its own
        if not self.traits.immediate:
            await self._wait(partition)
        return self.take(partition, head, batch)

    def take(self, partition: int, head: Head, batch: Batch) -> Answer:
        """The moment in which a commit takes effect, or does not. The head is kept as it is."""
        if self._life is _Life.FAILED:
            return Answer.UNKNOWN
        stored = self._partition(partition)
        if head.epoch != stored.epoch or not stored.epoch:
            return Answer.FENCED
        if self._crash is not None:
            return self._commit_at_risk(stored, batch, head, self._crash)
        stored.apply(batch, head, self._own)
        return Answer.COMMITTED

    async def _wait(self, partition: int) -> None:
        assert partition not in self._under_way, f"partition {partition} has a commit under way"
        self._under_way.add(partition)
        try:
            await asyncio.sleep(self._delay())
        finally:
            self._under_way.remove(partition)

    def _commit_at_risk(self, stored: Partition, batch: Batch, head: Head, crash: Crasher) -> Answer:
        try:
            crash(CrashPoint.EXECUTE)
            stored.apply(batch, head, self._own)
            crash(CrashPoint.COMMIT)
        except StoreError as error:
            self.fail(error)
            return Answer.UNKNOWN
        return Answer.COMMITTED

    async def read(self, partition: int, lane: int, after: int, limit: int, wall: float) -> list[Delivery | int]:
        """Deliveries of a lane, in order."""
        first = max(after, lane_start(partition, lane)) + 1
        rows = self._partition(partition).lane(first, lane_start(partition, lane + 1) - 1, limit)
        return [self._copy(row) if row.expires_at is None or row.expires_at >= wall else row.id for row in rows]

    def _copy(self, row: Delivery) -> Delivery:
        return row if self._own is None else self._own(row)

    async def load(self, partition: int, table: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Rows of a named table."""
        return self._partition(partition).tables[table].get(keys)

    async def load_state(self, partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
        """Committed states."""
        return self._partition(partition).state.get(addresses)

    async def scan(self, partition: int, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Rows of a named table, in key order."""
        return self._partition(partition).tables[table].scan("", after, limit)

    async def scan_state(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, StateRow]]:
        """States whose address starts with `prefix`, in address order."""
        return self._partition(partition).state.scan(prefix, after, limit)

    async def scan_pending(self, partition: int, after: int, limit: int) -> list[Pending]:
        """Pending deliveries, in id order. Costs O(n log n) of all pending ones."""
        pending = self._partition(partition).pending
        ids = sorted(id for id in pending if id > after)
        return [_handed_out(pending[id]) for id in ids[:limit]]

    async def behind(self, partition: int, address: str) -> Pending | None:
        """The first held delivery of an address."""
        stored = self._partition(partition)
        held = stored.held.get(address)
        return _handed_out(stored.pending[min(held)]) if held else None

    async def due_pending(self, partition: int, before: float, after: tuple[float, int], limit: int) -> list[Pending]:
        """Pending deliveries that are due, in order of (due, id)."""
        stored = self._partition(partition)
        found: list[Pending] = []
        for row in stored.agenda.until(before, after[0]):
            if len(found) == limit:
                break
            if row > after:
                found.append(_handed_out(stored.pending[row[1]]))
        return found

    async def due_timers(self, partition: int, before: float, limit: int) -> list[Timer]:
        """Timers that are due, in order of due time."""
        stored = self._partition(partition)
        return [stored.timers[key] for _, key in islice(stored.alarms.until(before), limit)]

    def usage(self) -> Usage:
        """An estimate: 1 KiB a row."""
        used = ROW_BYTES * sum(stored.rows for stored in self.storage.partitions.values())
        return Usage(used, max(0, self.storage.quota_bytes - used))

    async def close(self, partition: int, head: Head) -> None:
        """Give up ownership. Nothing is stored if it was lost before."""
        if self._life is _Life.FAILED:
            return
        stored = self._partition(partition)
        if head.epoch == stored.epoch:
            stored.head = snapshot(head)

    def _partition(self, partition: int) -> Partition:
        if self._life is not _Life.OPEN:
            raise StoreFailedError(f"this engine has no store any more: {self._life.value}")
        return self.storage.partitions[partition]


def snapshot(head: Head) -> Head:
    """What the head says now, whatever its owner goes on to count in it."""
    return _unpack_head(_pack_head(head))


def _stored_copy(delivery: Delivery) -> Delivery:
    """What of a delivery survives its process, the attempts of a pending one included."""
    row = copy(delivery)
    row.mark, row.message = b"", None
    return row


def _handed_out(pending: Pending) -> Pending:
    """A pending delivery that its reader may change."""
    return Pending(copy(pending.delivery), pending.reason, pending.due)
