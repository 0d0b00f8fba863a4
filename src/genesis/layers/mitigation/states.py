"""The states of a circuit, what moves it from one to another, and what it gives to calls.

In: a state and a trigger. Out: the next state, from one table: what is not in it cannot happen.

Source: specification section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CircuitState(StrEnum):
    """The five states of a circuit."""

    CLOSED = "CLOSED"
    """All calls go out."""
    RESILIENT = "RESILIENT"
    """Calls go out; the fallback starts beside a slow or failed one, and the first good result counts."""
    OPEN = "OPEN"
    """No call goes out."""
    HALF_OPEN = "HALF_OPEN"
    """Some go out, as probes; the others are answered as while OPEN."""
    ULTRA_RESILIENT = "ULTRA_RESILIENT"
    """Calls go out with staggered copies: the dependency is right, and extremely slow."""


class Trigger(StrEnum):
    """What moves a circuit from one state to another."""

    DEGRADING = "gradual degradation"
    FAILING = "failures over the threshold"
    SLOW = "extreme latency"
    EASED = "latency good again"
    RECOVERED = "successes, and rates are low"
    WAITED = "the open time is over"
    PROVED = "enough probes succeeded"
    REFUTED = "a probe failed"
    FORCED = "opened by hand"
    RESET = "closed by hand"


_C, _R, _O = CircuitState.CLOSED, CircuitState.RESILIENT, CircuitState.OPEN
_H, _U = CircuitState.HALF_OPEN, CircuitState.ULTRA_RESILIENT
TRANSITIONS: dict[tuple[CircuitState, Trigger], CircuitState] = {
    (_C, Trigger.DEGRADING): _R,
    (_C, Trigger.FAILING): _O,
    (_C, Trigger.SLOW): _U,
    (_R, Trigger.FAILING): _O,
    (_R, Trigger.SLOW): _U,
    (_R, Trigger.RECOVERED): _C,
    (_U, Trigger.FAILING): _O,
    (_U, Trigger.EASED): _R,
    (_O, Trigger.WAITED): _H,
    (_H, Trigger.PROVED): _C,
    (_H, Trigger.REFUTED): _O,
    **{(state, Trigger.FORCED): _O for state in CircuitState},
    **{(state, Trigger.RESET): _C for state in CircuitState},
}
"""From a state, by a trigger, to a state. What is not here is an error."""


class Mode(StrEnum):
    """What rules the circuit: itself, or somebody by hand."""

    AUTOMATIC = "automatic"
    FORCED_OPEN = "forced open"
    DISABLED = "disabled"
    """All calls go out; nothing is recorded."""
    METRICS_ONLY = "metrics only"
    """All is recorded and told; nothing is refused."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, with its reason in words."""

    old: CircuitState
    new: CircuitState
    trigger: Trigger
    why: str
    at: float


@dataclass(slots=True, eq=False)
class Permit:
    """The right to make one call. It is given back once, with its outcome or without."""

    generation: int
    probe: bool
    expires_at: float
    held: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """No call now."""

    retry_after_s: float
    state: CircuitState
    why: str


class IllegalTransitionError(AssertionError):
    """A machine was asked for a transition that its table does not have: a mistake of ours."""
