"""What becomes of a failed delivery, for every error, attempt and draw of chance."""

import itertools
from math import inf, nan
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genesis.core.errors import CircuitOpenError, Outage, Reject, UnavailableError
from genesis.layers.recovery.failure import CAUSES_MAX, WAIT_MAX_S, Again, Dead, Retry, outage_of, verdict

ATTEMPTS = st.integers(1, 12) | st.integers(13, 2000)
DRAWS = st.floats(0, 1, exclude_max=True)


@st.composite
def retries(draw: st.DrawFn) -> Retry:
    base_s = draw(st.floats(0.001, 100))
    return Retry(attempts=draw(st.integers(1, 10)), base_s=base_s, cap_s=base_s * draw(st.floats(1, 1e6)))


class Chance(Random):
    """Gives what it is told, and counts the draws."""

    def __init__(self, draw: float) -> None:
        super().__init__()
        self.draw, self.draws = draw, 0

    def random(self) -> float:
        self.draws += 1
        return self.draw


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def noted(error: Exception, wait_s: float, certain: bool) -> Exception:
    """As a policy lets it through."""
    setattr(error, "genesis_outage", Outage(wait_s, certain))
    return error


ERRORS = st.sampled_from([ValueError("no"), TimeoutError(), UnspeakableError(), KeyError("\udcff"), ValueError("x" * 5000)])


@example(ValueError("no"), 4, Retry(), 0.5)
@example(ValueError("no"), 5, Retry(), 0.5)
@given(ERRORS, ATTEMPTS, retries(), DRAWS)
def test_a_failed_delivery_is_tried_as_often_as_told_and_then_dies(
    error: Exception, attempts: int, retry: Retry, draw: float
) -> None:
    judged = verdict(error, attempts, retry, Chance(draw))
    if attempts < retry.attempts:
        assert isinstance(judged, Again)
        assert judged.counted
    else:
        assert isinstance(judged, Dead)
        assert judged.reason == "failed"
        assert judged.detail.startswith(type(error).__name__)
        assert len(judged.detail) <= 2000


@given(ATTEMPTS, retries(), DRAWS)
def test_waits_double_up_to_the_cap_and_chance_takes_any_part_of_them(attempt: int, retry: Retry, draw: float) -> None:
    longest, failures = retry.base_s, 1
    while failures < attempt and longest < retry.cap_s:
        longest, failures = longest * 2, failures + 1
    chance = Chance(draw)
    assert retry.delay_s(attempt, chance) == pytest.approx(draw * min(longest, retry.cap_s))
    assert 0 <= retry.delay_s(attempt, chance) <= retry.cap_s
    assert chance.draws == 2, "one draw a delay"


@given(st.floats(), ATTEMPTS, retries(), DRAWS)
def test_waiting_for_something_that_is_down_never_counts(
    retry_after_s: float, attempts: int, retry: Retry, draw: float
) -> None:
    chance = Chance(draw)
    judged = verdict(UnavailableError("pricing", retry_after_s), attempts, retry, chance)
    assert isinstance(judged, Again)
    assert not judged.counted
    assert 0 <= judged.delay_s <= 1.5 * WAIT_MAX_S
    if 0 <= retry_after_s <= WAIT_MAX_S:
        assert retry_after_s <= judged.delay_s <= 1.5 * retry_after_s
    assert chance.draws <= 1


@given(ATTEMPTS, retries(), st.text(max_size=20))
def test_a_rejected_delivery_dies_at_once_in_the_handlers_words(attempts: int, retry: Retry, reason: str) -> None:
    assert verdict(Reject(reason), attempts, retry, Chance(0.5)) == Dead("rejected", reason)


KNOWING = (
    st.builds(UnavailableError, st.just("pricing"), st.just(3.0))
    | st.builds(CircuitOpenError, st.just("pricing"), st.just(3.0))
    | st.builds(noted, st.builds(ValueError, st.just("500")), st.just(3.0), st.just(True))
)


def chained(errors: list[BaseException]) -> BaseException:
    """The first of them, each with the next one as its explicit cause."""
    for above, below in itertools.pairwise(errors):
        above.__cause__ = below
    return errors[0]


@given(KNOWING, st.integers(0, 12), ATTEMPTS, retries(), DRAWS)
def test_an_outage_is_found_among_the_causes_as_deep_as_eight(
    knowing: BaseException, depth: int, attempts: int, retry: Retry, draw: float
) -> None:
    error = chained([*[ValueError("wrapped") for _ in range(depth)], knowing, ValueError("what was behind it")])
    judged = verdict(error, attempts, retry, Chance(draw))
    if depth <= CAUSES_MAX:
        assert judged == Again(pytest.approx(3.0 * (1 + draw / 2)), counted=False)
    else:
        assert judged == verdict(ValueError("wrapped"), attempts, retry, Chance(draw))


@given(KNOWING, ATTEMPTS, retries(), DRAWS)
def test_only_what_was_raised_from_an_outage_waits(knowing: BaseException, attempts: int, retry: Retry, draw: float) -> None:
    error = ValueError("of its own, while an outage was handled")
    error.__context__ = knowing
    assert verdict(error, attempts, retry, Chance(draw)) == verdict(
        ValueError("of its own, while an outage was handled"), attempts, retry, Chance(draw)
    )
    rejected = chained([Reject("no such customer"), knowing])
    assert verdict(rejected, attempts, retry, Chance(draw)) == Dead("rejected", "no such customer")


def test_causes_that_lead_back_to_their_effect_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert outage_of(first) is None


@given(st.floats(), ATTEMPTS, retries(), DRAWS)
def test_a_doubt_costs_attempts_and_never_the_last_one(wait_s: float, attempts: int, retry: Retry, draw: float) -> None:
    judged = verdict(noted(ValueError("500"), wait_s, False), attempts, retry, Chance(draw))
    assert isinstance(judged, Again)
    assert judged.counted == (attempts < retry.attempts)
    assert 0 <= judged.delay_s <= max(1.5 * WAIT_MAX_S, retry.cap_s)


@given(st.integers(-5, 0))
def test_a_retry_needs_at_least_one_attempt(attempts: int) -> None:
    with pytest.raises(ValueError, match=f"attempts is {attempts}: at least 1"):
        Retry(attempts=attempts)


@given(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (nan, 1.0), (1.0, nan), (inf, 1.0)]))
def test_a_retry_needs_waits_in_order(waits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 < base_s <= cap_s does not hold"):
        Retry(base_s=waits[0], cap_s=waits[1])
