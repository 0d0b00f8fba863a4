"""Which old result may be given instead of an error? The last good one of the same call, while it is young enough.

In: good results, and the time. Out: the last one and its age. Bounded: who was not asked for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from genesis.layers.mitigation.settings import PolicySettings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Stale(Generic[K, V]):
    """Last good results, by what was asked for."""

    __slots__ = ("_entries", "_stale_s", "_values")

    def __init__(self, settings: PolicySettings) -> None:
        """Begin empty. With `stale_s` 0 nothing is kept."""
        self._values: OrderedDict[K, tuple[V, float]] = OrderedDict()
        """The one used longest ago first."""
        self._stale_s, self._entries = settings.stale_s, settings.stale_entries

    def __len__(self) -> int:
        return len(self._values)

    def tune(self, settings: PolicySettings) -> None:
        """Another age and number hold from now on; what is over the number is forgotten, oldest use first."""
        self._stale_s, self._entries = settings.stale_s, settings.stale_entries
        if not self._stale_s:
            self._values.clear()
        while len(self._values) > self._entries:
            self._values.popitem(last=False)

    def put(self, key: K, value: V, now: float) -> None:
        """A call had this good result."""
        if not self._stale_s:
            return
        self._values[key] = value, now
        self._values.move_to_end(key)
        if len(self._values) > self._entries:
            self._values.popitem(last=False)

    def get(self, key: K, now: float) -> tuple[V, float] | None:
        """The last good result and its age in seconds, at most `stale_s`; None: there is none. An older one is forgotten."""
        found = self._values.get(key)
        if found is None:
            return None
        value, at = found
        if now - at > self._stale_s:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value, max(0.0, now - at)
