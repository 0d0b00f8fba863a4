"""One budget for retries and hedges."""

import pytest

from genesis.layers.mitigation.budget import Budget, Kind
from genesis.layers.mitigation.settings import PolicySettings


def taken(budget: Budget, kind: Kind, now: float, *, ultra: bool = False, wanted: int = 1000) -> int:
    return sum(budget.take(kind, now, ultra=ultra) for _ in range(wanted))


def after_calls(count: int, now: float = 0.0, settings: PolicySettings | None = None) -> Budget:
    budget = Budget(settings or PolicySettings())
    for _ in range(count):
        budget.deposit(now)
    return budget


def test_the_floor_is_granted_without_any_traffic_and_again_when_it_is_old() -> None:
    budget = Budget(PolicySettings())
    assert taken(budget, "retry", 0.5) == 3
    assert taken(budget, "retry", 10.7) == 0
    assert taken(budget, "retry", 10.75) == 3
    assert taken(budget, "retry", 1e9) == 3


def test_retries_and_hedges_share_one_budget() -> None:
    budget = after_calls(1000)
    assert taken(budget, "hedge", 0.0) == 51, "5 % and one"
    assert taken(budget, "retry", 0.0) == 103 - 51, "10 % and the floor, together"
    assert budget.view() == {"calls": 1000, "retries": 52, "hedges": 51, "refused_retries": 948, "refused_hedges": 949}
    spent = after_calls(1000)
    assert taken(spent, "retry", 0.0) == 103
    assert taken(spent, "hedge", 0.0) == 0


def test_ultra_resilient_hedges_have_a_share_of_their_own() -> None:
    wide = PolicySettings(budget_share=1.0)
    assert taken(after_calls(100, settings=wide), "hedge", 0.0, ultra=True) == 21
    assert taken(after_calls(100, settings=wide), "hedge", 0.0) == 6


def test_one_hedge_is_granted_without_traffic_unless_they_have_no_share() -> None:
    assert taken(Budget(PolicySettings()), "hedge", 0.0) == 1
    assert taken(after_calls(100, settings=PolicySettings(hedge_share=0.0)), "hedge", 0.0) == 0
    assert taken(after_calls(100, settings=PolicySettings(hedge_share=0.0)), "hedge", 0.0, ultra=True) == 6  # half of 13


def test_nothing_is_granted_when_nothing_is_allowed() -> None:
    budget = after_calls(100, settings=PolicySettings(budget_share=0.0, budget_floor=0))
    assert taken(budget, "retry", 0.0) == taken(budget, "hedge", 0.0) == 0


def test_calls_are_forgotten_before_the_extras_that_they_paid() -> None:
    budget = after_calls(100, now=0.9)
    assert taken(budget, "retry", 0.9) == 13
    assert taken(budget, "retry", 10.4) == 0
    assert budget.view()["calls"] == 100
    assert not budget.take("retry", 10.8), "the calls are too old, and the retries are not"
    assert (budget.view()["calls"], budget.view()["retries"]) == (0, 13)


@pytest.mark.parametrize("kind", ["retry", "hedge"])
def test_what_never_started_is_given_back(kind: Kind) -> None:
    budget = Budget(PolicySettings(budget_floor=1))
    for now in (0.0, 0.5, 3.0):
        assert taken(budget, kind, now) == 1
        budget.give_back(kind, now)
    assert taken(budget, kind, 3.0) == 1
    budget.give_back(kind, 5.0)
    assert taken(budget, kind, 5.0) == 1
    budget.give_back(kind, 1e6)
    budget.give_back(kind, 1e6)
    assert taken(budget, kind, 1e6) == 1, "what is forgotten is not given back"


def test_other_settings_hold_at_once_and_what_was_spent_stays_spent() -> None:
    budget = after_calls(100)
    assert taken(budget, "retry", 0.0) == 13
    budget.tune(PolicySettings(budget_share=0.2, budget_floor=0))
    assert taken(budget, "retry", 0.0) == 7
