"""The half-open circuit probes: behaviours 23 to 37."""

from __future__ import annotations

import asyncio
import threading
from random import Random

import pytest

from genesis import CircuitState
from genesis.core.errors import CircuitOpenError
from genesis.layers.mitigation.circuit import Circuit
from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.states import TRANSITIONS, IllegalTransitionError, Trigger
from tests.unit.runtime.policy.support import (
    DOWN,
    HANG,
    After,
    Deaf,
    Dependency,
    at_once,
    cancelled,
    fail,
    half_open,
    hear,
    learned,
    opened,
    policy,
    started,
    succeed,
    tried,
)


async def test_b23_the_first_call_after_the_wait_passes_and_the_figures_begin_anew() -> None:
    guarded = await half_open()
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED
    assert guarded.whole.circuit.window.calls == 0
    assert guarded.view()["failure_count"] == guarded.view()["degradation_score"] == 0
    await fail(guarded, 2)
    assert guarded.state is CircuitState.CLOSED


async def test_b24_exactly_so_many_probes_pass_in_each_cycle() -> None:
    guarded = await half_open(probes=3, success_threshold=3)
    for _ in range(2):
        dependency = Dependency(After(0.1, DOWN))
        found = await at_once(*(guarded.call(dependency.call) for _ in range(1000)))
        assert dependency.calls == 3
        assert all(isinstance(error, CircuitOpenError) for error in found)
        assert guarded.state is CircuitState.OPEN
        await asyncio.sleep(10.0)


async def test_b25_a_permit_that_is_given_back_admits_one_more() -> None:
    guarded, dependency = await half_open(probes=2, success_threshold=2), Dependency(HANG)
    probes = [started(guarded.call(dependency.call)) for _ in range(2)]
    await asyncio.sleep(0)
    assert isinstance(await tried(guarded.call(dependency.call)), CircuitOpenError)
    await cancelled(probes[0])
    probes.append(started(guarded.call(dependency.call)))
    await asyncio.sleep(0)
    assert dependency.calls == 3
    assert isinstance(await tried(guarded.call(dependency.call)), CircuitOpenError)
    for probe in probes[1:]:
        await cancelled(probe)


async def test_b26_an_ignored_error_frees_its_permit() -> None:
    guarded = await half_open()
    guarded.ignored = type(guarded.ignored)(KeyError)
    for _ in range(5):
        assert isinstance((await fail(guarded, 1, KeyError("k")))[0], KeyError)
    assert guarded.state is CircuitState.HALF_OPEN
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


async def test_b28_a_slow_probe_opens_it_again_when_slowness_opens() -> None:
    guarded = policy(slow_open_rate=0.5)
    await learned(guarded)
    await fail(guarded, 3)
    await asyncio.sleep(5.0)
    await guarded.call(Dependency(After(0.5)).call)
    assert guarded.state is CircuitState.OPEN
    assert "a probe was slow" in guarded.whole.circuit.why


async def test_b30_a_second_caller_is_refused_with_a_time() -> None:
    guarded, dependency = await half_open(), Dependency(After(0.5))
    probe = started(guarded.call(dependency.call))
    await asyncio.sleep(0.25)
    (refusal,) = await fail(guarded)
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.state == "HALF_OPEN"
    assert refusal.retry_after_s == pytest.approx(0.75), "the probe may take a second"
    assert await probe == "late"


async def test_b31_a_hung_probe_is_replaced_when_its_lease_ends() -> None:
    """Must differ from Polly v8: there a hung probe keeps the circuit half-open for ever."""
    guarded = await half_open()
    hung = started(tried(guarded.call(Dependency(Deaf(1e6, 100.0)).call)))
    await asyncio.sleep(0.5)
    assert isinstance((await fail(guarded))[0], CircuitOpenError)
    await asyncio.sleep(0.6)
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED
    assert await hung == "deaf"
    assert guarded.state is CircuitState.CLOSED, "and what the hung one ends with is not heard"


async def test_b32_so_many_successes_close_it_and_a_failure_begins_anew() -> None:
    guarded = await half_open(success_threshold=3)
    await succeed(guarded, 2)
    assert guarded.state is CircuitState.HALF_OPEN
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN
    await asyncio.sleep(10.0)
    await succeed(guarded, 2)
    assert guarded.state is CircuitState.HALF_OPEN
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


def test_b33_no_more_than_the_permitted_probes_run_under_threads() -> None:
    guarded = policy(probes=2, success_threshold=2)
    guarded.force_open(1e-9)
    running, most, all_in = [0], [0], threading.Event()
    lock, refused = threading.Lock(), []

    @guarded
    def probe() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        all_in.wait(10)
        with lock:
            running[0] -= 1

    def caller() -> None:
        try:
            probe()
        except CircuitOpenError as error:
            refused.append(error)
            if len(refused) == 30:
                all_in.set()

    threads = [threading.Thread(target=caller) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [2]
    assert len(refused) == 30
    assert guarded.state is CircuitState.CLOSED


async def test_b34_the_result_of_an_earlier_generation_is_dropped() -> None:
    guarded = policy(timeout_s=60.0)
    late = [started(tried(guarded.call(Dependency(After(30.0, DOWN)).call))) for _ in range(3)]
    await asyncio.sleep(0)
    await fail(guarded, 3)
    await asyncio.sleep(5.0)
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED
    for task in late:
        await task
    assert guarded.state is CircuitState.CLOSED
    assert guarded.view()["failure_count"] == 0.0


async def test_b35_a_cancelled_probe_returns_its_permit() -> None:
    guarded = await half_open()
    for _ in range(100):
        probe = started(guarded.call(Dependency(HANG).call))
        await asyncio.sleep(0.001)
        await cancelled(probe)
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


@pytest.mark.parametrize("way", ["block", "stream", "guard"])
async def test_b35_a_cancelled_block_stream_or_awaitable_returns_its_permit(way: str) -> None:
    guarded = await half_open()

    async def block() -> None:
        async with guarded.attempt():
            await asyncio.sleep(1e6)

    @guarded
    async def items():
        await asyncio.sleep(1e6)
        yield 1

    async def stream() -> None:
        async for _ in items():
            pass

    works = {"block": block, "stream": stream, "guard": lambda: guarded.guard(asyncio.sleep(1e6))}
    probe = started(works[way]())
    await asyncio.sleep(0.001)
    await cancelled(probe)
    await succeed(guarded)
    assert guarded.state is CircuitState.CLOSED


def test_b37_there_is_no_way_from_closed_to_half_open() -> None:
    assert (CircuitState.CLOSED, Trigger.WAITED) not in TRANSITIONS
    with pytest.raises(IllegalTransitionError):
        Circuit(PolicySettings(), Random(0))._go(Trigger.WAITED, "wished", 0.0)


async def test_after_recovery_the_load_comes_back_step_by_step() -> None:
    guarded = await half_open(ramp=2)
    heard = hear(guarded)
    await succeed(guarded)
    most = []
    for _ in range(4):
        dependency = Dependency(After(0.01))
        await at_once(*(guarded.call(dependency.call) for _ in range(50)))
        most.append(dependency.most)
    assert most == [2, 4, 8, 16]
    assert heard.changes == [("OPEN", "HALF_OPEN"), ("HALF_OPEN", "CLOSED")]


async def test_what_is_open_by_hand_probes_when_its_time_is_over() -> None:
    guarded = await opened()
    guarded.force_open(60.0)
    await asyncio.sleep(6.0)
    assert isinstance((await fail(guarded))[0], CircuitOpenError)
    await asyncio.sleep(54.0)
    await fail(guarded)
    assert guarded.state is CircuitState.OPEN
