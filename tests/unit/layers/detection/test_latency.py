"""Durations of calls: what is known, when it is forgotten, and calls that were given up."""

from random import Random

import pytest

from genesis.layers.detection.latency import MINIMUM, Latency, LoadCorrelation


def told(*latencies_s: float, now: float = 0.0) -> Latency:
    latency = Latency()
    for one in latencies_s:
        latency.tell(one, now)
    return latency


def test_nothing_is_said_with_too_few_samples() -> None:
    latency = told(*[0.1] * (MINIMUM - 1))
    assert (latency.quantile(0.5, 0.0), latency.mean(0.0), latency.topped(0.5, 0.0)) == (None, None, False)
    assert latency.censored_share(0.0) == Latency().censored_share(0.0) == 0.0
    latency.tell_censored(0.1, 0.0)
    assert latency.count(0.0) == MINIMUM
    assert latency.quantile(0.5, 0.0) == pytest.approx(0.1, rel=0.02)


def test_quantiles_and_mean_are_right_to_two_percent() -> None:
    latency = told(*[n / 1000 for n in range(1, 1001)])
    for q, seconds in {0.0: 0.001, 0.5: 0.5, 0.95: 0.95, 0.99: 0.99, 1.0: 1.0}.items():
        assert latency.quantile(q, 0.0) == pytest.approx(seconds, rel=0.02)
    assert latency.mean(0.0) == pytest.approx(0.5005, rel=0.02)


def test_samples_count_for_two_thirds_of_the_window_at_least_and_not_longer_than_it() -> None:
    latency = told(*[0.1] * 50, now=9.9)
    assert latency.count(29.9) == 50
    assert latency.quantile(0.5, 29.9) == pytest.approx(0.1, rel=0.02)
    assert latency.count(30.0) == 0
    assert latency.quantile(0.5, 30.0) is None
    assert told(*[0.1] * 50, now=9.9).count(1e9) == 0
    assert told(*[0.1] * 50, now=9.9).quantile(0.5, 30.0) is None


def test_a_sample_at_the_end_of_a_third_belongs_to_the_next_one() -> None:
    latency = told(*[0.1] * 25, now=9.0)
    latency.tell(0.1, 10.0)
    latency.tell_censored(0.1, 20.0)
    assert [latency.count(now) for now in (29.0, 30.0, 39.0, 40.0, 49.0, 50.0)] == [27, 2, 2, 1, 1, 0]


@pytest.mark.parametrize(("latency_s", "counted_s"), [(-1.0, 1e-6), (0.0, 1e-6), (float("nan"), 1e-6), (1e9, 3600.0)])
def test_what_is_out_of_range_is_clamped(latency_s: float, counted_s: float) -> None:
    latency = told(*[latency_s] * MINIMUM)
    assert latency.quantile(0.5, 0.0) == pytest.approx(counted_s, rel=0.02)
    for _ in range(MINIMUM):
        latency.tell_censored(latency_s, 0.0)
    assert latency.quantile(1.0, 0.0) == pytest.approx(counted_s, rel=0.02)


def test_estimates_are_made_anew_after_a_second_or_when_the_count_has_grown() -> None:
    latency = told(*[0.1] * 100)
    assert latency.quantile(0.5, 0.0) == latency.mean(0.0) == pytest.approx(0.1, rel=0.02)
    for _ in range(24):
        latency.tell(1.0, 0.0)
    assert latency.quantile(1.0, 0.9) == pytest.approx(0.1, rel=0.02), "the estimate of before"
    assert latency.quantile(1.0, 1.0) == pytest.approx(1.0, rel=0.02), "a second has passed"
    for _ in range(31):
        latency.tell(9.0, 1.0)
    assert latency.quantile(1.0, 1.0) == pytest.approx(9.0, rel=0.02), "the count has grown by a quarter"


def test_timeouts_do_not_make_the_dependency_look_fast() -> None:
    latency = told(*[0.1] * 60)
    for _ in range(40):
        latency.tell_censored(0.5, 0.0)
    assert latency.censored_share(0.0) == 0.4
    assert (latency.topped(0.6, 0.0), latency.topped(0.61, 0.0)) == (False, True)
    assert latency.quantile(0.5, 0.0) == pytest.approx(0.1, rel=0.02)
    assert latency.quantile(0.95, 0.0) == pytest.approx(0.5, rel=0.02), "at least that"
    assert latency.mean(0.0) == pytest.approx(0.6 * 0.1 + 0.4 * 0.5, rel=0.02)


def test_losers_that_were_cancelled_early_say_nothing_about_fast_calls() -> None:
    latency = told(*[0.1] * 50, *[1.0] * 50)
    for _ in range(100):
        latency.tell_censored(0.01, 0.0)
    assert latency.quantile(0.5, 0.0) == pytest.approx(0.1, rel=0.02)
    assert latency.quantile(0.51, 0.0) == pytest.approx(1.0, rel=0.02)
    assert not latency.topped(1.0, 0.0), "the slowest have ended"


def test_only_timeouts_give_a_lower_bound() -> None:
    latency = Latency()
    for _ in range(MINIMUM):
        latency.tell_censored(2.0, 0.0)
    assert latency.topped(0.0001, 0.0)
    assert latency.quantile(0.5, 0.0) == latency.mean(0.0) == pytest.approx(2.0, rel=0.02)
    assert latency.censored_share(0.0) == 1.0


# --- our own load -----------------------------------------------------------------------------------------------------


def test_a_dependency_that_slows_down_under_our_load_is_bound_by_it_until_it_no_longer_does() -> None:
    load, rng = LoadCorrelation(), Random(1)
    for _ in range(29):
        load.tell(inflight := rng.randint(1, 20), 0.01 * inflight)
    assert (load.bound(), load.correlation() > 0.9) == (False, True), "too few to tell"
    load.tell(3, 0.03)
    assert load.bound()
    for _ in range(500):
        load.tell(rng.randint(1, 20), rng.lognormvariate(-4, 0.5))
    assert not load.bound()


def test_latency_that_is_our_load_backwards_is_not_bound() -> None:
    load, rng = LoadCorrelation(), Random(1)
    for _ in range(100):
        load.tell(inflight := rng.randint(1, 20), 1 / inflight)
    assert load.correlation() < -0.9
    assert not load.bound()


def test_nothing_is_said_of_a_load_or_a_latency_that_does_not_vary() -> None:
    same_load, same_latency, one_peak = LoadCorrelation(), LoadCorrelation(), LoadCorrelation()
    for n in range(100):
        same_load.tell(1, 0.01 * (n + 1))
        same_latency.tell(n, 0.1)
        one_peak.tell(1 + (n == 50), 0.1 + (n == 50))
    assert same_load.correlation() == same_latency.correlation() == 0.0
    assert one_peak.correlation() > 0.9
    assert not any(load.bound() for load in (same_load, same_latency, one_peak))
