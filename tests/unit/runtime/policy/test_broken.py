"""What somebody found who tried to break policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import nan

import pytest

from genesis.core.errors import CircuitOpenError, DefinitionError, LimitedError
from genesis.runtime.scope import deadline
from tests.unit.runtime.policy.support import DOWN, After, Dependency, DownError, policy, started, tried


async def test_what_is_done_by_hand_holds_for_shards_that_come_later() -> None:
    guarded = policy()
    sharded = guarded.protect(shard=lambda which: which)
    guarded.force_open(60.0)
    assert isinstance(await tried(sharded.call(Dependency().call, "new")), CircuitOpenError)
    await asyncio.sleep(61.0)
    assert await sharded.call(Dependency().call, "newer") == "good"
    guarded.force_open(60.0)
    guarded.reset()
    assert await sharded.call(Dependency().call, "newest") == "good"


async def test_a_shard_of_none_is_the_whole() -> None:
    guarded = policy()
    await tried(guarded.protect(shard=lambda: None).call(Dependency(DOWN).call))
    assert guarded.view()["failure_count"] == 1


class Client:
    async def __call__(self) -> str:
        await asyncio.sleep(0.01)
        raise DOWN


async def test_an_object_that_is_called_like_an_async_function_is_protected_like_one() -> None:
    guarded = policy()
    assert await tried(guarded(Client())()) is DOWN
    assert guarded.counted() == {"failed": 1}


async def test_what_would_be_taken_for_good_before_it_has_begun_is_refused() -> None:
    guarded = policy()
    with pytest.raises(DefinitionError, match="@staticmethod above @policy"):
        guarded(staticmethod(Client().__call__))
    with pytest.raises(DefinitionError, match="gives a coroutine"):
        guarded(lambda: Client()())()
    assert guarded.view()["failure_count"] == 0


async def test_a_function_that_runs_out_of_items_has_failed() -> None:
    guarded, nothing = policy(), iter(())
    error = await tried(guarded.call(lambda: next(nothing)))
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, StopIteration)
    assert guarded.counted() == {"failed": 1}


async def test_a_stream_that_stood_in_is_closed_with_its_reader() -> None:
    closed = []

    async def other() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    @policy().protect(fallback=other)
    async def stream() -> AsyncIterator[int]:
        raise DOWN
        yield 0

    reader = stream()
    assert await anext(reader) == 1
    await reader.aclose()
    assert closed


async def test_a_judge_that_fails_does_not_hide_what_it_judges() -> None:
    def fails(_: object) -> bool:
        raise ZeroDivisionError

    guarded = policy()
    guarded.failures._functions, guarded.failures._types = (fails,), ()
    assert await tried(guarded.call(Dependency(DOWN).call)) is DOWN
    assert await tried(guarded.call(Dependency(After(0.1, DOWN)).call)) is DOWN
    assert guarded.counted() == {"failed": 2}
    operation = policy().protect(retry_on=fails, not_processed=fails, bad_result=fails, idempotent=True, attempts=2)
    assert isinstance(await tried(operation.call(Dependency(DOWN).call)), DownError)
    assert await operation.call(Dependency("good").call) == "good"


async def test_who_finds_no_place_costs_nothing_of_the_rate() -> None:
    guarded = policy(concurrency=1, rate_per_s=1.0, burst=2)
    first = started(guarded.call(Dependency(After(0.5)).call))
    await asyncio.sleep(0.1)
    assert isinstance(await tried(guarded.call(Dependency().call)), LimitedError)
    await first
    assert await guarded.call(Dependency().call) == "good"


def test_a_deadline_is_a_number() -> None:
    with pytest.raises(ValueError, match="NaN"), deadline(nan):
        pass
