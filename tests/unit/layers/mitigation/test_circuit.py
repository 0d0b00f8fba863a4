"""The circuit by itself: each transition of its table happens, and no other can."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from genesis.layers.mitigation.circuit import Circuit
from genesis.layers.mitigation.settings import NEVER, PolicySettings
from genesis.layers.mitigation.states import TRANSITIONS, CircuitState, IllegalTransitionError, Permit, Transition, Trigger
from genesis.layers.mitigation.window import Window

C, R, O, H, U = (  # noqa: E741 - as they are called on paper
    CircuitState.CLOSED,
    CircuitState.RESILIENT,
    CircuitState.OPEN,
    CircuitState.HALF_OPEN,
    CircuitState.ULTRA_RESILIENT,
)
NOW = 1000.0
Drive = Callable[[Circuit], None]


def in_state(state: CircuitState, **settings: float) -> Circuit:
    return Circuit(PolicySettings(**settings), Random(0), initial=state)  # type: ignore[arg-type]


def permit(circuit: Circuit) -> Permit:
    found = circuit.ask(NOW)
    assert isinstance(found, Permit)
    return found


def good(circuit: Circuit, times: int = 1, latency_s: float = 0.01) -> None:
    for _ in range(times):
        circuit.succeeded(permit(circuit), latency_s, NOW)


def bad(circuit: Circuit, times: int = 1, *, timeout: bool = False) -> None:
    for _ in range(times):
        circuit.failed(permit(circuit), 0.01, NOW, timeout=timeout)


def timeouts(circuit: Circuit) -> None:
    bad(circuit, 3, timeout=True)


def waits(circuit: Circuit) -> None:
    circuit.force_open(NOW - 10.0, 5.0)
    permit(circuit)


DRIVES: dict[Trigger, Drive] = {
    Trigger.DEGRADING: timeouts,
    Trigger.FAILING: lambda circuit: bad(circuit, 5),
    Trigger.SLOW: lambda circuit: good(circuit, 3, 3.0),
    Trigger.EASED: lambda circuit: good(circuit, 3),
    Trigger.RECOVERED: lambda circuit: good(circuit, 3),
    Trigger.WAITED: waits,
    Trigger.PROVED: lambda circuit: good(circuit, 3),
    Trigger.REFUTED: bad,
    Trigger.FORCED: lambda circuit: circuit.force_open(NOW),
    Trigger.RESET: lambda circuit: circuit.reset(NOW),
}
"""What brings each trigger about, with calls and hands only."""


@pytest.mark.parametrize(("old", "trigger"), TRANSITIONS, ids=lambda one: one.value)
def test_each_transition_of_the_table_happens(old: CircuitState, trigger: Trigger) -> None:
    circuit, told = in_state(old), []
    circuit.changed = told.append
    DRIVES[trigger](circuit)
    found: list[Transition] = [change for change in told if (change.old, change.trigger) == (old, trigger)]
    assert found, told
    assert circuit.state is TRANSITIONS[old, trigger] is found[0].new


@pytest.mark.parametrize("old", list(CircuitState))
@pytest.mark.parametrize("trigger", list(Trigger))
def test_no_other_transition_can_happen(old: CircuitState, trigger: Trigger) -> None:
    circuit, told = in_state(old), []
    circuit.changed = told.append
    if (old, trigger) in TRANSITIONS:
        circuit._go(trigger, "asked for", NOW)
        assert circuit.state is TRANSITIONS[old, trigger]
        return
    with pytest.raises(IllegalTransitionError):
        circuit._go(trigger, "asked for", NOW)
    assert (circuit.state, told) == (old, [])


@pytest.mark.parametrize("state", [R, O, H, U])
def test_a_degradation_that_is_seen_coming_moves_only_a_closed_circuit(state: CircuitState) -> None:
    circuit = in_state(state)
    circuit.degrade("seen coming", NOW)
    assert circuit.state is state
    closed = in_state(C)
    closed.degrade("seen coming", NOW)
    assert closed.state is R


def test_a_gradual_degradation_makes_it_resilient_and_a_catastrophe_opens_it() -> None:
    gradual, sudden = in_state(C, failure_threshold=2.0), in_state(C, failure_threshold=2.0)
    timeouts(gradual)
    bad(sudden, 2)
    assert (gradual.state, sudden.state) == (R, O)
    bad(gradual, 2)
    assert gradual.state is O, "failures persist"


def test_a_timeout_is_half_a_failure() -> None:
    circuit = in_state(C)
    bad(circuit, timeout=True)
    assert (circuit.failure_count, circuit.degradation_score, circuit.success_count) == (0.5, 1, 0)
    bad(circuit)
    assert (circuit.failure_count, circuit.degradation_score) == (1.5, 3)
    good(circuit)
    assert (circuit.failure_count, circuit.degradation_score, circuit.success_count) == (0.0, 2, 1)


def test_slowness_that_comes_with_our_own_load_is_not_met_with_more_of_it() -> None:
    circuit = in_state(C)
    circuit.load_bound = True
    good(circuit, 10, 3.0)
    assert circuit.state is C


def test_what_is_left_again_is_left_by_a_margin() -> None:
    circuit = in_state(U)
    good(circuit, 10, 1.9)
    assert circuit.state is U
    good(circuit, 10, 1.5)
    assert circuit.state is R


def test_rates_forget_what_is_too_old_after_a_pause_without_calls() -> None:
    window = Window(PolicySettings(minimum_calls=1))
    for _ in range(19):
        window.failed(0.0)
    assert window.rates(59.0) == (1.0, 0.0)
    assert window.rates(66.1) == (None, None)
    window.failed(66.1)
    assert window.rates(66.1) == (1.0, 0.0)
    assert window.calls == 20
    assert window.rates(NEVER) == (None, None)
