"""Which keys have pending work, and when does the next of it run?

In: deliveries that go to the pending table and leave it, due ones read from the store, and the time. Out: what to run
now, which keys are free of pending work, and which need their next held delivery. Bodies stay in the store: this machine
knows counts per key and the due times of the next minute.
"""

from __future__ import annotations

import heapq

from genesis.core.event import Pending, Reason

WHEEL_S = 60.0
"""How far ahead due times are kept in memory."""
WHEEL_MAX = 1024
"""Pending deliveries that are kept in memory at once; the rest waits in the store."""
KEY_MAX = 1000
"""Pending deliveries of one key at which intake for that key is refused."""


class _Key:
    __slots__ = ("active", "held", "rank")

    def __init__(self) -> None:
        self.active = 0
        """Rows that run by themselves (retry, unavailable, slow, parked, suspect)."""
        self.held = 0
        self.rank = 9
        """Most urgent priority of any of its rows since it last had none."""


class PendingWork:
    """The pending table of one partition, as far as decisions need it."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self._wheel: list[tuple[float, int, Pending]] = []
        self._in_wheel: dict[int, float] = {}
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
        key = self._keys.get(address)
        if key is None:
            key = self._keys[address] = _Key()
        if pending.reason is Reason.HELD:
            key.held += 1
        else:
            key.active += 1
        key.rank = min(key.rank, pending.delivery.priority)

    def remove(self, address: str, reason: Reason) -> bool:
        """A delivery left the table. Returns whether its key has no pending work any more."""
        self.parked -= reason is Reason.PARKED
        key = self._keys.get(address) if address else None
        if key is None:
            return False
        if reason is Reason.HELD:
            key.held -= 1
        else:
            key.active -= 1
        if key.active or key.held:
            return False
        del self._keys[address]
        return True

    @property
    def any_keys(self) -> bool:
        """Whether any key has pending work."""
        return bool(self._keys)

    def count(self, address: str) -> int:
        """Pending deliveries of a key."""
        key = self._keys.get(address)
        return key.active + key.held if key else 0

    def rank(self, address: str) -> int | None:
        """Most urgent priority among a key's pending work; None when it has none."""
        key = self._keys.get(address)
        return key.rank if key else None

    def needs_next(self, address: str) -> bool:
        """Whether only held deliveries of the key are left: the first of them must be brought up."""
        key = self._keys.get(address)
        return key is not None and not key.active and bool(key.held)

    def brought_up(self, address: str) -> None:
        """The first held delivery of the key runs by itself now."""
        key = self._keys[address]
        key.held -= 1
        key.active += 1

    def addresses(self) -> list[str]:
        """Addresses with pending work."""
        return list(self._keys)

    # --- due times --------------------------------------------------------------------------------------------------

    def schedule(self, pending: Pending) -> None:
        """Keep a due delivery in memory if its time is near; else the store will bring it up."""
        due = pending.due
        assert due is not None
        if (due, pending.delivery.id) <= self.loaded_to and self._in_wheel.get(pending.delivery.id) != due:
            heapq.heappush(self._wheel, (due, pending.delivery.id, pending))
            self._in_wheel[pending.delivery.id] = due

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
            _, delivery_id, pending = heapq.heappop(self._wheel)
            del self._in_wheel[delivery_id]
            due.append(pending)

    def _skim(self) -> None:
        """Drop what was forgotten or rescheduled from the front."""
        while self._wheel and self._in_wheel.get(self._wheel[0][1]) != self._wheel[0][0]:
            heapq.heappop(self._wheel)
