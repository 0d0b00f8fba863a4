"""A copy that waits for its turn: what it costs while it never begins, and what the circuit hears if it alone does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.runtime.policy.support import DOWN, After, Dependency, DownError, learned, policy, started, tried


class NothingError(Exception):
    """Says nothing of the dependency."""


async def test_a_copy_that_never_had_its_turn_costs_nothing() -> None:
    guarded = policy(hedges=1, queue=5)
    operation = guarded.protect(idempotent=True)
    await learned(guarded)
    guarded.update(concurrency=1)
    assert await operation.call(Dependency(After(0.3)).call) == "late"
    assert guarded.counted()["hedged"] == 1
    assert guarded.budget.view()["hedges"] == 0
    assert guarded.whole.wins._count == 0


@pytest.mark.parametrize("step", ["good", DOWN])
async def test_the_circuit_hears_of_a_copy_that_alone_had_its_turn(step: Any) -> None:
    """The first is refused after 0.15 s; the copy waits from 0.1 s on, and has its turn at 0.2 s."""
    guarded = policy(hedges=1, queue=5, queue_s=0.15, ignore=NothingError)
    operation = guarded.protect(idempotent=True)
    await learned(guarded)
    await tried(guarded.call(Dependency(DOWN).call))
    assert guarded.view()["failure_count"] == 1
    guarded.update(concurrency=1)
    busy = started(guarded.call(Dependency(After(0.2, NothingError())).call))
    await asyncio.sleep(0)
    result = await tried(operation.call(Dependency(step).call))
    assert guarded.counted()["limited"] == 1
    assert result == "good" if step == "good" else isinstance(result, DownError)
    assert guarded.view()["failure_count"] == (0 if step == "good" else 2)
    assert guarded.view()["permits"] == 0
    await tried(busy)
