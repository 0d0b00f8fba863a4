"""A copy that waits for its turn: what it costs while it never begins, and what the circuit hears if it alone does."""

from __future__ import annotations

from tests.unit.runtime.policy.support import After, Dependency, learned, policy


async def test_a_copy_that_never_had_its_turn_costs_nothing() -> None:
    guarded = policy(hedges=1, queue=5)
    operation = guarded.protect(idempotent=True)
    await learned(guarded)
    guarded.update(concurrency=1)
    assert await operation.call(Dependency(After(0.3)).call) == "late"
    assert guarded.counted()["hedged"] == 1
    assert guarded.budget.view()["hedges"] == 0
    assert guarded.whole.wins._count == 0
