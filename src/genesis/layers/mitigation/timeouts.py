"""How long may one attempt take?

In: the settings, the base time-out of the circuit's state, what was learned, and the time that is left. Out: seconds.

Sources: specification section 2, where 2.5 x the expected latency cuts 5 % of good calls at a log-normal sigma of 0.7 and 8 %
at 1.0; therefore 1.3 x the p99 beside it, which cuts 0.4 and 0.5 % (closed forms).
"""

from __future__ import annotations

from genesis.layers.mitigation.settings import PolicySettings

AS_WRITTEN_FACTOR = 2.5


def timeout_s(
    settings: PolicySettings, base_s: float, expected_s: float | None, p99_s: float | None, remaining_s: float
) -> float:
    """The longest of the base and what was learned, within the time that is left. Seconds >= 0.

    `timeout_max_s` bounds what is *learned*: during an outage time-outs are learned from time-outs, and each is longer than
    the last. A base above it was written down by somebody who knows, and wins over it.

    Args:
        settings: Those of the policy.
        base_s: Base of the present state, seconds > 0.
        expected_s: Expected latency in seconds, of healthy calls; None: not known.
        p99_s: The learned p99 in seconds; None: not known.
        remaining_s: Time until the caller's deadline in seconds; may be infinite.
    """
    learned_s = max(settings.latency_factor * (expected_s or 0.0), settings.p99_factor * (p99_s or 0.0))
    return max(0.0, min(remaining_s, max(base_s, min(settings.timeout_max_s, learned_s))))


def timeout_as_written_s(base_s: float, expected_s: float | None) -> float:
    """The specification's literal rule, as a reference: 2.5 x the expected latency if that is over the base. Seconds."""
    return base_s if expected_s is None else max(AS_WRITTEN_FACTOR * expected_s, base_s)
