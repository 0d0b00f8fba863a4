"""The traps that others fell into: section 4 of the research, each with what Genesis does instead."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from genesis import CircuitState, Policy
from genesis.chaos.loop import VirtualLoop
from genesis.core.errors import CallTimeoutError, CircuitOpenError, DeadlineExceededError
from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.timeouts import timeout_s
from genesis.runtime.scope import deadline
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
    fail,
    half_open,
    hear,
    learned,
    opened,
    others,
    policy,
    started,
    succeed,
    tried,
)


async def test_retry_amplification_nested_layers_do_not_multiply() -> None:
    layers = [policy(attempts=3, failure_threshold=1e9, failure_rate=1.0, minimum_calls=30) for _ in range(3)]
    dependency = Dependency(DOWN)
    call: Callable[[], Any] = dependency.call
    for layer in layers:
        call = layer.protect(idempotent=True, name="layer")(_through(call))
    await tried(call())
    assert dependency.calls == 3, "only the outermost tries again"


def _through(call: Callable[[], Any]) -> Callable[[], Any]:
    async def through() -> Any:
        return await call()

    return through


async def test_retry_amplification_a_full_outage_costs_a_tenth_more() -> None:
    guarded = policy(attempts=3, failure_threshold=1e9, failure_rate=1.0, minimum_calls=30, window_calls=30)
    guarded.now()
    guarded.only_measure()
    operation = guarded.protect(idempotent=True)
    dependency = Dependency(DOWN)
    for _ in range(1000):
        await tried(operation.call(dependency.call))
    assert dependency.calls <= 1.1 * 1000 + 3


async def test_budget_is_taken_when_a_retry_is_scheduled_not_when_it_starts() -> None:
    """envoy#30205: a thousand calls that wait for their retry are a thousand retries."""
    guarded = policy(attempts=2, failure_threshold=1e9, failure_rate=1.0, minimum_calls=30, backoff_s=5.0)
    operation = guarded.protect(idempotent=True)
    tasks = [started(tried(operation.call(Dependency(DOWN).call))) for _ in range(1000)]
    await asyncio.sleep(0)
    assert guarded.budget.view()["retries"] <= 103
    await asyncio.gather(*tasks)
    assert counter(guarded)("retried") <= 103


async def test_half_open_stampede_and_ten_thousand_cancelled_probes() -> None:
    guarded, dependency = await half_open(), Dependency(HANG)
    for _ in range(100):
        tasks = [started(tried(guarded.call(dependency.call))) for _ in range(100)]
        await asyncio.sleep(0)
        assert dependency.running == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert guarded.whole.circuit._probes == []
    await succeed(guarded)


async def test_stuck_half_open_a_probe_that_an_inner_limit_refuses_gives_its_permit_back() -> None:
    guarded = await half_open(concurrency=1)
    assert guarded.gate._places.enter()
    for _ in range(3):
        await fail(guarded)
    guarded.gate.leave()
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


async def test_older_era_a_late_success_does_not_close_and_a_late_failure_does_not_open() -> None:
    guarded = policy(timeout_s=60.0)
    late = [started(tried(guarded.call(Dependency(After(seconds, then)).call))) for seconds, then in ((6, "late"), (7, DOWN))]
    await asyncio.sleep(0)
    await fail(guarded, 3)
    await asyncio.sleep(5.0)
    probe = started(guarded.call(Dependency(After(3.0)).call))
    for task in late:
        await task
        assert guarded.state is CircuitState.HALF_OPEN
    await probe
    assert guarded.state is CircuitState.CLOSED


async def test_half_open_thresholds_one_failing_probe_opens_it() -> None:
    guarded = await half_open(minimum_calls=30, failure_threshold=3.0)
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN


@pytest.mark.parametrize("way", ["call", "block", "guard", "decorated"])
async def test_cancellation_is_no_success_and_no_failure_and_is_not_tried_again(way: str) -> None:
    guarded, dependency = policy(attempts=3), Dependency(HANG)
    await fail(guarded, 2)
    before = guarded.whole.circuit.window.calls

    async def block() -> None:
        async with guarded.attempt():
            await dependency.call()

    @guarded.protect(idempotent=True)
    async def decorated() -> None:
        await dependency.call()

    works: dict[str, Callable[[], Any]] = {
        "call": lambda: guarded.call(dependency.call),
        "block": block,
        "guard": lambda: guarded.guard(dependency.call()),
        "decorated": decorated,
    }
    task = started(works[way]())
    await asyncio.sleep(0.1)
    await cancelled(task)
    assert dependency.calls == 1
    assert guarded.view()["failure_count"] == 2.0
    assert guarded.whole.circuit.window.calls == before
    assert guarded.whole.under_way == 0


