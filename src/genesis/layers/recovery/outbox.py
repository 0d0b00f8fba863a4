"""How much is given to a sink now, when is it given, and what becomes of what it did not take?

In: how many items wait, errors, and the time. Out: how many of the first ones to give, when, and a verdict. Items are given
in their order, one call at a time. A batch that failed for good is given again one by one, each with attempts of its own, so
that one bad item costs only itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from genesis.layers.recovery.failure import Again, Dead, Retry, verdict


@dataclass(frozen=True, slots=True)
class Apart:
    """The items of the call are given again, each alone."""


class Outbox:
    """What is given to one sink, and when. It knows numbers of items; whoever asks it has the items."""

    def __init__(self, batch: int, per_second: float | None, retry: Retry) -> None:
        """Begin with nothing.

        Args:
            batch: Items of a call at most, >= 1.
            per_second: Items a second at most, > 0; None: no limit.
            retry: How often a failed call is made again, and how long it waits between.
        """
        self.at_once = batch if per_second is None else min(batch, max(1, int(per_second)))
        """Items of a call at most."""
        self._per_second, self._retry = per_second, retry
        self._waiting = 0
        self._given = 0
        self._alone = False
        self._paced_until = self._retry_at = 0.0
        self.attempts = 0
        """Calls with the present items that failed and count."""

    @property
    def due(self) -> float:
        """When the next call may begin."""
        return max(self._paced_until, self._retry_at)

    def filled(self, count: int) -> None:
        """So many items wait: at most `at_once`, and none waited before."""
        self._waiting, self._alone, self.attempts = count, False, 0

    def dropped(self, count: int) -> None:
        """So many of those that wait have ended without a call."""
        self._waiting -= count

    def give(self, now: float) -> int:
        """A call begins: with how many of the first items that wait."""
        self._given = 1 if self._alone else self._waiting
        if self._per_second is not None:
            self._paced_until = now + self._given / self._per_second
        return self._given

    def took(self) -> None:
        """The call succeeded: its items have ended."""
        self._waiting -= self._given
        self.attempts = 0

    def failed(self, now: float, error: BaseException, rng: Random) -> Again | Apart | Dead:
        """The call failed. `Again`: so will it be called; `Dead`: its only item has ended.

        Draws from `rng` once at most.
        """
        judged = verdict(error, self.attempts + 1, self._retry, rng)
        if isinstance(judged, Again):
            self.attempts += judged.counted
            self._retry_at = now + judged.delay_s
            return judged
        self.attempts = 0
        if self._given > 1:
            self._alone = True
            return Apart()
        self._waiting -= 1
        return judged
