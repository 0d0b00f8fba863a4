"""Mistakes that the behaviours found, and that none of them names."""

from __future__ import annotations

import asyncio
import gc

import pytest

from genesis import CircuitState
from genesis.core.errors import AbandonedError, CircuitOpenError
from genesis.core.signals import Step
from tests.unit.runtime.policy.support import (
    DOWN,
    HANG,
    After,
    Dependency,
    counter,
    hear,
    learned,
    opened,
    policy,
    started,
    tried,
)


async def test_a_refused_awaitable_is_closed_and_does_not_warn_that_it_never_began() -> None:
    guarded = await opened()
    for _ in range(3):
        assert isinstance(await tried(guarded.guard(Dependency().call())), CircuitOpenError)
    gc.collect()  # a warning would be an error


async def test_calls_that_end_at_once_bring_the_success_probability_back() -> None:
    guarded = policy(abandon_below=0.3, failure_threshold=1000.0, failure_rate=1.0)

    @guarded
    async def call(good: bool) -> str:
        if not good:
            raise DOWN
        return "good"

    for _ in range(20):
        await tried(call(False))
        for _ in range(100):
            assert await call(True) == "good"
    assert guarded.view()["success_probability"] == 1.0
    found = [await tried(call(False)) for _ in range(8)]
    assert isinstance(found[-1], AbandonedError)


async def test_a_stream_is_no_value_to_be_judged_or_kept() -> None:
    guarded = policy(stale_s=60.0)

    @guarded.protect(bad_result=lambda value: value > 1)
    async def items(fails: bool):
        if fails:
            raise DOWN
        yield 1
        yield 2

    assert [item async for item in items(False)] == [1, 2]
    assert guarded.view()["failure_count"] == 0

    async def again() -> list[int]:
        return [item async for item in items(True)]

    assert await tried(again()) is DOWN


async def test_results_are_kept_under_arguments_that_cannot_be_hashed() -> None:
    guarded = policy(stale_s=60.0)
    dependency = Dependency("kept", DOWN)
    operation = guarded.protect()
    assert await operation.call(dependency.call, ["a list"]) == "kept"
    assert await operation.call(dependency.call, ["a list"]) == "kept"
    assert counter(guarded)(Step.STALE) == 1


async def test_a_copy_takes_no_try_away() -> None:
    guarded = policy(hedges=1)
    await learned(guarded)
    operation = guarded.protect(idempotent=True, attempts=2)
    assert await operation.call(Dependency(DOWN, DOWN, "the second try").call) == "the second try"


async def test_a_fallback_that_failed_beside_an_attempt_is_not_called_again() -> None:
    guarded, instead = policy(), Dependency(KeyError("the fallback"))
    await learned(guarded)
    guarded.degrade("said so")
    operation = guarded.protect(idempotent=True, fallback=instead.call)
    assert await tried(operation.call(Dependency(After(0.01, DOWN)).call)) is DOWN
    assert instead.calls == 1
    assert guarded.view()["failure_count"] == 1


async def test_a_dependency_that_hangs_behind_a_fast_fallback_is_seen_to_fail() -> None:
    guarded = policy()
    await learned(guarded)
    guarded.degrade("said so")
    operation = guarded.protect(idempotent=True, fallback=lambda: "instead")
    for _ in range(200):
        assert await operation.call(Dependency(HANG).call) == "instead"
        if guarded.state is CircuitState.OPEN:
            break
    assert guarded.state is CircuitState.OPEN


def test_plain_functions_are_told_as_all_others() -> None:
    guarded = policy()
    heard = hear(guarded)

    @guarded
    def call(good: bool) -> str:
        if not good:
            raise DOWN
        return "good"

    assert call(True) == "good"
    assert asyncio.run(_tried_plain(call)) is DOWN
    assert [(one.number, one.outcome) for one in heard.attempts] == [(1, "good"), (1, "failed")]


async def _tried_plain(call) -> object:
    try:
        return call(False)
    except Exception as error:
        return error


@pytest.mark.parametrize("calls_per_s", [1, 10, 100])
async def test_a_dependency_that_became_much_slower_is_noticed_at_any_rate(calls_per_s: int) -> None:
    guarded, loop = policy(timeout_s=5.0), asyncio.get_running_loop()
    calls = []
    while loop.time() < 90.0:
        takes_s = 0.1 if loop.time() < 60.0 else 0.9
        calls.append(started(guarded.call(Dependency(After(takes_s)).call)))
        await asyncio.sleep(1 / calls_per_s)
    assert guarded.state is CircuitState.RESILIENT
    await asyncio.gather(*calls)


async def test_a_dependency_that_slowly_becomes_slower_is_usual() -> None:
    guarded, loop = policy(timeout_s=5.0), asyncio.get_running_loop()
    while loop.time() < 600.0:
        await guarded.call(Dependency(After(0.1 + loop.time() / 1000.0)).call)
    assert guarded.state is CircuitState.CLOSED
