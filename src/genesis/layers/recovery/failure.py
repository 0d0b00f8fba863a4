"""What becomes of a delivery whose handler failed: another attempt, a wait, a dead letter, or a parked key.

In: the error, the attempts so far, the handler's settings, and a draw of chance. Out: a verdict. Waiting for something
that is down counts no attempt, so an hour without it means waiting work and no dead letters. What is down is known by
`UnavailableError`, as the error or as one of its causes, and by what a policy noted on the error of its dependency.

Source: exponential backoff with full jitter (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from genesis.core.errors import Outage, Reject, UnavailableError

ATTEMPTS = 5
BASE_S = 0.5
CAP_S = 300.0
WAIT_MAX_S = 86_400.0
"""Longest wait for something that is down: whatever it says (infinity came from a header), it is tried again in a day."""
CAUSES_MAX = 8
"""Causes of an error that are looked at, each the explicit cause of the one before: code that wraps deeper has lost its way."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed delivery is tried, and how long it waits between."""

    attempts: int = ATTEMPTS
    """Tries in all, >= 1. Five with the default waits span some 7 s of trouble on average; longer outages should be
    told apart with `UnavailableError`, which costs no attempt."""
    base_s: float = BASE_S
    """Longest wait before the second try, seconds > 0; doubles with each failure."""
    cap_s: float = CAP_S
    """Longest wait of all, seconds >= base_s."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"Retry: attempts is {self.attempts}: at least 1")
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError(f"Retry: 0 < base_s <= cap_s does not hold: {self.base_s}, {self.cap_s}")

    def delay_s(self, attempt: int, rng: Random) -> float:
        """The wait after failure number `attempt` (>= 1): 0 <= delay <= cap_s. Draws once."""
        return rng.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 64)))


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt, after a wait in seconds."""

    delay_s: float
    counted: bool
    """Whether the failed attempt counts."""


@dataclass(frozen=True, slots=True)
class Dead:
    """No further attempt."""

    reason: str
    detail: str


def verdict(error: BaseException, attempts: int, retry: Retry, rng: Random) -> Again | Dead:
    """Judge a failed attempt.

    Args:
        error: What the handler raised.
        attempts: Attempts so far, this one included, >= 1.
        retry: The handler's settings.
        rng: Source of jitter; drawn from once at most.
    """
    if isinstance(error, Reject):
        return Dead("rejected", error.reason)
    outage = outage_of(error)
    if outage is not None and (outage.certain or attempts >= retry.attempts):  # no last attempt is spent on a doubt
        wait_s = min(WAIT_MAX_S, max(0.0, outage.wait_s))  # in this order, NaN is 0
        return Again(wait_s * rng.uniform(1.0, 1.5), counted=False)
    if attempts < retry.attempts:
        return Again(retry.delay_s(attempts, rng), counted=True)
    return Dead("failed", said(error)[:2000])


def outage_of(error: BaseException) -> Outage | None:
    """What is down, as the error or the first of its explicit causes that knows says it; None: nothing is."""
    found: BaseException | None = error
    for _ in range(1 + CAUSES_MAX):
        if found is None:
            return None
        if isinstance(found, UnavailableError):
            return Outage(found.retry_after_s, True)
        noted = getattr(found, "genesis_outage", None)
        if isinstance(noted, Outage):
            return noted
        found = found.__cause__
    return None


def said(error: BaseException) -> str:
    """Class and words of an error."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own `__str__` failed
        return type(error).__name__
