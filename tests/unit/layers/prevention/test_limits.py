"""Attempts a second, attempts at once, and a dependency that takes few."""

from random import Random

import pytest

from genesis.layers.prevention.limits import Bulkhead, RateLimit, Throttle


class Draw(Random):
    """Draws this, and counts how often."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.count = share, 0

    def random(self) -> float:
        self.count += 1
        return self.share


# --- rate -------------------------------------------------------------------------------------------------------------


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    limit = RateLimit(10.0, 3)
    assert [limit.ask(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.1)]
    assert limit.ask(100.05) == pytest.approx(0.05)
    assert limit.ask(100.1) == 0.0
    assert limit.ask(100.1) > 0
    assert [limit.ask(1e6) for _ in range(4)][-1] > 0, "a long pause saves up no more than the burst"


def test_who_waited_as_long_as_told_gets_a_token() -> None:
    limit, now = RateLimit(3.0, 1), 1e5 / 3
    for _ in range(1000):
        assert limit.ask(now) == 0.0
        now += limit.ask(now)


def test_a_rate_of_zero_is_no_limit_and_a_clock_that_stepped_back_gives_nothing() -> None:
    assert [RateLimit(0.0, 1).ask(now) for now in (1.0, 1.0)] == [0.0, 0.0]
    limit = RateLimit(1.0, 1)
    assert [limit.ask(now) for now in (10.0, 5.0, 10.5)] == [0.0, 1.0, 0.5]


def test_another_rate_holds_at_once() -> None:
    limit = RateLimit(1.0, 5)
    limit.tune(2.0, 2)
    assert [limit.ask(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]


# --- at once ----------------------------------------------------------------------------------------------------------


def test_places_are_handed_over_in_order() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 2)
    assert bulkhead.enter()
    assert not bulkhead.enter()
    assert [bulkhead.wait(ticket) for ticket in "abc"] == [True, True, False]
    assert bulkhead.leave() == "a"
    assert not bulkhead.enter(), "it is a's"
    assert bulkhead.leave() == "b"
    assert bulkhead.leave() is None
    assert (bulkhead.busy, len(bulkhead)) == (0, 0)
    assert bulkhead.enter()


def test_who_gives_up_leaves_the_queue_or_passes_its_place_on() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 3)
    bulkhead.enter()
    for ticket in "abc":
        bulkhead.wait(ticket)
    assert bulkhead.forget("b") is None
    assert bulkhead.leave() == "a"
    assert bulkhead.forget("a") == "c", "a was woken, and gave up before it ran"
    assert bulkhead.forget("c") is None
    assert (bulkhead.busy, len(bulkhead)) == (0, 0)


def test_other_limits_wake_who_fits_and_throw_nobody_out() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(1, 9)
    bulkhead.enter()
    for ticket in "abcd":
        bulkhead.wait(ticket)
    assert bulkhead.tune(3, 9) == ["a", "b"]
    assert bulkhead.tune(2, 0) == []
    assert bulkhead.leave() is None, "there are still two"
    assert not bulkhead.wait("e")
    assert bulkhead.leave() == "c"
    assert bulkhead.tune(0, 0) == ["d"]
    assert all(bulkhead.enter() for _ in range(1000))


# --- a dependency that takes few --------------------------------------------------------------------------------------


def test_none_is_refused_while_half_of_the_calls_are_good() -> None:
    throttle, rng = Throttle(2.0), Draw(0.0)
    for n in range(1000):
        throttle.tell(n % 2 == 0, 0.0)
        assert not throttle.ask(0.0, rng)
    assert rng.count == 0, "no chance is drawn"


def test_calls_are_refused_in_the_proportion_of_the_book() -> None:
    throttle = Throttle(2.0)
    for n in range(100):
        throttle.tell(n < 10, 0.0)
    share = (100 - 2 * 10) / 101
    assert not throttle.ask(0.0, Draw(share))
    assert throttle.ask(0.0, Draw(share - 1e-9))
    assert (throttle.requests, throttle.accepts) == (101, 10), "a refused one counts"


def test_calls_under_way_are_no_evidence() -> None:
    throttle = Throttle(2.0)
    assert not any(throttle.ask(0.0, Draw(0.0)) for _ in range(1000))


def test_calls_are_forgotten_after_two_minutes() -> None:
    throttle = Throttle(1.0)
    throttle.tell(False, 3.0)
    assert throttle.ask(119.9, Draw(0.0))
    assert throttle.requests == 2
    assert throttle.ask(120.0, Draw(0.0)), "the refused one is younger"
    assert not throttle.ask(1e9, Draw(0.0))
    assert throttle.requests == 0


def test_a_factor_of_zero_refuses_none() -> None:
    throttle = Throttle(1.0)
    for _ in range(100):
        throttle.tell(False, 0.0)
    assert throttle.ask(0.0, Draw(0.0))
    throttle.tune(0.0)
    assert not throttle.ask(0.0, Draw(0.0))
