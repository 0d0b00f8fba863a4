"""Is it still worth trying? A call that is not essential is abandoned when it would most likely fail.

In: outcomes, the settings, and the time. Out: go on, or when to come back. Each failure multiplies the probability of success
by 0.8 (specification section 2), and a success restores it, so six failures in a row bring it under 0.3: where half of the
calls fail, it is the circuit's to decide. Who is abandoned does not succeed, so the rule alone would never recover: one call a
second passes.
"""

from __future__ import annotations

from genesis.layers.mitigation.settings import PolicySettings

FACTOR = 0.8
PROBE_EVERY_S = 1.0
"""While calls are abandoned, one passes in this time: about what a dependency that is down can bear, and soon enough."""


class SuccessProbability:
    """How likely the next call succeeds."""

    __slots__ = ("_failures", "_probe_at")

    def __init__(self) -> None:
        self._failures = 0
        self._probe_at = 0.0

    @property
    def value(self) -> float:
        """The probability, over 0 to 1."""
        return FACTOR**self._failures

    def failed(self) -> None:
        """A call failed."""
        self._failures += 1

    def succeeded(self) -> None:
        """A call succeeded."""
        self._failures = 0

    def abandons(self, settings: PolicySettings) -> bool:
        """Whether calls are abandoned now, but for the one in a second that passes."""
        return not settings.essential and self.value < settings.abandon_below

    def ask(self, settings: PolicySettings, now: float) -> float | None:
        """None: go on. Else the call is abandoned: seconds until one passes again, over 0 and at most `PROBE_EVERY_S`."""
        if not self.abandons(settings):
            return None
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY_S
            return None
        return self._probe_at - now
