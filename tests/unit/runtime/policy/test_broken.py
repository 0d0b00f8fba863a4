"""What somebody found who tried to break policies."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncGenerator, AsyncIterator
from math import nan

import pytest

from genesis import CircuitState, Policy
from genesis.core.errors import CallTimeoutError, CircuitOpenError, DefinitionError, LimitedError
from genesis.runtime.policy import policies
from genesis.runtime.scope import deadline
from tests.unit.runtime.policy.support import DOWN, HANG, After, Dependency, DownError, opened, policy, started, tried


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


# --- and what a new user found, with the documentation alone ---------------------------------------------------------------


async def test_an_error_of_the_reader_reaches_the_stream_and_is_no_failure_of_it() -> None:
    guarded, seen = policy(), []

    @contextlib.asynccontextmanager
    @guarded
    async def transaction() -> AsyncIterator[str]:
        try:
            yield "connection"
        except ValueError:
            seen.append("rolled back")
            raise

    with pytest.raises(ValueError, match="mine"):
        async with transaction():
            raise ValueError("mine")
    assert seen == ["rolled back"]
    assert guarded.view()["failure_count"] == 0


async def test_what_is_sent_into_a_stream_arrives() -> None:
    @policy()
    async def echo() -> AsyncGenerator[object, object]:
        value: object = "first"
        while value != "stop":
            value = yield value

    stream = echo()
    assert await anext(stream) == "first"
    assert await stream.asend("second") == "second"
    with pytest.raises(StopAsyncIteration):
        await stream.asend("stop")


async def test_a_result_that_came_at_once_is_kept_too() -> None:
    answers = iter([450])

    @policy(stale_s=60.0).protect(idempotent=True)
    async def price() -> int:
        for answer in answers:
            return answer
        raise DOWN

    assert await price() == await price() == 450


async def test_a_policy_that_begins_open_is_open_for_its_time() -> None:
    guarded = Policy("begins-open", initial=CircuitState.OPEN)
    assert isinstance(await tried(guarded.call(Dependency().call)), CircuitOpenError)
    await asyncio.sleep(5.1)
    assert await guarded.call(Dependency().call) == "good"
    with pytest.raises(DefinitionError, match="initial state"):
        Policy("begins-anyhow", initial="ajar")  # type: ignore[arg-type]


async def test_a_call_that_was_made_is_told_from_one_that_was_refused() -> None:
    guarded = policy(abandon_below=0.3, failure_threshold=100.0)
    errors = [await tried(guarded.call(Dependency(HANG).call)) for _ in range(7)]
    assert {type(error) for error in errors[:-1]} == {CallTimeoutError}
    made = await tried(policy(failure_threshold=0.5).call(Dependency(DOWN).call))
    refused = await tried((await opened()).call(Dependency(DOWN).call))
    assert (type(made), made.attempted) == (CircuitOpenError, True)
    assert (type(refused), refused.attempted) == (CircuitOpenError, False)


def test_errors_travel_between_processes() -> None:
    for error in (CircuitOpenError("pricing", 3.0, why="5 failures in a row"), CallTimeoutError("pricing", 1.0)):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_plain_function_has_no_async_fallback() -> None:
    async def other() -> int:
        return 1

    @policy().protect(fallback=lambda: other())
    def price() -> int:
        raise DOWN

    with pytest.raises(DefinitionError, match="is async"):
        price()


def test_what_is_no_class_or_function_is_refused_where_it_is_written() -> None:
    for wrong in ({"failure_on": [OSError]}, {"failure_on": "OSError"}, {"ignore": None}):
        with pytest.raises(DefinitionError, match="neither a class of errors nor a function"):
            Policy("wrong", **wrong)  # type: ignore[arg-type]
    for wrong in ({"fallback": 500}, {"bad_result": 5}, {"shard": "host"}, {"deadline": "1"}):
        with pytest.raises(DefinitionError, match=next(iter(wrong))):
            policy().protect(**wrong)  # type: ignore[arg-type]
    for name in ("", 3, "a\nb"):
        with pytest.raises(DefinitionError, match="is called"):
            Policy(name)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="no signal"):
        policy().listen(print, str)  # type: ignore[arg-type]


def test_it_explains_a_function_that_it_protects_and_its_shards() -> None:
    guarded = policy()

    @guarded.protect(idempotent=True, shard=lambda which: which)
    def price(which: str) -> int:
        raise DOWN

    for _ in range(3):
        with contextlib.suppress(DownError, CircuitOpenError):
            price("sick")
    assert "an operation that may run twice" in guarded.explain(price)
    assert "shard sick: OPEN (3 failures in a row)" in guarded.explain()
    with pytest.raises(DefinitionError, match="is not protected"):
        guarded.explain(print)


def test_all_policies_of_one_name_are_listed() -> None:
    first, second = Policy("made-twice"), Policy("made-twice")
    assert [one for one in policies() if one.name == "made-twice"] in ([first, second], [second, first])
