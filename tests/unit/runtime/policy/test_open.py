"""The open circuit refuses: behaviours 13 to 22."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from genesis import CircuitState, Policy
from genesis.core.errors import CircuitOpenError
from tests.unit.runtime.policy.support import (
    DOWN,
    After,
    Dependency,
    DownError,
    at_once,
    counter,
    fail,
    hear,
    opened,
    policy,
    started,
    succeed,
    tried,
)


async def test_b13_it_refuses_without_a_call_and_counts_it() -> None:
    guarded, dependency = await opened(), Dependency()
    for _ in range(7):
        assert isinstance(await tried(guarded.call(dependency.call)), CircuitOpenError)
    assert dependency.calls == 0
    assert counter(guarded)("rejected") == 7


async def test_b14_what_was_refused_is_in_no_rate() -> None:
    guarded = await opened()
    before = guarded.whole.circuit.window.calls
    await fail(guarded, 50)
    assert guarded.whole.circuit.window.calls == before
    assert guarded.view()["failure_count"] == 0.0


async def test_b15_a_refusal_says_when_to_come_back_and_what_opened_it() -> None:
    guarded = await opened()
    await asyncio.sleep(2.0)
    (refusal,) = await fail(guarded)
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.retry_after_s == pytest.approx(3.0)
    assert refusal.why == "3 failures in a row"
    assert isinstance(refusal.__cause__, DownError)


async def test_b17_a_late_success_does_nothing_while_it_is_open() -> None:
    guarded = policy()
    late = started(guarded.call(Dependency(After(0.5)).call))
    await asyncio.sleep(0)
    await fail(guarded, 3)
    before = guarded.view()
    assert await late == "late"
    assert guarded.state is CircuitState.OPEN
    assert {**guarded.view(), "counts": 0, "under_way": 0, "budget": 0} == {
        **before, "counts": 0, "under_way": 0, "budget": 0
    }  # fmt: skip


async def test_b19_it_is_open_for_as_long_as_it_was_told() -> None:
    guarded = policy()
    await succeed(guarded)
    guarded.force_open(60.0)
    await asyncio.sleep(59.9)
    assert isinstance((await fail(guarded))[0], CircuitOpenError)
    await asyncio.sleep(0.1)
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


async def test_b21_the_first_error_is_kept_with_its_traceback_or_raised_itself() -> None:
    guarded = policy(failure_threshold=1.0)
    (error,) = await fail(guarded)
    assert isinstance(error, CircuitOpenError)
    assert "in _do" in "".join(traceback.format_exception(error.__cause__))
    original = Policy("original", failure_threshold=1.0, attempts=1, raise_original=True)
    assert [type(one) for one in await fail(original)] == [DownError]
    assert original.state is CircuitState.OPEN


def test_b21_holds_for_plain_functions() -> None:
    guarded = policy(failure_threshold=1.0)

    @guarded
    def down() -> None:
        raise DOWN

    with pytest.raises(CircuitOpenError) as found:
        down()
    assert isinstance(found.value.__cause__, DownError)


async def test_b22_the_time_that_is_left_is_told_and_reaches_nothing() -> None:
    guarded, left = await opened(), []
    for _ in range(5):
        (refusal,) = await fail(guarded)
        left.append(refusal.retry_after_s)
        await asyncio.sleep(1.0)
    assert left == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert guarded.whole.circuit.retry_after_s(asyncio.get_running_loop().time()) == 0.0
    await succeed(guarded)


async def test_a_late_failure_does_not_prolong_it() -> None:
    guarded = policy()
    heard = hear(guarded)
    late = started(tried(guarded.call(Dependency(After(0.9, DOWN)).call)))
    await asyncio.sleep(0)
    await fail(guarded, 3)
    await late
    await asyncio.sleep(4.1)
    await succeed(guarded)
    assert heard.changes == [("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN"), ("HALF_OPEN", "CLOSED")]


async def test_the_open_time_grows_while_probes_fail() -> None:
    guarded, waits = await opened(recovery_timeout_s=5.0, recovery_max_s=60.0), []
    for _ in range(6):
        (refusal,) = await fail(guarded)
        waits.append(refusal.retry_after_s)
        await asyncio.sleep(refusal.retry_after_s)
        await at_once(guarded.call(Dependency(DOWN).call))
    assert waits[0] == 5.0
    for wait_s, most_s in zip(waits[1:], (10.0, 20.0, 40.0, 60.0, 60.0), strict=True):
        assert most_s / 2 <= wait_s <= most_s
