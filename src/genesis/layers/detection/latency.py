"""How long do calls of a dependency take, and does it slow down under our own load?

In: the duration of each call, or how long one had taken when it was given up, the calls under way, and the time. Out:
quantiles and the mean of the last half minute, whether they are only lower bounds, and whether latency rises with our load.

A call that was given up (a time-out, a loser that was cancelled) took *at least* that long. Left out, the slow ones would be
missing: estimates shrink, time-outs tighten, more is cut. So it is counted as censored, and quantiles are those of the
product-limit estimator: its share moves to the calls that took longer, and one more of them never lowers an estimate.

Sources: buckets in the ratio of neighbours as in DDSketch (Masson, Rim and Lee, VLDB 2019); product-limit estimator (Kaplan
and Meier, 1958); nothing is hedged at a quantile that is only a bound (Finagle's BackupRequestFilter); the correlation of
latency and calls under way as a veto (failsafe-go's adaptive limiter); weighted covariance as in Finch (2009).
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, log, sqrt

from genesis.core.stats import turned

WINDOW_S = 30.0
"""Long enough for a p95 at one call a second, short enough to follow a deploy. Finagle has the same."""
MINIMUM = 20
"""Samples without which nothing is said: the p95 of fewer is their largest."""
FRESH_S = 1.0
"""Age at which estimates are made anew: that costs about 0.1 ms."""
GROWN = 1.25
"""Growth of the count at which they are made anew before that."""

GROWTH = 1.04
"""Ratio of neighbouring buckets. Its middle stands for a bucket, so an estimate is right to sqrt(1.04) - 1 = 1.98 %."""
LOW_S = 1e-6
HIGH_S = 3600.0
_SCALE = 1 / log(GROWTH)
_OFFSET = -log(LOW_S) * _SCALE
_BUCKETS = ceil(log(HIGH_S) * _SCALE + _OFFSET) + 1
_MIDDLE_S = [LOW_S * GROWTH**index * sqrt(GROWTH) for index in range(_BUCKETS)]
_NONE = ([0] * _BUCKETS, [0] * _BUCKETS)
"""Of a third without calls. It is never written: each policy may have 10,000 shards, and each of them two of these windows."""
_NEARLY = 1e-9
"""What rounding may add up to: so much below a rank is the rank."""


class Latency:
    """Durations of the last `window_s` seconds: what is older is forgotten, a third of the window at a time."""

    __slots__ = (
        *("_censored", "_count", "_counts", "_due", "_olders", "_third_s"),
        *("_asked", "_counted", "_ends", "_fresh_until", "_mean_s", "_places", "_shares", "_top_s"),  # the estimates
    )

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Begin with nothing known. Samples count for 2/3 of `window_s` (seconds > 0) at least, and not longer than it."""
        self._third_s = window_s / 3
        self._due = 0.0
        self._counts, self._censored = [0] * _BUCKETS, [0] * _BUCKETS
        """Of the present third, by bucket: calls that ended, and calls that were given up."""
        self._olders = [_NONE, _NONE]
        """Of the two thirds before, the older first. They are only read."""
        self._count = 0
        self._forget_estimates()

    def _forget_estimates(self) -> None:
        self._fresh_until = self._counted = -1.0
        self._asked: dict[float, float] = {}

    # --- told by every call ------------------------------------------------------------------------------------------------

    def tell(self, latency_s: float, now: float, calls: int = 1) -> None:
        """Calls ended after so many seconds. Under 1 us (and NaN) counts as that, over an hour as that."""
        if now >= self._due:
            self._turn(now)
        if not LOW_S <= latency_s <= HIGH_S:
            latency_s = min(HIGH_S, max(LOW_S, latency_s))
        self._counts[int(log(latency_s) * _SCALE + _OFFSET)] += calls
        self._count += calls

    def tell_censored(self, elapsed_s: float, now: float) -> None:
        """A call was given up after so many seconds, by a time-out or because another one won: it takes at least that long."""
        if now >= self._due:
            self._turn(now)
        elapsed_s = min(HIGH_S, max(LOW_S, elapsed_s))
        self._censored[int(log(elapsed_s) * _SCALE + _OFFSET)] += 1
        self._count += 1

    def _turn(self, now: float) -> None:
        ended, self._due = turned(now, self._due, self._third_s)
        for _ in range(min(ended, 3)):
            told = any(self._counts) or any(self._censored)
            self._olders = [self._olders[1], (self._counts, self._censored) if told else _NONE]
            if told:
                self._counts, self._censored = [0] * _BUCKETS, [0] * _BUCKETS
        self._count = sum(sum(ends) + sum(given_up) for ends, given_up in self._olders)
        self._forget_estimates()

    # --- asked -----------------------------------------------------------------------------------------------------------

    def count(self, now: float) -> int:
        """Samples in the window, censored ones included."""
        if now >= self._due:
            self._turn(now)
        return self._count

    def quantile(self, q: float, now: float) -> float | None:
        """The time, in seconds, within which a share `q` (0 to 1) of the calls ends; None under `MINIMUM` samples.

        Right to 2 %, and at most a second old. Where `topped` says so it is the longest time seen, which is only a lower bound.
        """
        if not self._is_known(now):
            return None
        seconds = self._asked.get(q)
        if seconds is None:
            shares, places, top_s = self._shares, self._places, self._top_s
            place = bisect_left(shares, q - _NEARLY)
            seconds = self._asked[q] = top_s if place == len(places) else _MIDDLE_S[places[place]]
        return seconds

    def topped(self, q: float, now: float) -> bool:
        """Whether calls were given up before a share `q` (0 to 1) of them had ended: then `quantile` says too little.

        False under `MINIMUM` samples.
        """
        return self._is_known(now) and q - _NEARLY > self._ends

    def mean(self, now: float) -> float | None:
        """The mean time in seconds, right to 2 %; None under `MINIMUM` samples.

        What was given up and outlasted every call that ended counts as the longest time seen: a lower bound.
        """
        return self._mean_s if self._is_known(now) else None

    def censored_share(self, now: float) -> float:
        """The share of the calls that were given up, 0 to 1; 0 without any."""
        if now >= self._due:
            self._turn(now)
        given_up = sum(self._censored) + sum(sum(older) for _, older in self._olders)
        return given_up / self._count if given_up else 0.0

    def _is_known(self, now: float) -> bool:
        """Whether there are enough samples; the estimates are fresh then."""
        if now >= self._due:
            self._turn(now)
        if self._count < MINIMUM:
            return False
        if now >= self._fresh_until or self._count >= self._counted * GROWN:
            self._estimate(now)
        return True

    def _estimate(self, now: float) -> None:
        """At each time at which calls ended, of those that took as long or longer the share that did not end lives on.

        Another thread may tell and ask in the middle of it: what is estimated from stays, and what is known is whole.
        """
        (first, first_up), (second, second_up) = self._olders
        present = self._counts[:], first, second, self._censored[:], first_up, second_up
        at_risk, alive = sum(map(sum, present)), 1.0
        shares: list[float] = []
        places: list[int] = []
        mean_s, last = 0.0, 0
        for index, (a, b, c, d, e, f) in enumerate(zip(*present, strict=True)):
            if ended := a + b + c:
                died = alive * ended / at_risk
                mean_s += died * _MIDDLE_S[index]
                alive -= died
                shares.append(1.0 - alive)
                places.append(index)
            if ended or d or e or f:
                at_risk -= ended + d + e + f
                last = index
        self._shares = shares
        """The share of calls that has ended by the time of each place, rising."""
        self._places = places
        """Buckets in which calls ended."""
        self._top_s = _MIDDLE_S[last]
        self._ends = shares[-1] if shares else 0.0
        self._mean_s = mean_s + alive * self._top_s
        self._fresh_until, self._counted, self._asked = now + FRESH_S, self._count, {}


