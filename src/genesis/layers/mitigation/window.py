"""How many of the newest calls failed, and how many were slow?

In: each call as it ends. Out: two rates, or none below the minimum of calls. A success costs one addition: only failures and
slow calls are kept by themselves, each with its number and time.
"""

from __future__ import annotations

from collections import deque

from genesis.layers.mitigation.settings import PolicySettings

PARTS = 10
"""Parts of the window of time: a call counts up to a tenth longer than its age allows."""


class Window:
    """The newest `window_calls` calls of the last `window_s` seconds."""

    def __init__(self, settings: PolicySettings) -> None:
        self.calls = 0
        """Ended so far."""
        self._failed: deque[tuple[int, float]] = deque()
        self._slow: deque[tuple[int, float]] = deque()
        self._turns: deque[tuple[float, int]] = deque()
        """When a part began, and the calls before it."""
        self.turns_at = 0.0
        """When the next part begins."""
        self.tune(settings)

    def tune(self, settings: PolicySettings) -> None:
        """Other settings, from now on."""
        self._window_s, self._window_calls, self._minimum = settings.window_s, settings.window_calls, settings.minimum_calls

    def failed(self, now: float) -> None:
        """A call failed."""
        if now >= self.turns_at:
            self.turn(now)
        self.calls += 1
        self._failed.append((self.calls, now))

    def slow(self, now: float) -> None:
        """The call that ended last was slow."""
        self._slow.append((self.calls, now))

    def turn(self, now: float) -> None:
        """Begin another part of the window of time."""
        self._turns.append((now, self.calls))
        self.turns_at = now + self._window_s / PARTS
        while len(self._turns) > 1 and self._turns[1][0] <= now - self._window_s:
            self._turns.popleft()

    def clear(self) -> None:
        """Forget all calls."""
        self.calls, self.turns_at = 0, 0.0
        for kept in (self._failed, self._slow, self._turns):
            kept.clear()

    def rates(self, now: float) -> tuple[float | None, float | None]:
        """Shares of failed and of slow calls, 0 to 1; None: too few calls."""
        known = min(self._window_calls, self.calls - self._before(now - self._window_s))
        oldest = self.calls - known
        failed, slow = self._count(self._failed, oldest), self._count(self._slow, oldest)
        if known < self._minimum:
            return None, None
        return failed / known, slow / known

    def _before(self, moment: float) -> int:
        """Calls that ended before a moment, to a tenth of the window."""
        for began, before in self._turns:
            if began + self._window_s / PARTS > moment:
                return before
        return self.calls

    @staticmethod
    def _count(kept: deque[tuple[int, float]], oldest: int) -> int:
        while kept and kept[0][0] <= oldest:
            kept.popleft()
        return len(kept)
