"""The closed circuit counts: behaviours 1 to 12. What opens it, and what is no failure."""

from __future__ import annotations

import asyncio

import pytest

from genesis import CircuitState
from genesis.core.errors import CircuitOpenError
from tests.unit.runtime.policy.support import (
    DOWN,
    After,
    Dependency,
    DownError,
    at_once,
    fail,
    hear,
    learned,
    opened,
    policy,
    succeed,
    tried,
)


async def test_b1_there_is_no_rate_below_the_minimum_of_calls() -> None:
    guarded = policy(failure_threshold=1000.0, minimum_calls=20, warning_rate=1.0, failure_rate=1.0)
    await fail(guarded, 19)
    assert guarded.state is CircuitState.CLOSED
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN


@pytest.mark.parametrize("then", ["good", DOWN], ids=["good", "failing"])
async def test_b3_slow_calls_alone_open_it_whether_they_are_good_or_not(then: object) -> None:
    guarded = policy(failure_threshold=1000.0, failure_rate=1.0, warning_rate=1.0, slow_rate=0.0, slow_open_rate=0.5)
    await learned(guarded)
    dependency = Dependency(After(0.5, then))
    await at_once(*(guarded.call(dependency.call) for _ in range(14)))
    assert guarded.state is CircuitState.CLOSED
    await at_once(guarded.call(dependency.call))
    assert guarded.state is CircuitState.OPEN
    assert "were slow" in guarded.whole.circuit.why


async def test_b5_calls_older_than_the_window_do_not_count() -> None:
    guarded = policy(failure_threshold=1000.0, warning_rate=1.0, failure_rate=1.0)
    await fail(guarded, 19)
    await asyncio.sleep(66.1)
    await fail(guarded, 19)
    assert guarded.state is CircuitState.CLOSED
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN


async def test_b6_an_ignored_error_is_neither_a_success_nor_a_failure() -> None:
    guarded = policy()
    guarded.ignored = type(guarded.ignored)(KeyError)
    await fail(guarded, 2)
    before = guarded.view()
    assert isinstance((await fail(guarded, 1, KeyError("k")))[0], KeyError)
    after = guarded.view()
    assert [after[name] for name in ("failure_count", "success_count")] == [before["failure_count"], before["success_count"]]
    assert guarded.whole.circuit.window.calls == 2
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN


async def test_b7_what_is_ignored_and_a_failure_is_ignored() -> None:
    from genesis import Policy

    guarded = Policy("both-lists", failure_threshold=1.0, failure_on=DownError, ignore=DownError)
    await fail(guarded, 3)
    assert guarded.state is CircuitState.CLOSED


async def test_b8_a_bad_value_is_a_failure_and_others_are_good() -> None:
    guarded = policy()
    operation = guarded.protect(bad_result=lambda value: value == "bad")
    assert await operation.call(Dependency("bad").call) == "bad"
    assert guarded.view()["failure_count"] == 1.0
    assert await operation.call(Dependency("good").call) == "good"
    assert guarded.view()["failure_count"] == 0.0
    for _ in range(3):
        await tried(operation.call(Dependency("bad").call))
    assert guarded.state is CircuitState.OPEN


async def test_b9_a_success_ends_the_row_of_failures() -> None:
    guarded = policy()
    for _ in range(5):
        await fail(guarded, 2)
        await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


async def test_b10_errors_are_told_by_class_subclass_and_function_together() -> None:
    from genesis import Policy

    guarded = Policy("mixed", failure_threshold=1.0, ignore=(LookupError, lambda error: "mine" in str(error)))
    for error in (KeyError("a subclass"), IndexError("another"), ValueError("mine")):
        await fail(guarded, 1, error)
    assert guarded.whole.circuit.window.calls == 0
    await fail(guarded, 1, ValueError("yours"))
    assert guarded.state is CircuitState.OPEN


async def test_b11_an_opening_is_told_once() -> None:
    guarded = policy()
    heard = hear(guarded)
    late = [guarded.call(Dependency(After(0.1, DOWN)).call) for _ in range(20)]
    await at_once(*late)
    await fail(guarded, 20)
    assert heard.changes == [("CLOSED", "OPEN")]


async def test_b12_an_error_that_is_no_failure_is_an_answer() -> None:
    from genesis import Policy

    guarded = Policy("answers", failure_threshold=3.0, failure_on=DownError, attempts=1)
    await fail(guarded, 2)
    assert [type(error) for error in await fail(guarded, 1, ValueError("no such user"))] == [ValueError]
    assert guarded.view()["failure_count"] == 0.0
    assert guarded.whole.circuit.window.calls == 3
    await fail(guarded, 2)
    assert guarded.state is CircuitState.CLOSED


async def test_the_call_that_opened_it_says_so_and_why() -> None:
    guarded = policy()
    errors = await fail(guarded, 3)
    assert [type(error) for error in errors] == [DownError, DownError, CircuitOpenError]
    assert isinstance((await opened()).whole.cause, DownError)
