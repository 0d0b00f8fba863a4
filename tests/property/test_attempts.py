"""Waits, plans, wins of copies and abandonment against their rules."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from genesis.layers.mitigation.abandonment import PROBE_EVERY_S, SuccessProbability
from genesis.layers.mitigation.attempts import HedgeWins, as_written_plan, backoff_s, parallel_bound, plan
from genesis.layers.mitigation.settings import PolicySettings

STATES = st.sampled_from(["CLOSED", "RESILIENT", "OPEN", "HALF_OPEN", "ULTRA_RESILIENT"])
EXPECTED = st.none() | st.floats(0, 10)


@given(st.integers(1, 10_000), st.none() | st.floats(), st.booleans(), st.integers())
def test_a_wait_is_finite_and_between_the_floor_and_the_cap(
    attempt: int, retry_after_s: float | None, essential: bool, seed: int
) -> None:
    wait_s = backoff_s(PolicySettings(essential=essential), attempt, Random(seed), retry_after_s=retry_after_s)
    floor_s = min(86_400.0, retry_after_s) if retry_after_s is not None and retry_after_s > 0 else 0.0
    assert floor_s <= wait_s <= floor_s + (2.5 if essential else 5.0)


@given(
    state=STATES,
    hedges=st.integers(0, 10),
    times_s=st.none() | st.lists(st.floats(1e-6, 100), min_size=3, max_size=3).map(sorted),
    expected_s=EXPECTED,
    idempotent=st.booleans(),
    has_fallback=st.booleans(),
    vetoed=st.booleans(),
)
def test_a_plan_stays_within_the_literal_one(
    state: str,
    hedges: int,
    times_s: list[float] | None,
    expected_s: float | None,
    idempotent: bool,
    has_fallback: bool,
    vetoed: bool,
) -> None:
    known = dict(zip((0.75, 0.9, 0.95), times_s or [None] * 3, strict=True))
    facts = {"idempotent": idempotent, "has_fallback": has_fallback, "vetoed": vetoed, "expected_s": expected_s}
    made = plan(PolicySettings(hedges=hedges), state=state, quantile=known.__getitem__, **facts)  # type: ignore[arg-type]
    literal = as_written_plan(state, expected_s, has_fallback)
    assert len(made.copies) <= (1 if state == "CLOSED" else len(literal.copies)), "one copy of a fast call is what is added"
    assert len(made.copies) <= min(hedges + 1, max(2, parallel_bound(expected_s)) - 1)
    assert made.fallback_after_s is None or literal.fallback_after_s is not None
    assert all(after - before > 0.0009 for before, after in zip((0.0, *made.copies), made.copies, strict=False))
    if not (idempotent and hedges and times_s) or vetoed:
        assert made.copies == ()
    elif state in ("CLOSED", "ULTRA_RESILIENT"):
        assert made.copies[0] >= known[0.95 if state == "CLOSED" else 0.75]


@given(st.lists(st.booleans(), max_size=300))
def test_the_rate_of_wins_is_that_of_the_weighted_list(outcomes: list[bool]) -> None:
    wins, rate = HedgeWins(), 0.0
    for number, won in enumerate(outcomes, 1):
        wins.tell(won)
        weight = 1 / min(number, 50)
        rate = (1 - weight) * rate + weight * won
    assert wins.rate == pytest.approx(rate, abs=1e-9)
    if abs(rate - 0.1) > 1e-6:
        assert wins.poor() == (len(outcomes) >= 20 and rate < 0.1)
    allowed = [wins.allow() for _ in range(100)].count(True)
    assert allowed == (2 if wins.poor() else 100)


class Abandonment(RuleBasedStateMachine):
    """Calls fail, succeed and ask, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.probability = SuccessProbability()
        self.settings = PolicySettings()
        self.plain = 1.0
        self.now = 1000.0
        self.passed: list[float] = []
        """When calls passed although they are abandoned."""

    @rule(count=st.integers(1, 12))
    def calls_fail(self, count: int) -> None:
        for _ in range(count):
            self.probability.failed()
            self.plain *= 0.8

    @rule(count=st.integers(1, 6))
    def calls_succeed(self, count: int) -> None:
        for _ in range(count):
            self.probability.succeeded()
            self.plain = 1.0

    @rule(step=st.sampled_from([0.0, 0.1, 0.5, 1.0, 60.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(calls=st.integers(1, 5))
    def calls_ask(self, calls: int) -> None:
        for _ in range(calls):
            abandons = self.probability.abandons(self.settings)
            wait_s = self.probability.ask(self.settings, self.now)
            if not abandons:
                assert wait_s is None
            elif wait_s is None:
                assert not self.passed or self.now - self.passed[-1] >= PROBE_EVERY_S
                self.passed.append(self.now)
            else:
                assert wait_s == pytest.approx(self.passed[-1] + PROBE_EVERY_S - self.now)
                assert 0 < wait_s <= PROBE_EVERY_S

    @invariant()
    def the_value_is_that_of_the_rule(self) -> None:
        assert self.probability.value == pytest.approx(self.plain)
        assert self.probability.abandons(self.settings) == (self.plain < 0.3)
        assert not self.probability.abandons(PolicySettings(essential=True))


TestAbandonment = Abandonment.TestCase