async def test_leaked_permits_a_cancelled_waiter_that_had_its_turn_hands_it_on() -> None:
    guarded = policy(concurrency=1, queue=2)
    first = started(guarded.call(Dependency(After(0.1)).call))
    await asyncio.sleep(0)
    second, third = (started(guarded.call(Dependency(After(0.1)).call)) for _ in range(2))
    first.add_done_callback(lambda _: second.cancel())  # between its turn and its first step
    assert await third == "late"
    assert guarded.gate._places.busy == 0


async def test_a_timeout_leaves_no_cancellation_behind() -> None:
    guarded = policy(timeout_s=0.1)
    task = asyncio.current_task()
    assert task is not None
    for work in (guarded.call(Dependency(HANG).call), guarded.guard(asyncio.sleep(1e6))):
        assert isinstance(await tried(work), CallTimeoutError)
        assert task.cancelling() == 0
    with pytest.raises(CallTimeoutError):
        async with guarded.attempt():
            await asyncio.sleep(1e6)
    assert task.cancelling() == 0
    async with asyncio.timeout(1.0):
        await asyncio.sleep(0.5)


async def test_an_outer_cancellation_at_the_moment_of_the_result_is_not_swallowed() -> None:
    guarded = policy(timeout_s=0.5)
    task = started(guarded.call(Dependency(After(0.1)).call))
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled() or task.result() == "late"
    assert task.cancelling() == (1 if task.cancelled() else 0)


def test_no_lock_is_held_across_a_call() -> None:
    guarded, together = policy(), threading.Barrier(5, timeout=20)

    @guarded
    def meet() -> None:
        together.wait()

    threads = [threading.Thread(target=meet) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not together.broken
    assert guarded.view()["success_count"] == 5


async def test_what_kind_a_function_is_is_not_remembered_by_its_identity() -> None:
    guarded = policy()
    for number in range(400):
        if number % 2:

            async def short_lived(n: int = number) -> int:
                return n
        else:

            def short_lived(n: int = number) -> int:
                return n

        assert await guarded.call(short_lived) == number
        del short_lived


async def test_a_refusal_is_a_new_error_each_time() -> None:
    guarded = await opened()
    errors = await fail(guarded, 300)
    assert len({id(error) for error in errors}) == 300
    lengths = {_length(error) for error in errors}
    assert len(lengths) == 1
    assert len({_length(error.__cause__) for error in errors}) == 1


def _length(error: BaseException) -> int:
    length, trace = 0, error.__traceback__
    while trace is not None:
        length, trace = length + 1, trace.tb_next
    return length


async def test_the_failure_that_opened_it_is_let_go_when_it_closes() -> None:
    guarded = await half_open()
    await succeed(guarded)
    assert guarded.whole.cause is None


async def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = await opened()
    for step_s in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: 1.7e9 + step_s)
        (refusal,) = await fail(guarded)
        assert isinstance(refusal, CircuitOpenError)
        assert refusal.retry_after_s == 5.0
    await asyncio.sleep(5.0)
    await succeed(guarded)


async def test_censored_data_what_was_given_up_does_not_shrink_what_is_learned() -> None:
    guarded = policy()
    await learned(guarded, calls=100)
    before = guarded.view()
    for _ in range(20):
        given_up = [started(guarded.call(Dependency(HANG).call)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in given_up:
            await cancelled(task)
        await asyncio.sleep(0.05)
    after = guarded.view()
    assert all(after[name] >= before[name] for name in ("expected_s", "p95_s", "p99_s"))


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0])
def test_heavy_tails_the_learned_timeout_cuts_few_good_calls(sigma: float) -> None:
    rng = Random(7)
    calls = sorted(rng.lognormvariate(0.0, sigma) for _ in range(100_000))
    limit_s = timeout_s(PolicySettings(), 0.01, sum(calls) / len(calls), calls[99_000], float("inf"))
    assert sum(call > limit_s for call in calls) / len(calls) < 0.007


