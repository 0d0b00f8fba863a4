"""Calls that are thrown away while they wait, or before they begin, leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from random import Random
from typing import Any

import pytest

from genesis.chaos.loop import VirtualLoop
from tests.unit.runtime.policy.support import After, Dependency, cancelled, learned, policy, started


def test_a_race_that_is_thrown_away_with_its_loop_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    guarded, stood_in = policy(attempts=2, hedges=1), []
    operation = guarded.protect(idempotent=True, fallback=lambda *_: stood_in.append(True))
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)  # of tasks that are destroyed while they wait

    async def waits() -> None:
        await learned(guarded)
        started(operation.call(lambda: asyncio.sleep(0.9)))
        await asyncio.sleep(0.5)
        assert guarded.counted()["hedged"] == 1

    loop.run_until_complete(waits())
    loop.close()
    gc.collect()
    assert not unraisable
    assert guarded.whole.under_way == 0
    assert not stood_in
    assert "retried" not in guarded.counted()


@pytest.mark.parametrize("seed", range(10))
def test_an_attempt_that_is_cancelled_before_its_first_step_is_not_missed(seed: int) -> None:
    guarded = policy(hedges=1)
    operation = guarded.protect(idempotent=True)
    loop = VirtualLoop(Random(seed))

    async def cancels() -> None:
        await learned(guarded)
        call = started(operation.call(Dependency(After(0.1)).call))
        await asyncio.sleep(0)
        await cancelled(call)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loop.run_until_complete(cancels())
        loop.close()
        gc.collect()
    assert not [one for one in found if "never awaited" in str(one.message)]
