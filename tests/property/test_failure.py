"""What becomes of a failed delivery, for every error, attempt and draw of chance."""

from math import inf, nan
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genesis.core.errors import Reject, UnavailableError
from genesis.layers.recovery.failure import WAIT_MAX_S, Again, Dead, Retry, verdict

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


@given(st.integers(-5, 0))
def test_a_retry_needs_at_least_one_attempt(attempts: int) -> None:
    with pytest.raises(ValueError, match=f"attempts is {attempts}: at least 1"):
        Retry(attempts=attempts)


@given(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (nan, 1.0), (1.0, nan), (inf, 1.0)]))
def test_a_retry_needs_waits_in_order(waits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 < base_s <= cap_s does not hold"):
        Retry(base_s=waits[0], cap_s=waits[1])
