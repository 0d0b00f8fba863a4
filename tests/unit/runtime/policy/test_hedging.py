"""Copies of slow calls: behaviours 50 to 72."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from genesis import CircuitState, Policy, UnavailableError
from genesis.core.errors import CallTimeoutError, LimitedError
from genesis.layers.mitigation.attempts import GAP_S, as_written_plan, plan
from genesis.layers.mitigation.settings import PolicySettings
from genesis.runtime.operation import Operation
from tests.unit.runtime.policy.support import (
    DOWN,
    HANG,
    After,
    Deaf,
    Dependency,
    DownError,
    at_once,
    cancelled,
    counter,
    hear,
    learned,
    others,
    policy,
    started,
    tried,
)

VALUE: ContextVar[str] = ContextVar("value", default="nobody's")


async def hedged(**settings: Any) -> tuple[Policy, Operation]:
    """A policy that knows that calls take 0.1 s, and an operation that may run twice."""
    guarded = policy(**({"hedges": 1} | settings))
    await learned(guarded)
    return guarded, guarded.protect(idempotent=True)


async def test_b50_a_fast_answer_is_not_copied() -> None:
    guarded, operation = await hedged()
    for answer in ("good", KeyError("an answer")):
        guarded.failures = type(guarded.failures)(DownError)
        dependency = Dependency(After(0.05, answer))
        await tried(operation.call(dependency.call))
        assert dependency.calls == 1
    assert counter(guarded)("hedged") == 0


async def test_b50_a_fast_failure_starts_the_copy_at_once_out_of_the_same_budget() -> None:
    """Must differ from resilience4j, as in gRPC A6: a failure is a reason to ask another one now."""
    guarded, operation = await hedged()
    dependency = Dependency(After(0.05, DOWN), After(0.05, "copy"))
    assert await operation.call(dependency.call) == "copy"
    assert dependency.began[1] - dependency.began[0] == pytest.approx(0.05)
    assert counter(guarded)("hedged") == 1


async def test_b51_of_a_slow_attempt_and_a_fast_good_copy_the_copy_wins() -> None:
    guarded, operation = await hedged()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await operation.call(Dependency(After(0.9, "first"), After(0.05, "copy")).call) == "copy"
    assert loop.time() - began == pytest.approx(0.15, rel=0.05)
    assert counter(guarded)("hedge won") == 1


@pytest.mark.parametrize("bad", [DOWN, "bad"], ids=["error", "value"])
async def test_b52_a_fast_bad_copy_does_not_beat_a_slow_good_attempt(bad: object) -> None:
    """Must differ from resilience4j, where whoever completes first wins."""
    guarded, _ = await hedged()
    operation = guarded.protect(idempotent=True, bad_result=lambda value: value == "bad")
    assert await operation.call(Dependency(After(0.5, "first"), After(0.01, bad)).call) == "first"
    assert guarded.view()["failure_count"] == 0
    assert counter(guarded)("hedge lost") == 1


@pytest.mark.parametrize("limit", [{"concurrency": 1}, {"rate_per_s": 0.001, "burst": 1}], ids=["places", "rate"])
async def test_b52_a_copy_that_a_limit_refuses_does_not_beat_it_either(limit: dict[str, Any]) -> None:
    guarded, operation = await hedged()
    guarded.update(**limit)
    budget = guarded.budget.view()["hedges"]
    dependency = Dependency(After(0.5, "first"))
    assert await operation.call(dependency.call) == "first"
    assert dependency.calls == 1
    assert guarded.budget.view()["hedges"] == budget, "it never started, and was given back"


async def test_b54_copies_never_start_at_once_and_without_hedges_nothing_overlaps() -> None:
    """Must differ from Polly: no delay of zero, since a copy that is begun at once is a second load. See `as_written_plan`."""
    facts: dict[str, Any] = {"idempotent": True, "has_fallback": False, "vetoed": False, "expected_s": 3.0}
    made = plan(PolicySettings(hedges=2), state="ULTRA_RESILIENT", quantile=lambda q: 0.0, **facts)
    assert made.copies == (GAP_S, 2 * GAP_S)
    assert as_written_plan("ULTRA_RESILIENT", 3.0, has_fallback=False).copies == (0.0, 0.0)
    _, operation = await hedged(hedges=0)
    dependency = Dependency(After(0.9, "first"))
    assert await operation.call(dependency.call) == "first"
    assert dependency.most == 1


async def test_b55_each_copy_has_a_delay_of_its_own() -> None:
    facts: dict[str, Any] = {"idempotent": True, "has_fallback": False, "vetoed": False, "expected_s": 3.0}
    made = plan(PolicySettings(hedges=2), state="ULTRA_RESILIENT", quantile=lambda q: q, **facts)
    assert made.copies == (0.75, 0.9)
    assert plan(PolicySettings(hedges=2), state="CLOSED", quantile=lambda q: q, **facts).copies == (0.95,)


async def test_b56_attempts_beyond_the_most_are_never_started() -> None:
    guarded, operation = await hedged()
    dependency = Dependency(HANG)
    assert isinstance(await tried(operation.call(dependency.call)), CallTimeoutError)
    assert dependency.calls == 2
    assert others() == set()
    assert guarded.state is CircuitState.CLOSED


@pytest.mark.parametrize("winner", ["first", "copy"])
async def test_b58_the_winner_cancels_the_others_the_first_included(winner: str) -> None:
    guarded, operation = await hedged()
    script = [After(0.2, "first"), HANG] if winner == "first" else [HANG, After(0.01, "copy")]
    dependency = Dependency(*script)
    assert await operation.call(dependency.call) == winner
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (dependency.cancelled, dependency.running) == (1, 0)
    assert others() == set()
    assert guarded.whole.under_way == 0


async def test_b60_each_attempt_has_a_context_of_its_own_and_the_winners_is_kept() -> None:
    _, operation = await hedged()
    seen = []

    async def call() -> str:
        seen.append(VALUE.get())
        mine = f"attempt {len(seen)}"
        VALUE.set(mine)
        await asyncio.sleep(0.9 if len(seen) == 1 else 0.05)
        assert VALUE.get() == mine
        return mine

    VALUE.set("the caller's")
    assert await operation.call(call) == "attempt 2"
    assert seen == ["the caller's"] * 2
    assert VALUE.get() == "attempt 2"


async def test_b61_a_cancellation_from_outside_cancels_all_attempts_and_is_the_callers() -> None:
    guarded, operation = await hedged()
    dependency = Dependency(HANG)
    task = started(operation.call(dependency.call))
    await asyncio.sleep(0.3)
    assert dependency.running == 2
    await cancelled(task)
    assert task.cancelling() == 1
    await asyncio.sleep(0)
    assert dependency.cancelled == 2
    assert others() == set()
    assert guarded.view()["failure_count"] == 0


async def test_b63_what_the_winner_began_goes_on() -> None:
    _, operation = await hedged()
    behind = []

    async def call() -> asyncio.Task[None]:
        behind.append(started(asyncio.sleep(10.0)))
        await asyncio.sleep(0.9 if len(behind) == 1 else 0.01)
        return behind[-1]

    work = await operation.call(call)
    assert work is behind[1]
    await work
    assert not work.cancelled()
    await behind[0]


async def test_b65_an_error_of_a_listener_reaches_no_caller_and_leaves_no_tasks() -> None:
    """Must differ from Polly, where it reaches the caller: who watches must not break what is watched. It is logged."""
    guarded, operation = await hedged()

    def wrong(_: object) -> None:
        raise RuntimeError("a listener")

    guarded.listen(wrong)
    assert await operation.call(Dependency(HANG, After(0.01, "copy")).call) == "copy"
    await asyncio.sleep(0)
    assert others() == set()


async def test_b66_each_attempt_is_told_with_its_number_time_and_whether_it_is_handled() -> None:
    guarded, _ = await hedged()
    operation = guarded.protect(idempotent=True, attempts=2)
    heard = hear(guarded)
    dependency = Dependency(After(0.01, DOWN), After(0.05, DOWN), After(0.2, "third"), HANG)
    assert await operation.call(dependency.call) == "third"
    await asyncio.sleep(0)
    assert [(one.number, one.outcome, one.handled, one.hedge) for one in heard.attempts][:2] == [
        (1, "failed", True, False),
        (2, "failed", True, True),
    ]
    assert [one.took_s for one in heard.attempts][:3] == pytest.approx([0.01, 0.05, 0.2])
    assert len(heard.attempts) == dependency.calls
    assert {one.outcome for one in heard.attempts[2:]} <= {"good", "cancelled"}


async def test_b67_there_are_no_copies_before_there_are_samples_and_then_at_the_quantile() -> None:
    guarded = policy(hedges=1)
    operation = guarded.protect(idempotent=True)
    dependency = Dependency(After(0.5))
    await operation.call(dependency.call)
    assert dependency.calls == 1
    guarded, operation = await hedged()
    dependency = Dependency(After(0.5), HANG)
    await operation.call(dependency.call)
    assert dependency.began[1] - dependency.began[0] == pytest.approx(0.1, rel=0.02)


async def test_b69_the_first_few_are_granted_at_low_traffic() -> None:
    guarded = policy(attempts=2)
    operation = guarded.protect(idempotent=True)
    for _ in range(3):
        assert await operation.call(Dependency(DOWN, "again").call) == "again"
    assert isinstance(await tried(operation.call(Dependency(DOWN, "again").call)), DownError)
    assert counter(guarded)("budget spent") == 1


async def test_b70_nothing_is_copied_at_a_quantile_that_is_a_bound_or_under_a_millisecond() -> None:
    guarded, operation = await hedged()
    given_up = [started(guarded.call(Dependency(HANG).call)) for _ in range(100)]
    await asyncio.sleep(0.3)
    for task in given_up:
        await cancelled(task)
    await asyncio.sleep(1.1)
    assert guarded.whole.healthy.topped(0.95, asyncio.get_running_loop().time())
    dependency = Dependency(After(0.2))
    await operation.call(dependency.call)
    assert dependency.calls == 1
    quick = policy(hedges=1)
    await learned(quick, 0.0005)
    assert quick.whole.hedge_after_s == 0.0


async def test_b70_losers_are_learned_at_their_time_and_fast_failures_are_not() -> None:
    guarded, operation = await hedged()
    now, known = asyncio.get_running_loop().time, guarded.whole.healthy
    before = known.count(now())
    await operation.call(Dependency(HANG, After(0.01)).call)
    await asyncio.sleep(0)
    assert known.count(now()) == before + 2
    assert known.censored_share(now()) > 0
    await tried(guarded.call(Dependency(DOWN).call))
    assert known.count(now()) == before + 2


@pytest.mark.parametrize("spent", [{"hedge_share": 0.0}, {"budget_share": 0.0, "budget_floor": 0}], ids=["own", "common"])
async def test_b71_both_budgets_must_grant_a_copy(spent: dict[str, Any]) -> None:
    guarded, operation = await hedged(**spent)
    dependency = Dependency(After(0.5))
    assert await operation.call(dependency.call) == "late"
    assert dependency.calls == 1
    assert counter(guarded)("budget spent") == 1


async def test_b71_a_spent_budget_leaves_alone_what_is_under_way() -> None:
    guarded, operation = await hedged(hedge_share=0.0025)
    dependency = Dependency(After(0.5, "slow"))
    found = await at_once(*(operation.call(dependency.call) for _ in range(30)))
    assert found == ["slow"] * 30
    assert 0 < counter(guarded)("hedged") <= 0.0025 * 431 + 1
    assert dependency.calls == 30 + counter(guarded)("hedged")


async def test_b72_a_cancellation_in_line_for_a_place_returns_at_once_and_leaks_nothing() -> None:
    guarded = policy(concurrency=1, queue=10)
    first = started(guarded.call(Dependency(After(0.5)).call))
    await asyncio.sleep(0)
    waiting = [started(guarded.call(Dependency().call)) for _ in range(10)]
    await asyncio.sleep(0)
    assert isinstance(await tried(guarded.call(Dependency().call)), LimitedError)
    began = asyncio.get_running_loop().time()
    for task in waiting:
        await cancelled(task)
    assert asyncio.get_running_loop().time() == began
    await first
    assert await guarded.call(Dependency().call) == "good"
    assert guarded.gate._places.busy == len(guarded.gate._places) == 0


async def test_b72_a_cancellation_in_the_pause_before_a_retry_returns_at_once_and_gives_its_token_back() -> None:
    guarded = policy(attempts=3, backoff_s=50.0, backoff_max_s=50.0)
    dependency = Dependency(DOWN)
    task = started(guarded.protect(idempotent=True).call(dependency.call))
    await asyncio.sleep(0.001)
    assert guarded.budget.view()["retries"] == 1
    await cancelled(task)
    assert asyncio.get_running_loop().time() == pytest.approx(0.001)
    assert dependency.calls == 1
    assert guarded.budget.view()["retries"] == 0
    assert guarded.view()["failure_count"] == 0


async def test_a_deaf_loser_does_not_hold_up_the_winner() -> None:
    _, operation = await hedged()
    began = asyncio.get_running_loop().time()
    assert await operation.call(Dependency(Deaf(1e6, 0.5), After(0.01, "copy")).call) == "copy"
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.11, rel=0.05)
    await asyncio.sleep(1.0)
    assert others() == set()


async def test_the_result_of_a_loser_is_closed() -> None:
    _, operation = await hedged()
    closed = []

    class Answer:
        async def aclose(self) -> None:
            closed.append(self)

    late = Answer()
    assert await operation.call(Dependency(Deaf(1e6, 0.1, late), After(0.01, "copy")).call) == "copy"
    await asyncio.sleep(1.0)
    assert closed == [late]


async def test_all_bad_results_are_an_answer_and_a_failure() -> None:
    guarded, _ = await hedged(hedge_share=0.0)
    operation = guarded.protect(idempotent=True, bad_result=lambda value: value == "bad")
    assert await operation.call(Dependency("bad").call) == "bad"
    assert guarded.view()["failure_count"] == 1


async def test_a_failure_that_a_fallback_stood_in_for_is_still_a_failure() -> None:
    guarded = policy()
    await learned(guarded)
    operation = guarded.protect(idempotent=True, fallback=lambda: "instead")
    guarded.degrade("somebody said so")
    for _ in range(3):
        assert await operation.call(Dependency(After(0.01, DOWN)).call) == "instead"
    assert guarded.state is CircuitState.OPEN


async def test_what_a_function_says_itself_is_a_failure_as_any_other() -> None:
    _, operation = await hedged()
    dependency = Dependency(After(0.01, UnavailableError("it")), After(0.01, "copy"))
    assert await operation.call(dependency.call) == "copy"
