"""Should this event be accepted? The only place where work is refused: what was begun is never shed half-way.

In: the size of the backlog, the room in the store, and what completed. Out: yes, or a reason and when to come back.
The backlog is counted in expected deliveries: an event that fans out weighs what it will become.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKLOG_MAX = 10_000_000
"""Expected deliveries that may wait. They wait in the store, so the limit only keeps a forgotten consumer from going on
for ever; the room in the store is the limit that most users meet."""
STORE_SHARE = 0.7
"""Intake stops at this share of the quota; commits and dead letters may use the rest, so that draining never deadlocks."""
DISK_RESERVE_BYTES = 256 << 20
"""Intake stops when less is left on the disk."""
RETRY_MIN_S, RETRY_MAX_S = 0.1, 60.0
SMOOTHING = 0.02
"""Weight of one observation: about the last fifty deliveries count for the fan-out, the last fifty commits for the rate."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Limits of the intake."""

    backlog_max: int = BACKLOG_MAX
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    quota_bytes: int | None = None
    """Size that the store may reach; None: as much as the disk has."""

    def __post_init__(self) -> None:
        if self.backlog_max < 1:
            raise ValueError(f"backlog_max is {self.backlog_max}: at least 1")
        if self.disk_reserve_bytes < 0:
            raise ValueError(f"disk_reserve_bytes is {self.disk_reserve_bytes}: at least 0")
        if self.quota_bytes is not None and self.quota_bytes < 1 << 20:
            raise ValueError(f"quota_bytes is {self.quota_bytes}: at least 1 MiB")


class Admission:
    """The gate of one partition."""

    __slots__ = ("_drain_per_s", "_fanout", "_full", "_last", "limit", "settings")

    def __init__(self, settings: AdmissionSettings) -> None:
        self.settings = settings
        self._fanout = 0.0
        self._drain_per_s = 0.0
        self._last: float | None = None
        self._full = ""
        self.limit: float = settings.backlog_max
        """Waiting deliveries at which `ask` refuses; 0 while there is no room in the store."""

    def tell_done(self, ended: int, emitted: int, now: float) -> None:
        """A commit ended so many deliveries, which emitted so many."""
        if not ended:
            return
        self._fanout += min(1.0, SMOOTHING * ended) * (emitted / ended - self._fanout)
        if self._last is not None:
            rate = ended / max(now - self._last, 1e-3)
            self._drain_per_s += (SMOOTHING if self._drain_per_s else 1.0) * (rate - self._drain_per_s)
        self._last = now
        self._set_limit()

    def tell_usage(self, used_bytes: int, free_bytes: int) -> None:
        """Room in the store, told about once a second."""
        quota, reserve = self.settings.quota_bytes, self.settings.disk_reserve_bytes
        if quota is not None:  # what the quota leaves is never more than the quota
            reserve = min(reserve, int((1 - STORE_SHARE) * quota))
        if quota is not None and used_bytes >= STORE_SHARE * quota:
            self._full = f"the store has {used_bytes >> 20} MiB of its quota of {quota >> 20} MiB"
        elif free_bytes < reserve:
            self._full = f"{free_bytes >> 20} MiB are left on the disk, the reserve is {reserve >> 20} MiB"
        else:
            self._full = ""
        self._set_limit()

    def _set_limit(self) -> None:
        self.limit = 0 if self._full else self.settings.backlog_max / (1.0 + self._fanout)

    @property
    def weight(self) -> float:
        """Deliveries that one waiting delivery is expected to become, itself included, at its learned fan-out."""
        return 1.0 + self._fanout

    def ask(self, waiting: int) -> tuple[str, float] | None:
        """None: accept. Else the reason, and seconds after which to come back."""
        if waiting < self.limit:
            return None
        if self._full:
            return self._full, self._retry_after(waiting)
        expected = waiting * self.weight
        reason = f"{waiting} deliveries wait, expected to become {expected:.0f}; the limit is {self.settings.backlog_max}"
        return reason, self._retry_after(waiting)

    def _retry_after(self, waiting: int) -> float:
        """Time to drain a tenth of what waits, at the learned rate."""
        if not self._drain_per_s:
            return 1.0
        return min(RETRY_MAX_S, max(RETRY_MIN_S, 0.1 * waiting / self._drain_per_s))
