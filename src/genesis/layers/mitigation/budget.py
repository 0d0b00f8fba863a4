"""May one more retry or hedge be sent to a dependency? One budget for both, so that they never add up to a second load.

In: each logical call, each wish for an extra attempt, and the time. Out: yes or no. An extra is paid when it is *scheduled*
(envoy#30205: paid later, a wave of them passes before the first one counts), and given back if it never started.

At every grant, the extras of the ten seconds before it, wherever those begin, are at most `budget_share` of the calls of the
same ten seconds plus `budget_floor`. A hedge is only granted while they, retries included, are at most `hedge_share` plus one,
and half of what all extras may have. Time is kept in quarters of a second, so both sides are rounded to the safe side: extras
of ten seconds and the present quarter, calls of the present quarter and 9.75 seconds more. (A window that ends after its last
extra may hold fewer of the calls that these extras were for: an extra comes after its call.)

Source: retry budgets of Finagle and Linkerd, with a floor instead of tokens for each second; hedges pay twice as in Finagle's
BackupRequestFilter.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from genesis.core.stats import turned
from genesis.layers.mitigation.settings import PolicySettings

Kind = Literal["retry", "hedge"]
PART_S = 0.25
"""Seconds that are counted together. Both sides of the bound are rounded by one part, so longer ones would leave unused what
they round: seconds left 18 % of it, and calls that come in bunches ran out of retries."""
SPAN = 40
"""Parts over which the shares hold, ten seconds: the life of a token in Finagle."""
HEDGES_OF_ALL = 0.5
"""Share of the common budget up to which hedges are granted, retries counted: a copy makes an answer faster, a retry makes
it one. Without it, hedges of an extremely slow dependency left nothing for retries: of its calls 6 in 1,000 failed that a
second try saves."""


class Budget:
    """What the retries and hedges of one dependency may cost, out of its last ten seconds."""

    __slots__ = (
        "_calls",
        "_due",
        "_hedges",
        "_past_calls",
        "_past_hedges",
        "_past_retries",
        "_refused",
        "_retries",
        "_settings",
    )

    def __init__(self, settings: PolicySettings) -> None:
        """Begin without a call: the floor is granted at once."""
        self._settings = settings
        self._due = 0.0
        self._calls = self._retries = self._hedges = 0
        """Of the present part."""
        self._past_calls: deque[int] = deque(maxlen=SPAN - 1)
        self._past_retries: deque[int] = deque(maxlen=SPAN)
        self._past_hedges: deque[int] = deque(maxlen=SPAN)
        """Of the parts before, the oldest first."""
        self._refused = {"retry": 0, "hedge": 0}

    def tune(self, settings: PolicySettings) -> None:
        """Other shares and another floor hold from now on; what was spent stays spent."""
        self._settings = settings

    def deposit(self, now: float, calls: int = 1) -> None:
        """Logical calls began. Once for each, whatever the number of its attempts."""
        if now >= self._due:
            self._turn(now)
        self._calls += calls

    def take(self, kind: Kind, now: float, *, ultra: bool = False) -> bool:
        """Whether an extra attempt may be scheduled; if so it is paid.

        Args:
            kind: What it is. A hedge has a share of its own beside the common one; a share of 0 grants none.
            now: The time.
            ultra: Whether `ultra_share` holds for hedges in place of `hedge_share`.
        """
        if now >= self._due:
            self._turn(now)
        settings = self._settings
        calls = self._calls + sum(self._past_calls)
        hedges = self._hedges + sum(self._past_hedges)
        extras = hedges + self._retries + sum(self._past_retries)
        granted = extras + 1 <= settings.budget_share * calls + settings.budget_floor
        if kind == "hedge":
            share = settings.ultra_share if ultra else settings.hedge_share
            kept = HEDGES_OF_ALL * (settings.budget_share * calls + settings.budget_floor)
            granted = granted and share > 0 and extras + 1 <= min(share * calls + 1, max(1.0, kept))
        if not granted:
            self._refused[kind] += 1
        elif kind == "hedge":
            self._hedges += 1
        else:
            self._retries += 1
        return granted

    def give_back(self, kind: Kind, now: float) -> None:
        """A scheduled attempt never started. The oldest one of its kind is crossed out, so that none is forgotten too early."""
        if now >= self._due:
            self._turn(now)
        past = self._past_hedges if kind == "hedge" else self._past_retries
        for index, count in enumerate(past):
            if count:
                past[index] = count - 1
                return
        if kind == "hedge":
            self._hedges = max(0, self._hedges - 1)
        else:
            self._retries = max(0, self._retries - 1)

    def view(self) -> dict[str, int]:
        """Figures of the last ten seconds or so when it was last told something; refusals since it began."""
        return {
            "calls": self._calls + sum(self._past_calls),
            "retries": self._retries + sum(self._past_retries),
            "hedges": self._hedges + sum(self._past_hedges),
            "refused_retries": self._refused["retry"],
            "refused_hedges": self._refused["hedge"],
        }

    def _turn(self, now: float) -> None:
        ended, self._due = turned(now, self._due, PART_S)
        for _ in range(min(ended, SPAN + 1)):
            self._past_calls.append(self._calls)
            self._past_retries.append(self._retries)
            self._past_hedges.append(self._hedges)
            self._calls = self._retries = self._hedges = 0
