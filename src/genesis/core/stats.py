"""Numbers that more than one room needs."""

from __future__ import annotations

from math import ceil, exp, log

GAMMA = 1.02
"""Ratio of neighbouring buckets: quantiles are right to 1 %."""
_LOG_GAMMA = log(GAMMA)
_MIN = 1e-6
BUCKETS = 1200
"""From 1 microsecond to 5.7 hours."""


class Histogram:
    """A sketch of durations: O(1) memory, quantiles to 1 % relative error, mergeable.

    Source: logarithmic buckets as in DDSketch (Masson, Rim and Lee, VLDB 2019).
    """

    __slots__ = ("count", "counts", "max", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.count = 0
        self.total = 0.0
        self.max = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration; below 1 us counts as 1 us, above 5.7 h as that."""
        index = 0 if seconds <= _MIN else ceil(log(seconds / _MIN) / _LOG_GAMMA)
        self.counts[index if index < BUCKETS else BUCKETS - 1] += times
        self.count += times
        self.total += seconds * times
        if seconds > self.max:
            self.max = seconds

    def quantile(self, q: float) -> float:
        """The duration, in seconds, that a share `q` (0 to 1) of all is at or below; 0 when empty."""
        rank = max(1, ceil(q * self.count))
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= rank and count:
                return min(self.max, _MIN * exp(_LOG_GAMMA * index) * 2 / (1 + GAMMA)) if index else _MIN
        return 0.0

    def at_or_below(self, seconds: float) -> int:
        """How many durations were at or below a limit, within the width of a bucket."""
        index = 0 if seconds <= _MIN else int(log(seconds / _MIN) / _LOG_GAMMA + 1e-9)
        return sum(self.counts[: index + 1])

    def merge(self, other: Histogram) -> None:
        """Add what another one counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)


def turned(now: float, due: float, width_s: float) -> tuple[int, float]:
    """A window made of buckets moves on: how many of them ended since, and when the present one ends.

    Args:
        now: The time, >= due.
        due: When the bucket that was the present one ended; 0 for one that never began.
        width_s: Length of a bucket, seconds > 0. Buckets begin at multiples of it, as far as `due` does.
    """
    count = int((now - due) // width_s) + 1
    return count, due + count * width_s
