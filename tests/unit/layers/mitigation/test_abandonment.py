"""Calls that would most likely fail."""

import pytest

from genesis.layers.mitigation.abandonment import LOWEST, PROBE_EVERY_S, SuccessProbability
from genesis.layers.mitigation.settings import PolicySettings

SETTINGS = PolicySettings()


def after_failures(count: int) -> SuccessProbability:
    probability = SuccessProbability()
    for _ in range(count):
        probability.failed()
    return probability


def test_six_failures_in_a_row_abandon_a_call_that_is_not_essential() -> None:
    assert (after_failures(5).value, after_failures(6).value) == (pytest.approx(0.32768), pytest.approx(0.262144))
    assert not after_failures(5).abandons(SETTINGS)
    assert after_failures(6).abandons(SETTINGS)
    assert not after_failures(6).abandons(SETTINGS.changed(essential=True))
    assert not after_failures(1000).abandons(SETTINGS.changed(abandon_below=0.0))


def test_successes_undo_failures_and_not_more() -> None:
    probability = after_failures(6)
    for value in (0.8**5, 0.8**4, 0.8**3, 0.8**2, 0.8, 1.0, 1.0):
        probability.succeeded()
        assert probability.value == pytest.approx(value)
    probability.failed()
    assert probability.value == 0.8


def test_five_successes_are_enough_however_long_it_failed() -> None:
    probability = after_failures(100_000)
    assert probability.value == pytest.approx(0.8**LOWEST)
    for _ in range(5):
        assert probability.abandons(SETTINGS)
        probability.succeeded()
    assert not probability.abandons(SETTINGS)


def test_one_call_a_second_passes() -> None:
    probability = after_failures(6)
    assert probability.ask(SETTINGS, 100.0) is None
    assert probability.ask(SETTINGS, 100.0) == PROBE_EVERY_S
    assert probability.ask(SETTINGS, 100.75) == 0.25
    assert probability.ask(SETTINGS, 101.0) is None
    assert probability.ask(SETTINGS, 101.5) == 0.5
    probability.succeeded()
    assert probability.ask(SETTINGS, 101.5) is None
