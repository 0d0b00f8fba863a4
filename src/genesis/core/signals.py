"""What a policy tells its listeners: each thing that happened to a call, as a value with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Signal:
    """Something happened. `at` is the loop's time in seconds, for durations only."""

    policy: str
    at: float


@dataclass(frozen=True, slots=True)
class CircuitChanged(Signal):
    """The circuit (of a `shard`, if it has shards) went from one state to another."""

    old: str
    new: str
    why: str
    shard: str = ""


class Outcome(StrEnum):
    """How one attempt ended."""

    GOOD = "good"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNHANDLED = "unhandled"
    """An error that is not the dependency's fault: it reaches the caller, and counts as an answer."""
    IGNORED = "ignored"
    """An error that says nothing about the dependency."""
    CANCELLED = "cancelled"
    """By the caller, or by another attempt that was faster."""


@dataclass(frozen=True, slots=True)
class AttemptEnded(Signal):
    """One attempt of a call ended."""

    operation: str
    number: int
    """From 1; copies count on."""
    took_s: float
    outcome: Outcome
    hedge: bool = False
    """Whether it was a copy of an attempt under way."""

    @property
    def handled(self) -> bool:
        """Whether the policy treats it as a failure: another attempt, or the fallback, may follow."""
        return self.outcome in (Outcome.FAILED, Outcome.TIMEOUT)


class Step(StrEnum):
    """What a policy did for a call, beyond making it."""

    RETRIED = "retried"
    HEDGED = "hedged"
    HEDGE_WON = "hedge won"
    HEDGE_LOST = "hedge lost"
    BUDGET_SPENT = "budget spent"
    REJECTED = "rejected"
    LIMITED = "limited"
    ABANDONED = "abandoned"
    DEADLINE = "deadline over"
    FALLBACK = "fallback"
    STALE = "stale result"


@dataclass(frozen=True, slots=True)
class StepTaken(Signal):
    """The policy did something for a call."""

    operation: str
    step: Step
    why: str = ""
