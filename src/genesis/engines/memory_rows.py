"""What is stored of a partition in memory: lanes, pending work, states, timers and named tables."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import takewhile
from math import inf
from typing import Generic, TypeVar

from genesis.core.event import Delivery, Pending, Reason, Timer
from genesis.core.ports import TABLES, Batch, Head, StateRow

CHUNK_BITS = 10
CHUNK = 1 << CHUNK_BITS
"""Deliveries are kept in chunks of 1,024 neighbouring ids: a finished chunk gives its memory back at once."""
SLOT_S = 16.0
"""Due times are kept in slots of this many seconds."""

T = TypeVar("T")
K = TypeVar("K", int, tuple[str, str])


class Table(Generic[T]):
    """Rows by key. The order of the keys is found when somebody scans, and kept until a key comes or goes."""

    __slots__ = ("_order", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, T] = {}
        self._order: list[str] | None = None

    def update(self, rows: dict[str, T]) -> None:
        """Set rows."""
        before = len(self.rows)
        self.rows.update(rows)
        if len(self.rows) != before:
            self._order = None

    def remove(self, key: str) -> None:
        """Remove a row, if it is there."""
        if self.rows.pop(key, None) is not None:
            self._order = None

    def get(self, keys: Sequence[str]) -> dict[str, T]:
        """Rows by key; keys without a row are left out."""
        rows = self.rows
        return {key: rows[key] for key in keys if key in rows}

    def scan(self, prefix: str, after: str, limit: int) -> list[tuple[str, T]]:
        """Up to `limit` rows with keys that start with `prefix` and are above `after`, in key order."""
        if self._order is None:
            self._order = sorted(self.rows)
        start = max(bisect_left(self._order, prefix), bisect_right(self._order, after))
        page = self._order[start : start + limit]
        return [(key, self.rows[key]) for key in takewhile(lambda key: key.startswith(prefix), page)]


class Agenda(Generic[K]):
    """Keys by due time: cheap to set and to drop, read in order from the front."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[float, dict[K, float]] = {}

    def set(self, key: K, due: float) -> None:
        """Add a key that has no time yet."""
        self._slots.setdefault(due // SLOT_S, {})[key] = due

    def drop(self, key: K, due: float) -> None:
        """Remove a key, given its time."""
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


class Partition:
    """What is stored of one partition."""

    __slots__ = ("agenda", "alarms", "chunks", "epoch", "head", "held", "pending", "state", "tables", "timers")

    def __init__(self) -> None:
        self.epoch = 0
        self.head = Head.fresh()
        self.chunks: dict[int, dict[int, Delivery]] = {}
        """Waiting deliveries of all lanes, by ``id >> CHUNK_BITS`` and id."""
        self.pending: dict[int, Pending] = {}
        self.held: dict[str, set[int]] = {}
        self.agenda: Agenda[int] = Agenda()
        self.state: Table[StateRow] = Table()
        self.timers: dict[tuple[str, str], Timer] = {}
        self.alarms: Agenda[tuple[str, str]] = Agenda()
        self.tables: dict[str, Table[bytes]] = {name: Table() for name in TABLES}

    def apply(self, batch: Batch, head: Head, own: Callable[[Delivery], Delivery] | None) -> None:
        """Take in a batch. `own` makes the copy of a delivery that is stored; None stores the object itself."""
        if batch.append:
            self._append(batch.append if own is None else map(own, batch.append))
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

    def _append(self, rows: Iterable[Delivery]) -> None:
        chunk: dict[int, Delivery] = {}
        end = 0
        for row in rows:
            id = row.id
            if not end - CHUNK <= id < end:
                number = id >> CHUNK_BITS
                chunk, end = self.chunks.setdefault(number, {}), (number + 1) << CHUNK_BITS
            chunk[id] = row

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
        for id, pending in zip(ids, rows, strict=True):
            self._unpend([id])
            row = own(pending.delivery)
            row.pending = pending.reason
            self.pending[id] = Pending(row, pending.reason, pending.due)
            if pending.due is not None:
                self.agenda.set(id, pending.due)
            if pending.reason == Reason.HELD:
                self.held.setdefault(row.address, set()).add(id)

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
