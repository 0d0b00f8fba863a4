"""An attempt that ends at its first step by what is no `Exception` is counted all the same."""

from __future__ import annotations

import asyncio

import pytest

from genesis import Policy


def test_a_cancellation_at_the_first_step_is_counted_on_the_long_way() -> None:
    policy = Policy("first-step", concurrency=2)

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(policy.call(work))
    assert policy.counted() == {"cancelled": 1}
