"""The sketch of durations against the sorted durations, and the ledger against what happened."""

from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from genesis.core.ports import Ledger
from genesis.core.stats import Histogram, turned

FIVE_HOURS = 18_000.0
DURATIONS = st.floats(1e-6, FIVE_HOURS)
SHARES = st.floats(0, 1)


def sketch_of(durations: list[float]) -> Histogram:
    sketch = Histogram()
    for duration in durations:
        sketch.add(duration)
    return sketch


@given(st.lists(DURATIONS, min_size=1), SHARES)
def test_a_quantile_is_right_to_one_percent(durations: list[float], share: float) -> None:
    exact = sorted(durations)[max(1, ceil(share * len(durations))) - 1]
    assert sketch_of(durations).quantile(share) == pytest.approx(exact, rel=0.01)


@given(st.lists(DURATIONS), st.lists(DURATIONS))
def test_merged_sketches_are_the_sketch_of_all(one: list[float], other: list[float]) -> None:
    merged, both = sketch_of(one), sketch_of(one + other)
    merged.merge(sketch_of(other))
    assert (merged.counts, merged.count, merged.max) == (both.counts, both.count, both.max)
    assert merged.total == pytest.approx(both.total)
    assert [merged.quantile(q) for q in (0.0, 0.5, 1.0)] == [both.quantile(q) for q in (0.0, 0.5, 1.0)]


@given(DURATIONS, st.integers(1, 1000))
def test_many_alike_are_counted_in_one_go(duration: float, times: int) -> None:
    sketch = Histogram()
    sketch.add(duration, times)
    many = sketch_of([duration] * times)
    assert (sketch.counts, sketch.count, sketch.max) == (many.counts, many.count, many.max)
    assert sketch.total == pytest.approx(many.total)


@given(st.floats(-1e6, 1e-6))
def test_below_a_microsecond_counts_as_one_even_when_the_clock_stepped_back(duration: float) -> None:
    sketch = sketch_of([duration])
    assert sketch.count == 1
    assert sketch.quantile(1.0) == 1e-6


@given(st.floats(22_000, 1e9))
def test_above_the_last_bucket_counts_as_that(duration: float) -> None:
    assert sketch_of([duration]).quantile(0.5) == pytest.approx(20_500, rel=0.02)


def test_an_empty_sketch_says_zero() -> None:
    assert Histogram().quantile(0.99) == 0.0


@given(st.sampled_from([0.25, 1.0, 6.0, 10.0]), st.lists(st.integers(0, 400), min_size=1))
def test_a_window_moves_on_by_whole_buckets(width_s: float, steps: list[int]) -> None:
    now, due, total = 0.0, 0.0, 0
    for step in steps:
        now += step / 8
        if now >= due:
            ended, due = turned(now, due, width_s)
            assert ended >= 1
            total += ended
        assert due - width_s <= now < due
        assert total == now // width_s + 1, "with the one that never began"


# --- the ledger -----------------------------------------------------------------------------------------------------


def refused(ledger: Ledger) -> None:
    ledger.offered += 1
    ledger.refused += 1


def duplicate(ledger: Ledger) -> None:
    ledger.offered += 1
    ledger.duplicate += 1


def accepted(ledger: Ledger) -> None:
    ledger.offered += 1
    ledger.accepted += 1
    ledger.external += 2
    ledger.in_lanes += 2


def begun(kind: str) -> Callable[[Ledger], None]:
    def step(ledger: Ledger) -> None:
        setattr(ledger, kind, getattr(ledger, kind) + 1)
        ledger.in_lanes += 1

    return step


def moved(source: str, target: str) -> Callable[[Ledger], None]:
    def step(ledger: Ledger) -> None:
        if getattr(ledger, source):
            setattr(ledger, source, getattr(ledger, source) - 1)
            setattr(ledger, target, getattr(ledger, target) + 1)

    return step


STEPS = [
    refused,
    duplicate,
    accepted,
    *[begun(kind) for kind in ("emitted", "timer", "replay")],
    *[moved("in_lanes", end) for end in ("done", "expired", "dead", "in_pending")],
    *[moved("in_pending", end) for end in ("done", "expired", "dead")],
]
GATE = ("offered", "accepted", "refused", "duplicate")
LIVES = ("external", "emitted", "timer", "replay", "done", "expired", "dead", "in_lanes", "in_pending")


@given(st.lists(st.sampled_from(STEPS)), st.sampled_from((*GATE, *LIVES)), st.integers(1, 5))
def test_the_ledger_adds_up_after_every_step_and_not_when_one_counter_is_off(
    steps: list[Callable[[Ledger], None]], counter: str, error: int
) -> None:
    ledger = Ledger()
    for step in steps:
        step(ledger)
        assert ledger.imbalance() == ""
    wrong = replace(ledger, **{counter: getattr(ledger, counter) + error}).imbalance()
    assert wrong.startswith("offered " if counter in GATE else "born ")
    assert "; " not in wrong


def test_both_sides_of_a_ledger_may_be_wrong() -> None:
    wrong = Ledger(offered=3, external=2, in_lanes=1).imbalance()
    assert wrong == "offered 3 != accepted + refused + duplicate 0; born 2 != done + expired + dead + waiting 1"
