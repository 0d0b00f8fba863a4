"""Estimates of durations against the plain product-limit estimator over the list of all calls."""

from math import ceil, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from genesis.layers.detection.latency import AGE, MINIMUM, Latency, LoadCorrelation

WINDOW_S = 30.0
DURATIONS = st.floats(1e-6, 3600.0)
GRID = st.integers(-80, 60).map(lambda n: 1.1**n)
"""Far enough apart that two of them never share a bucket, so that order is not lost."""
SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0])
Call = tuple[float, bool]
"""How long it took, and whether it was given up then."""


def alive_by_time(calls: list[Call]) -> list[tuple[float, float]]:
    """The times at which calls ended, and the share that lives on after each."""
    alive, steps = 1.0, []
    for seconds in sorted({seconds for seconds, given_up in calls if not given_up}):
        at_risk = sum(other >= seconds for other, _ in calls)
        ended = sum(other == seconds and not given_up for other, given_up in calls)
        alive *= 1 - ended / at_risk
        steps.append((seconds, alive))
    return steps


def plain_quantile(calls: list[Call], q: float) -> tuple[float, bool]:
    """The quantile, and whether it is only a lower bound."""
    for seconds, alive in alive_by_time(calls):
        if 1 - alive >= q - 1e-9:
            return seconds, False
    return max(seconds for seconds, _ in calls), q > 0 or all(given_up for _, given_up in calls)


def plain_mean(calls: list[Call]) -> float:
    mean, before = 0.0, 1.0
    for seconds, alive in alive_by_time(calls):
        mean += seconds * (before - alive)
        before = alive
    return mean + before * max(seconds for seconds, _ in calls)


class LatencyAgainstAList(RuleBasedStateMachine):
    """Calls end or are given up, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.latency = Latency(WINDOW_S)
        self.now = 1000.0
        self.calls: list[tuple[float, float, bool]] = []

    def young(self) -> list[Call]:
        """Of the present third of the window and the two before."""
        third = WINDOW_S / 3
        return [(seconds, up) for at, seconds, up in self.calls if at // third > self.now // third - 3]

    @rule(latencies=st.lists(GRID, min_size=1, max_size=30))
    def calls_end(self, latencies: list[float]) -> None:
        for one in latencies:
            self.latency.tell(one, self.now)
            self.calls.append((self.now, one, False))

    @rule(elapsed=st.lists(GRID, min_size=1, max_size=10))
    def calls_are_given_up(self, elapsed: list[float]) -> None:
        for one in elapsed:
            self.latency.tell_censored(one, self.now)
            self.calls.append((self.now, one, True))

    @rule(step=st.sampled_from([0.25, 1.0, 5.0, 12.0, 31.0, 1e6]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(q=SHARES)
    def somebody_asks(self, q: float) -> None:
        self.now += 1.0  # estimates may be that old
        calls = self.young()
        seconds = self.latency.quantile(q, self.now)
        if len(calls) < MINIMUM:
            assert (seconds, self.latency.mean(self.now), self.latency.topped(q, self.now)) == (None, None, False)
            return
        wanted, is_bound = plain_quantile(calls, q)
        assert seconds == pytest.approx(wanted, rel=0.02)
        if q:
            assert self.latency.topped(q, self.now) == is_bound
        assert self.latency.mean(self.now) == pytest.approx(plain_mean(calls), rel=0.02)

    @invariant()
    def counts_are_those_of_the_window(self) -> None:
        calls = self.young()
        assert self.latency.count(self.now) == len(calls)
        assert self.latency.censored_share(self.now) == (sum(up for _, up in calls) / len(calls) if calls else 0.0)


TestLatency = LatencyAgainstAList.TestCase


@given(st.lists(DURATIONS, min_size=MINIMUM), st.floats(0, 1))
def test_without_losses_a_quantile_is_that_of_the_sorted_durations(durations: list[float], q: float) -> None:
    latency = Latency()
    for one in durations:
        latency.tell(one, 0.0)
    rank = max(1, ceil(q * len(durations) - 1e-6))
    assert latency.quantile(q, 0.0) == pytest.approx(sorted(durations)[rank - 1], rel=0.02)
    assert not latency.topped(q, 0.0)


@given(st.lists(st.tuples(DURATIONS, st.booleans()), min_size=MINIMUM, max_size=60), DURATIONS, st.floats(0, 1))
def test_one_more_that_was_given_up_never_lowers_an_estimate(calls: list[Call], elapsed_s: float, q: float) -> None:
    one, other = Latency(), Latency()
    for latency in (one, other):
        for seconds, given_up in calls:
            (latency.tell_censored if given_up else latency.tell)(seconds, 0.0)
    other.tell_censored(elapsed_s, 0.0)
    before, after = one.quantile(q, 0.0), other.quantile(q, 0.0)
    mean_before, mean_after = one.mean(0.0), other.mean(0.0)
    assert before is not None
    assert after is not None
    assert mean_before is not None
    assert mean_after is not None
    assert after >= before
    assert mean_after >= mean_before * (1 - 1e-12)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(1e-4, 100)), min_size=2, max_size=300))
def test_the_correlation_is_that_of_the_weighted_list(calls: list[tuple[int, float]]) -> None:
    load, weights = LoadCorrelation(), list[float]()
    for number, (inflight, latency_s) in enumerate(calls, 1):
        load.tell(inflight, latency_s)
        weight = 1 / min(number, AGE)
        weights = [one * (1 - weight) for one in weights] + [weight]
    xs, ys = [float(inflight) for inflight, _ in calls], [log(latency_s) for _, latency_s in calls]
    x_mean, y_mean = (sum(w * v for w, v in zip(weights, vs, strict=True)) for vs in (xs, ys))
    xx = sum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs, strict=True))
    yy = sum(w * (y - y_mean) ** 2 for w, y in zip(weights, ys, strict=True))
    xy = sum(w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys, strict=True))
    wanted = xy / sqrt(xx * yy) if xx > 1e-6 and yy > 1e-6 else 0.0
    if xx > 1e-6 and yy > 1e-6:
        assert load.correlation() == pytest.approx(wanted, abs=1e-6)
    assert -1 <= load.correlation() <= 1
    assert not load.bound() or (len(calls) >= 30 and wanted > 0.499)
