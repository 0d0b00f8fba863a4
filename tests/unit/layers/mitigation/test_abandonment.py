"""Calls that would most likely fail."""

import pytest

from genesis.layers.mitigation.abandonment import PROBE_EVERY_S, SuccessProbability
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


def test_a_success_restores_it_however_long_it_failed() -> None:
    probability = after_failures(100_000)
    assert probability.abandons(SETTINGS)
    probability.succeeded()
    assert probability.value == 1.0


def test_one_call_a_second_passes() -> None:
    probability = after_failures(6)
    assert probability.ask(SETTINGS, 100.0) is None
    assert probability.ask(SETTINGS, 100.0) == PROBE_EVERY_S
    assert probability.ask(SETTINGS, 100.75) == 0.25
    assert probability.ask(SETTINGS, 101.0) is None
    assert probability.ask(SETTINGS, 101.5) == 0.5
    probability.succeeded()
    assert probability.ask(SETTINGS, 101.5) is None
