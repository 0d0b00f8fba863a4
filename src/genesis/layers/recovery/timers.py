"""Which timers fire now? The next minute of them in memory, the rest in the store.

In: timers as handlers set and cancel them, rows read from the store, and the time. Out: timers to fire, and when to wake.
A change counts as soon as it joined a group: commits are in order, and a failed one reloads everything.
"""

from __future__ import annotations

import heapq

from genesis.core.event import Timer

WHEEL_S = 60.0
WHEEL_MAX = 1024
"""Timers kept in memory at once by a load."""

TimerId = tuple[str, str]
"""(address, name)."""


class Timers:
    """The timers of one partition."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, TimerId]] = []
        self._timers: dict[TimerId, Timer] = {}
        self._changed: dict[TimerId, Timer | None] = {}
        self._sealed: dict[TimerId, Timer | None] = {}
        self.loaded_to = 0.0
        """Every committed timer due up to here is in memory."""

    def set(self, timer: Timer) -> None:
        """Set or replace a timer by its address and name."""
        key = (timer.address, timer.name)
        self._changed[key] = timer
        self._keep(key, timer)

    def cancel(self, key: TimerId) -> None:
        """Remove a timer, set or not."""
        self._changed[key] = None
        self._timers.pop(key, None)

    def seal(self) -> dict[TimerId, Timer | None]:
        """The changes since the last seal, for the batch."""
        self._sealed, self._changed = self._changed, {}
        return self._sealed

    def settle(self) -> None:
        """The sealed changes are in the store."""
        self._sealed = {}

    def wants_load(self, wall: float) -> bool:
        """Whether the store should be read further."""
        return self.loaded_to < wall + WHEEL_S / 2 and len(self._timers) < WHEEL_MAX

    def load(self, rows: list[Timer], upto: float, limit: int) -> None:
        """Committed timers due at or before `upto`, the first `limit` of them."""
        self.loaded_to = rows[-1].due if len(rows) == limit else max(upto, self.loaded_to)
        for timer in rows:
            key = (timer.address, timer.name)
            if key not in self._changed and key not in self._sealed:
                self._keep(key, timer)
        for key, change in (*self._sealed.items(), *self._changed.items()):
            newest = self._changed.get(key, change)
            if newest is not None and key not in self._timers:  # set before the wheel came this far, not stored yet
                self._keep(key, newest)

    def wake_at(self) -> float | None:
        """Wall clock of the next timer in memory."""
        self._skim()
        return self._heap[0][0] if self._heap else None

    def wake_one(self, wall: float) -> Timer | None:
        """The next timer that is due, taken out; its removal is stored with the group that its delivery joins."""
        self._skim()
        if not self._heap or self._heap[0][0] > wall:
            return None
        _, key = heapq.heappop(self._heap)
        self._changed[key] = None
        return self._timers.pop(key)

    def _keep(self, key: TimerId, timer: Timer) -> None:
        old = self._timers.pop(key, None)
        if timer.due <= self.loaded_to:
            self._timers[key] = timer
            if old is None or old.due != timer.due:
                heapq.heappush(self._heap, (timer.due, key))

    def _skim(self) -> None:
        heap, timers = self._heap, self._timers
        while heap and (heap[0][1] not in timers or timers[heap[0][1]].due != heap[0][0]):
            heapq.heappop(heap)
