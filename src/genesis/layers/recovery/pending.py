"""Which keys have pending work, and when does the next of it run?

In: deliveries that go to the pending table and leave it, due ones read from the store, and the time. Out: what to run
now, which keys are free of pending work, and which need their next held delivery. Bodies stay in the store: this machine
knows counts per key and the due times of the next minute.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from genesis.core.event import PRIORITIES, Pending, Reason

WHEEL_S = 60.0
"""How far ahead due times are kept in memory."""
WHEEL_MAX = 1024
"""Pending deliveries that are kept in memory at once; the rest waits in the store."""
WAIT_FOR_TIME = (Reason.RETRY, Reason.UNAVAILABLE, Reason.PARKED)
"""Rows that do not run until their time, or a person, has come."""
KEY_MAX = 1000
"""Pending deliveries of one key at which intake for that key is refused."""


class _Key:
    __slots__ = ("active", "aside", "held")

    def __init__(self) -> None:
        self.active = [0] * PRIORITIES
        """Rows that run by themselves (retry, unavailable, slow, parked, suspect), by priority."""
        self.held = [0] * PRIORITIES
        self.aside = 0
        """Rows that later deliveries do not wait for."""


class PendingWork:
    """The pending table of one partition, as far as decisions need it."""

    def __init__(self, skipping: Collection[str] = ()) -> None:
        """Begin empty. In the components `skipping`, a later delivery does not wait for the next attempt of an earlier one."""
        self._skipping = skipping
        self.keys: dict[str, _Key] = {}
        """Keys that have pending work."""
        self._wheel: list[tuple[float, int]] = []
        """Heap of (due, id); entries may be out of date."""
        self._in_wheel: dict[int, Pending] = {}
        self.loaded_to: tuple[float, int] = (0.0, 0)
        """(due, id) up to which the store was read into the wheel."""
        self.parked = 0

    # --- keys -------------------------------------------------------------------------------------------------------

    def add(self, pending: Pending) -> None:
        """A delivery goes to the table."""
        self.parked += pending.reason is Reason.PARKED
        address = pending.delivery.address
        if not address:
            return
        key = self.keys.get(address)
        if key is None:
            key = self.keys[address] = _Key()
        if self._is_aside(address, pending.reason):
            key.aside += 1
            return
        (key.held if pending.reason is Reason.HELD else key.active)[pending.delivery.priority] += 1

    def _is_aside(self, address: str, reason: Reason) -> bool:
        return reason in WAIT_FOR_TIME and address.partition("/")[0] in self._skipping

    def remove(self, address: str, reason: Reason, priority: int) -> bool:
        """A delivery left the table. Returns whether its key has nothing there any more that others wait for."""
        self.parked -= reason is Reason.PARKED
        key = self.keys.get(address) if address else None
        if key is None:
            return False
        if self._is_aside(address, reason):
            key.aside -= 1
        else:
            (key.held if reason is Reason.HELD else key.active)[priority] -= 1
        if any(key.active) or any(key.held):
            return False
        if not key.aside:
            del self.keys[address]
        return True

    def count(self, address: str) -> int:
        """Pending deliveries of a key."""
        key = self.keys.get(address)
        return sum(key.active) + sum(key.held) + key.aside if key else 0

    def rank(self, address: str) -> int | None:
        """Most urgent priority among the pending work of a key that others wait for; None when there is none."""
        key = self.keys.get(address)
        return min(_first(key.active), _first(key.held), key=_none_last) if key else None

    def next_held(self, address: str) -> int | None:
        """Priority of the held delivery that must be brought up, the first of the key: nothing as urgent runs by itself."""
        key = self.keys.get(address)
        held = _first(key.held) if key else None
        if key is None or held is None or any(key.active[: held + 1]):
            return None
        return held

    def brought_up(self, address: str, priority: int) -> None:
        """The first held delivery of the key, of this priority, runs by itself now."""
        key = self.keys[address]
        key.held[priority] -= 1
        key.active[priority] += 1

    def addresses(self) -> list[str]:
        """Addresses with pending work."""
        return list(self.keys)

    # --- due times --------------------------------------------------------------------------------------------------

    def schedule(self, pending: Pending) -> None:
        """Keep a due delivery in memory if its time is near; else the store will bring it up."""
        due, delivery_id = pending.due, pending.delivery.id
        assert due is not None
        old = self._in_wheel.pop(delivery_id, None)
        if (due, delivery_id) <= self.loaded_to:
            self._in_wheel[delivery_id] = pending
            if old is None or old.due != due:
                heapq.heappush(self._wheel, (due, delivery_id))

    def forget(self, delivery_id: int) -> None:
        """A delivery is not waiting for its time any more."""
        self._in_wheel.pop(delivery_id, None)

    def wants_load(self, wall: float) -> bool:
        """Whether due times should be read from the store: the wheel has room and reaches less than half of its span."""
        return len(self._in_wheel) < WHEEL_MAX // 2 and self.loaded_to[0] < wall + WHEEL_S / 2

    def load(self, rows: list[Pending], last: Pending | None, upto: float) -> None:
        """Rows due after `loaded_to`. The store has been read up to `last`, or, when that is None, up to the time `upto`."""
        if last is not None and last.due is not None:
            self.loaded_to = (last.due, last.delivery.id)
        else:
            self.loaded_to = (max(upto, self.loaded_to[0]), 1 << 62)
        for row in rows:
            self.schedule(row)

    def wake_at(self) -> float | None:
        """Wall clock of the next due delivery in memory."""
        self._skim()
        return self._wheel[0][0] if self._wheel else None

    def wake(self, wall: float) -> list[Pending]:
        """Deliveries that are due."""
        due: list[Pending] = []
        while True:
            self._skim()
            if not self._wheel or self._wheel[0][0] > wall:
                return due
            _, delivery_id = heapq.heappop(self._wheel)
            due.append(self._in_wheel.pop(delivery_id))

    def _skim(self) -> None:
        """Drop what was forgotten or rescheduled from the front."""
        while self._wheel:
            due, delivery_id = self._wheel[0]
            pending = self._in_wheel.get(delivery_id)
            if pending is not None and pending.due == due:
                return
            heapq.heappop(self._wheel)


def _first(counts: list[int]) -> int | None:
    """The most urgent priority that has any."""
    return next((priority for priority, count in enumerate(counts) if count), None)


def _none_last(priority: int | None) -> int:
    return PRIORITIES if priority is None else priority
