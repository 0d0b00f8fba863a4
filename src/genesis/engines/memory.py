"""An engine in memory: for tests, for simulation, and for work whose loss with the process is accepted.

It is the model that other engines are checked against. What it stores lives in a `MemoryStorage`, which outlives the
engine, so that a crash is a new engine on the same storage.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from enum import Enum
from itertools import islice, takewhile
from math import inf
from typing import Generic, TypeVar

import msgspec

from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.event import Delivery, Pending, Reason, Timer, lane_start
from genesis.core.ports import TABLES, Answer, Batch, Crasher, CrashPoint, Head, StateRow, Traits, Usage

CHUNK_BITS = 10
"""Deliveries are kept in chunks of 1,024 neighbouring ids: a finished chunk gives its memory back at once."""
SLOT_S = 16.0
"""Due times are kept in slots of this many seconds."""
ROW_BYTES = 1024
"""What a row counts for in `usage`: the most that a waiting delivery with a payload of 100 bytes takes."""

_pack_head = msgspec.msgpack.Encoder().encode
_unpack_head = msgspec.msgpack.Decoder(Head).decode

T = TypeVar("T")
K = TypeVar("K", int, tuple[str, str])


class _Table(Generic[T]):
    """Rows by key. The order of the keys is found when somebody scans, and kept until a key comes or goes."""

    __slots__ = ("_order", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, T] = {}
        self._order: list[str] | None = None

    def update(self, rows: dict[str, T]) -> None:
        before = len(self.rows)
        self.rows.update(rows)
        if len(self.rows) != before:
            self._order = None

    def remove(self, key: str) -> None:
        if self.rows.pop(key, None) is not None:
            self._order = None

    def get(self, keys: Sequence[str]) -> dict[str, T]:
        rows = self.rows
        return {key: rows[key] for key in keys if key in rows}

    def scan(self, prefix: str, after: str, limit: int) -> list[tuple[str, T]]:
        if self._order is None:
            self._order = sorted(self.rows)
        start = max(bisect_left(self._order, prefix), bisect_right(self._order, after))
        page = self._order[start : start + limit]
        return [(key, self.rows[key]) for key in takewhile(lambda key: key.startswith(prefix), page)]


class _Agenda(Generic[K]):
    """Keys by due time: cheap to set and to drop, read in order from the front."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[float, dict[K, float]] = {}

    def set(self, key: K, due: float) -> None:
        self._slots.setdefault(due // SLOT_S, {})[key] = due

    def drop(self, key: K, due: float) -> None:
        number = due // SLOT_S
        del self._slots[number][key]
        if not self._slots[number]:
            del self._slots[number]

    def until(self, before: float, after: float = -inf) -> Iterator[tuple[float, K]]:
        """Pairs (due, key) in order, from the slot of `after` on."""
        for number in sorted(n for n in self._slots if n * SLOT_S <= before and (n + 1) * SLOT_S > after):
            for due, key in sorted((due, key) for key, due in self._slots[number].items()):
                if due > before:
                    return
                yield due, key


class _Partition:
    """What is stored of one partition."""

    __slots__ = ("agenda", "alarms", "chunks", "epoch", "head", "held", "pending", "state", "tables", "timers")

    def __init__(self) -> None:
        self.epoch = 0
        self.head = Head.fresh()
        self.chunks: dict[int, dict[int, Delivery]] = {}
        """Waiting deliveries of all lanes, by ``id >> CHUNK_BITS`` and id."""
        self.pending: dict[int, Pending] = {}
        self.held: dict[str, set[int]] = {}
        self.agenda: _Agenda[int] = _Agenda()
        self.state: _Table[StateRow] = _Table()
        self.timers: dict[tuple[str, str], Timer] = {}
        self.alarms: _Agenda[tuple[str, str]] = _Agenda()
        self.tables: dict[str, _Table[bytes]] = {name: _Table() for name in TABLES}

    def apply(self, batch: Batch, head: Head, own: Callable[[Delivery], Delivery] | None) -> None:
        """Take in a batch. `own` makes the copy of a delivery that is stored; None stores the object itself."""
        chunks = self.chunks
        for delivery in batch.append:
            id = delivery.id
            row = delivery if own is None else own(delivery)
            try:
                chunks[id >> CHUNK_BITS][id] = row
            except KeyError:
                chunks[id >> CHUNK_BITS] = {id: row}
        if batch.pend:
            self._pend(batch.pend, own or copy)
        if batch.done:
            self._done(batch.done)
        if batch.unpend:
            self._unpend(batch.unpend)
        if batch.state:
            self.state.update(batch.state)
        if batch.timers:
            self._set_timers(batch.timers)
        if batch.tables:
            self._put_tables(batch.tables)
        self.head = head

    def _done(self, ids: list[int]) -> None:
        chunks = self.chunks
        for id in ids:
            try:
                chunk = chunks[id >> CHUNK_BITS]
                del chunk[id]
            except KeyError:
                continue
            if not chunk:
                del chunks[id >> CHUNK_BITS]

    def _pend(self, rows: list[Pending], own: Callable[[Delivery], Delivery]) -> None:
        ids = [pending.delivery.id for pending in rows]
        self._done(ids)
        self._unpend(ids)
        for pending in rows:
            row = own(pending.delivery)
            row.pending = pending.reason
            self.pending[row.id] = Pending(row, pending.reason, pending.due)
            if pending.due is not None:
                self.agenda.set(row.id, pending.due)
            if pending.reason == Reason.HELD:
                self.held.setdefault(row.address, set()).add(row.id)

    def _unpend(self, ids: list[int]) -> None:
        for id in ids:
            row = self.pending.pop(id, None)
            if row is None:
                continue
            if row.due is not None:
                self.agenda.drop(id, row.due)
            if row.reason == Reason.HELD:
                held = self.held[row.delivery.address]
                held.remove(id)
                if not held:
                    del self.held[row.delivery.address]

    def _set_timers(self, timers: dict[tuple[str, str], Timer | None]) -> None:
        for key, timer in timers.items():
            old = self.timers.pop(key, None)
            if old is not None:
                self.alarms.drop(key, old.due)
            if timer is not None:
                self.timers[key] = timer
                self.alarms.set(key, timer.due)

    def _put_tables(self, tables: dict[str, dict[str, bytes | None]]) -> None:
        for name, rows in tables.items():
            table = self.tables[name]
            table.update({key: value for key, value in rows.items() if value is not None})
            for key, value in rows.items():
                if value is None:
                    table.remove(key)

    def lane(self, first: int, last: int, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries with ids from `first` to `last`, in order."""
        found: list[Delivery] = []
        low, high = first >> CHUNK_BITS, last >> CHUNK_BITS
        for number in sorted(n for n in self.chunks if low <= n <= high):
            chunk = self.chunks[number]
            ids = sorted(chunk)
            start = bisect_left(ids, first)
            found += [chunk[id] for id in ids[start : start + limit - len(found)] if id <= last]
            if len(found) == limit:
                break
        return found

    @property
    def rows(self) -> int:
        """Rows of every kind."""
        waiting = sum(map(len, self.chunks.values())) + len(self.pending)
        return waiting + len(self.state.rows) + len(self.timers) + sum(len(t.rows) for t in self.tables.values())


class MemoryStorage:
    """What survives an engine in memory: the disk of a simulated node."""

    def __init__(self, quota_bytes: int = 4 << 30) -> None:
        self.quota_bytes = quota_bytes
        self.partitions: defaultdict[int, _Partition] = defaultdict(_Partition)


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

    async def claim(self, partition: int, owner: str) -> Head:
        """Become the owner under a new epoch."""
        if self._life is _Life.FAILED:
            self._life = _Life.OPEN
        stored = self._partition(partition)
        stored.epoch += 1
        stored.head = _snapshot(stored.head)  # what the last owner still counts in its own is not ours
        head = _snapshot(stored.head)
        head.epoch = stored.epoch
        return head

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """Store the batch and the head, if the epoch is the current one."""
        if not self._sure:
            head = _snapshot(head)  # now: the owner goes on counting in its own
        if not self.traits.immediate:
            await self._wait(partition)
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

    def _commit_at_risk(self, stored: _Partition, batch: Batch, head: Head, crash: Crasher) -> Answer:
        try:
            crash(CrashPoint.EXECUTE)
            stored.apply(batch, head, self._own)
            crash(CrashPoint.COMMIT)
        except StoreError as error:
            self._life, self.last_error = _Life.FAILED, error
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
            stored.head = _snapshot(head)

    def _partition(self, partition: int) -> _Partition:
        if self._life is not _Life.OPEN:
            raise StoreFailedError(f"this engine has no store any more: {self._life.value}")
        return self.storage.partitions[partition]


def _snapshot(head: Head) -> Head:
    return _unpack_head(_pack_head(head))


def _stored_copy(delivery: Delivery) -> Delivery:
    """What of a delivery survives its process, the attempts of a pending one included."""
    row = copy(delivery)
    row.message = None
    return row


def _handed_out(pending: Pending) -> Pending:
    """A pending delivery that its reader may change."""
    return Pending(copy(pending.delivery), pending.reason, pending.due)