async def test_flapping_a_dependency_that_is_good_every_other_five_seconds_opens_it_rarely() -> None:
    guarded = policy(ramp=2, success_threshold=3)
    heard = hear(guarded)
    loop = asyncio.get_running_loop()
    while loop.time() < 300.0:
        down = int(loop.time() / 5.0) % 2
        await tried(guarded.call(Dependency(DOWN if down else "good").call))
        await asyncio.sleep(0.05)
    assert 1 <= sum(new == "OPEN" for _, new in heard.changes) <= 12


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, VirtualLoop], ids=["real", "virtual"])
def test_event_loops_one_policy_serves_several_one_after_the_other(loop_factory: Callable[[], Any]) -> None:
    guarded = policy(concurrency=1, queue=5)

    @guarded.protect(idempotent=True)
    async def call(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    async def several() -> list[int]:
        return list(await asyncio.gather(*(call(number) for number in range(5))))

    for _ in range(3):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(several()) == [0, 1, 2, 3, 4]
    assert guarded.gate._places.busy == 0


def test_event_loops_a_loop_that_ends_leaves_no_place_taken() -> None:
    guarded = policy(concurrency=1, queue=5)

    async def leaves() -> None:
        for _ in range(3):
            started(guarded.call(asyncio.sleep, 3600.0))
        await asyncio.sleep(0)

    asyncio.run(leaves())
    assert (guarded.gate._places.busy, len(guarded.gate._places)) == (0, 0)

    async def again() -> str:
        return await guarded.call(Dependency().call)

    assert asyncio.run(again()) == "good"


async def test_contexts_are_not_kept_after_the_call() -> None:
    guarded = policy(hedges=1)
    await learned(guarded)
    operation = guarded.protect(idempotent=True)

    class Mine:
        pass

    await operation.call(Dependency(After(0.5, Mine()), After(0.01, Mine())).call)
    await asyncio.sleep(0.1)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Mine)]


async def test_a_stream_holds_its_place_until_it_is_closed() -> None:
    guarded = policy(concurrency=1)

    @guarded
    async def items():
        yield 1
        yield 2

    stream = items()
    assert await anext(stream) == 1
    assert guarded.gate._places.busy == 1
    await stream.aclose()
    assert guarded.gate._places.busy == 0
    assert [item async for item in items()] == [1, 2]
    assert guarded.gate._places.busy == 0


async def test_correlated_slowness_is_not_copied() -> None:
    guarded = policy(hedges=1, slow_rate=0.0, budget_share=100.0, hedge_share=10.0, timeout_s=5.0, ultra_threshold_s=100.0)
    await learned(guarded)
    operation = guarded.protect(idempotent=True)
    await at_once(*(guarded.call(Dependency(After(0.5)).call) for _ in range(20)))
    dependency = Dependency(After(0.5))
    for _ in range(5):
        await operation.call(dependency.call)
    assert dependency.calls == 5


async def test_a_deaf_call_is_cut_off_from_its_caller_no_earlier_than_it_ends() -> None:
    """A coroutine that ignores its cancellation cannot be left in its caller's task: what comes is given."""
    guarded = policy(timeout_s=0.1)
    assert await guarded.call(Dependency(Deaf(1e6, 0.5)).call) == "deaf"
    assert others() == set()


async def test_slow_answers_alone_do_not_open_it() -> None:
    guarded = Policy("slow-but-right", timeout_s=60.0, attempts=1)
    dependency = Dependency(After(5.0))
    for _ in range(50):
        assert await guarded.call(dependency.call) == "late"
    assert guarded.state is CircuitState.ULTRA_RESILIENT


async def test_an_error_of_the_caller_does_not_change_the_callers_deadline() -> None:
    from genesis.runtime.scope import FREE, SCOPE

    guarded = policy(deadline_s=1.0)

    @guarded
    async def takes_one(one: int) -> int:
        return one

    with pytest.raises(TypeError):
        await takes_one()  # type: ignore[call-arg]
    assert SCOPE.get() == FREE
    assert isinstance(DOWN, DownError)


def test_calls_that_nobody_looks_at_are_all_counted_when_somebody_asks() -> None:
    guarded = Policy("unseen")

    @guarded
    async def at_once() -> int:
        return 1

    async def some(times: int) -> None:
        for _ in range(times):
            assert await at_once() == 1

    asyncio.run(some(1700))
    assert guarded.counted() == {"good": 1700}
    asyncio.run(some(3))  # the loop that would have looked after a while has ended
    assert guarded.counted() == {"good": 1703}
    assert guarded.view()["budget"]["calls"] == 1703
    assert guarded.whole.healthy.count(guarded.now()) == 1703


def test_a_call_that_nobody_looks_at_is_protected_all_the_same() -> None:
    guarded = Policy("unseen-and-failing", failure_threshold=3.0)
    down: list[bool] = []

    @guarded
    async def at_once() -> int:
        if down:
            raise DOWN
        return 1

    async def use() -> None:
        for _ in range(10):
            await at_once()
        down.append(True)
        assert [type(await tried(at_once())) for _ in range(4)] == [DownError, DownError, CircuitOpenError, CircuitOpenError]
        with deadline(-1.0):
            assert isinstance(await tried(at_once()), DeadlineExceededError)

    asyncio.run(use())
    assert guarded.counted() == {"good": 10, "failed": 3, "rejected": 1, "CLOSED->OPEN": 1}