# --- our own load ---------------------------------------------------------------------------------------------------------

AGE = 100
"""Samples after which one has lost 63 % of its weight."""
CORRELATED = 0.5
CORRELATION_MINIMUM = 30
VARIED = 0.05
"""Variance of the calls under way below which nothing can be told: one call in twenty met another one."""


class LoadCorrelation:
    """Whether latency rises with our own calls under way: then a further copy of a call makes it worse."""

    __slots__ = ("_both", "_count", "_inflight", "_inflight_mean", "_log", "_log_mean")

    def __init__(self) -> None:
        self._count = 0
        self._inflight_mean = self._log_mean = 0.0
        self._inflight = self._log = self._both = 0.0
        """Variances of the calls under way and of the logarithm of latency, and their covariance."""

    def tell(self, inflight: int, latency_s: float) -> None:
        """A call ended after so many seconds; so many were under way when it began."""
        self._count += 1
        weight = 1 / self._count if self._count < AGE else 1 / AGE
        off = inflight - self._inflight_mean
        log_off = log(max(LOW_S, latency_s)) - self._log_mean
        step, log_step, kept = weight * off, weight * log_off, 1 - weight
        self._inflight_mean += step
        self._log_mean += log_step
        self._inflight = kept * (self._inflight + step * off)
        self._log = kept * (self._log + log_step * log_off)
        self._both = kept * (self._both + step * log_off)

    def correlation(self) -> float:
        """Of calls under way and the logarithm of latency, -1 to 1; 0 while one of them does not vary."""
        spread = sqrt(self._inflight * self._log)
        return max(-1.0, min(1.0, self._both / spread)) if spread > _NEARLY else 0.0

    def bound(self) -> bool:
        """Whether the dependency is bound by our load: a correlation over 0.5, of 30 calls or more under a varying load."""
        return self._count >= CORRELATION_MINIMUM and self._inflight >= VARIED and self.correlation() > CORRELATED
