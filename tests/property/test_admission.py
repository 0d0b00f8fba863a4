"""The gate: it refuses over its limits, never below, and says when to come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis.layers.prevention.admission import RETRY_MAX_S, RETRY_MIN_S, Admission, AdmissionSettings

MIB = 1 << 20
LIMITS = st.integers(1, 10_000)
WAITING = st.integers(0, 100_000)
COMMITS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 1000), st.floats(0, 100)), max_size=20
)  # fmt: skip
"""Deliveries that a commit ended, what they emitted, and the seconds since the last one."""
BOOT = 1_000_000.0
"""The clock at the start: it counts from the start of the machine."""


def told(admission: Admission, commits: list[tuple[int, int, float]]) -> Admission:
    now = BOOT
    for ended, emitted, after in commits:
        now += after
        admission.tell_done(ended, emitted, now)
    return admission


@given(LIMITS, WAITING, COMMITS)
def test_while_nothing_fans_out_exactly_the_limit_may_wait(
    limit: int, waiting: int, commits: list[tuple[int, int, float]]
) -> None:
    admission = told(Admission(AdmissionSettings(backlog_max=limit)), [(ended, 0, after) for ended, _, after in commits])
    assert (admission.ask(waiting) is None) == (waiting < limit)


@given(LIMITS, WAITING, COMMITS)
def test_fan_out_counts_and_never_more_than_it_was(limit: int, waiting: int, commits: list[tuple[int, int, float]]) -> None:
    admission = told(Admission(AdmissionSettings(backlog_max=limit)), commits)
    most = 1 + max((emitted / ended for ended, emitted, _ in commits if ended), default=0)
    assert 1 <= admission.weight <= most * 1.001
    refusal = admission.ask(waiting)
    if waiting >= limit:
        assert refusal is not None, "over the limit"
    if waiting * most * 1.001 < limit:
        assert refusal is None, "below the limit, whatever may come of it"
    assert (admission.limit <= waiting) == (refusal is not None)


@given(COMMITS, WAITING)
def test_a_refusal_says_why_and_to_come_back_within_a_minute(commits: list[tuple[int, int, float]], waiting: int) -> None:
    refusal = told(Admission(AdmissionSettings(backlog_max=1)), commits).ask(waiting + 1)
    assert refusal is not None
    assert f"{waiting + 1} deliveries wait" in refusal[0]
    assert RETRY_MIN_S <= refusal[1] <= RETRY_MAX_S


@given(COMMITS, st.integers(1, 100), st.integers(0, 10))
def test_the_fan_out_of_late_is_learned_within_some_hundred_deliveries(
    before: list[tuple[int, int, float]], ended: int, each: int
) -> None:
    admission = told(Admission(AdmissionSettings()), [*before, *[(ended, ended * each, 0.1)] * (1 + 1000 // ended)])
    assert admission.weight == pytest.approx(1 + each, abs=0.01)


@given(st.integers(1, 100), st.floats(0.01, 1), st.integers(10_000, 100_000))
def test_who_comes_back_as_told_finds_a_tenth_of_the_backlog_gone(ended: int, every: float, waiting: int) -> None:
    admission = told(Admission(AdmissionSettings(backlog_max=1)), [(ended, 0, every)] * 3)
    refusal = admission.ask(waiting)
    assert refusal is not None
    tenth_s = waiting / 10 * every / ended
    assert refusal[1] == pytest.approx(min(RETRY_MAX_S, max(RETRY_MIN_S, tenth_s)), rel=0.01)


@given(st.integers(0, 200 * MIB), st.integers(0, 200 * MIB), st.none() | st.integers(MIB, 200 * MIB), st.integers(0, 99))
def test_a_full_store_takes_nothing_until_there_is_room(used: int, free: int, quota: int | None, waiting: int) -> None:
    admission = Admission(AdmissionSettings(backlog_max=100, quota_bytes=quota, disk_reserve_bytes=50 * MIB))
    admission.tell_usage(used, free)
    reserve = 50 * MIB if quota is None else min(50 * MIB, int(0.3 * quota))
    over_quota = quota is not None and used * 10 >= quota * 7
    near_the_edge = (quota is not None and abs(used * 10 - quota * 7) <= 10) or abs(free - reserve) <= 10
    refusal = admission.ask(waiting)
    assert near_the_edge or (refusal is not None) == (over_quota or free < reserve)
    if refusal is not None:
        assert ("quota" in refusal[0]) or ("left on the disk" in refusal[0])
        assert RETRY_MIN_S <= refusal[1] <= RETRY_MAX_S
    admission.tell_usage(0, 200 * MIB)
    assert admission.ask(waiting) is None
