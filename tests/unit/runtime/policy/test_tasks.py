"""A coroutine is never moved between tasks: scopes, groups, contexts and clients that are bound to their task work inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import pytest

from genesis import Policy
from genesis.core.errors import CallTimeoutError
from genesis.runtime.operation import Operation
from tests.unit.runtime.policy.support import DOWN, at_once, counter, learned, others, policy, tried

WHO: ContextVar[str] = ContextVar("who", default="nobody")
Make = Callable[[Operation, Callable[..., Any]], Callable[..., Awaitable[Any]]]


@pytest.fixture(params=["plain", "hedged"])
def armed(request: pytest.FixtureRequest) -> bool:
    """Whether a copy would start if the call were slow: then each attempt owns a task of its own."""
    return request.param == "hedged"


@pytest.fixture(params=["decorated", "called"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "decorated":
        return lambda operation, function: operation(function)
    return lambda operation, function: lambda *args: operation.call(function, *args)


async def protecting(armed: bool, **settings: Any) -> Operation:
    guarded = policy(hedges=1, **settings)
    if armed:
        await learned(guarded)
        assert guarded.whole.hedge_after_s > 0
    return guarded.protect(idempotent=True)


async def test_the_first_and_the_last_step_are_in_one_task(armed: bool, make: Make) -> None:
    operation, seen = await protecting(armed), []

    async def call() -> None:
        seen.append(asyncio.current_task())
        for _ in range(3):
            await asyncio.sleep(0.001)
            seen.append(asyncio.current_task())

    await make(operation, call)()
    assert len(set(seen)) == 1
    assert (seen[0] is asyncio.current_task()) is not armed


async def test_scopes_of_anyio_work_inside_and_around(armed: bool, make: Make) -> None:
    operation = await protecting(armed, attempts=1)

    async def cut_off() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep(1000)
        return "cut off"

    assert await make(operation, cut_off)() == "cut off"

    async def fails() -> None:
        with anyio.fail_after(0.01):
            await anyio.sleep(1000)

    found = await tried(make(operation, fails)())
    assert isinstance(found, TimeoutError)
    assert not isinstance(found, CallTimeoutError)
    with anyio.move_on_after(0.05) as scope:
        await make(operation, anyio.sleep)(1000)
    assert scope.cancelled_caught
    await asyncio.sleep(0)


async def test_task_groups_work_inside(armed: bool, make: Make) -> None:
    operation = await protecting(armed, attempts=1)

    async def group(fails: bool) -> list[int]:
        found: list[int] = []

        async def child(number: int) -> None:
            await asyncio.sleep(0.001 * number)
            if fails and number == 2:
                raise DOWN
            found.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(child(number))
        return found

    assert await make(operation, group)(False) == [0, 1, 2, 3, 4]
    found = await tried(make(operation, group)(True))
    assert isinstance(found, ExceptionGroup)
    await asyncio.sleep(0.2)
    assert others() == set()


async def test_a_timeout_around_a_task_group_inside_a_call_ends_all(armed: bool, make: Make) -> None:
    operation = await protecting(armed, attempts=1)
    ended = []

    async def child() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(True)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(child())

    assert isinstance(await tried(make(operation, group)()), CallTimeoutError)
    await asyncio.sleep(0.01)
    assert ended == [True] * len(ended)
    assert len(ended) in (2, 4)
    assert others() == set()


async def test_timeouts_of_asyncio_work_inside_and_around(armed: bool, make: Make) -> None:
    operation = await protecting(armed, attempts=1)

    async def inner() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(1000)
        except TimeoutError:
            return "in time"
        return "never"

    assert await make(operation, inner)() == "in time"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await make(operation, asyncio.sleep)(1000)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(CallTimeoutError):
        async with asyncio.timeout(100.0):
            await make(operation, asyncio.sleep)(1000)
    assert task.cancelling() == 0


async def test_context_variables_go_in_and_come_out(armed: bool, make: Make) -> None:
    operation = await protecting(armed)
    WHO.set("caller")

    async def call() -> str:
        seen = WHO.get()
        token = WHO.set("inside")
        await asyncio.sleep(0.001)
        assert WHO.get() == "inside"
        WHO.reset(token)  # in the context in which it was set
        await asyncio.sleep(0.001)
        WHO.set("left behind")
        return seen

    assert await make(operation, call)() == "caller"
    assert WHO.get() == "left behind"


@pytest.mark.parametrize("steps", [0, 1, 5])
async def test_the_timer_is_armed_at_the_first_suspension_and_once(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, loop = policy(), asyncio.get_running_loop()
    armed: list[float] = []
    call_at = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda when, *rest, **more: armed.append(when) or call_at(when, *rest, **more))

    @guarded
    async def call() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    await call()
    assert armed == ([] if steps == 0 else [1.0])
    assert len(loop._scheduled) <= 1  # type: ignore[attr-defined]
    assert loop.timers == 0  # type: ignore[attr-defined]


async def test_a_call_that_ends_at_once_makes_no_task_and_no_timer_even_when_it_fails() -> None:
    guarded = policy()

    @guarded
    async def call(good: bool) -> str:
        if not good:
            raise DOWN
        return "good"

    assert await call(True) == "good"
    assert await tried(call(False)) is DOWN
    loop: Any = asyncio.get_running_loop()
    assert (loop.timers, others()) == (0, set())
    assert [counter(guarded)(what) for what in ("good", "failed")] == [1, 1]


async def test_what_is_no_coroutine_is_awaited_too() -> None:
    guarded = policy()
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.1, future.set_result, 7)
    assert await guarded.call(lambda: future) == 7
    assert await guarded.call(lambda: 8) == 8


# --- a client that others wrote, on a real loop ---------------------------------------------------------------------------


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """A server on the loopback that answers with the path, ``/slow`` after a moment for every second one who asks."""
    asked = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode():
                while (await reader.readline()).strip():
                    pass
                path = line.split()[1]
                asked[0] += 1
                if path.startswith("/slow") and asked[0] % 2:
                    await asyncio.sleep(0.5)
                body = path.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def test_a_real_client_works_inside_hedged_or_not(armed: bool, make: Make) -> None:
    async def main() -> None:
        guarded = Policy("loopback", attempts=1, hedge_share=10.0, budget_share=10.0, timeout_s=30.0, ramp=0)
        operation = guarded.protect(idempotent=True)
        if armed:
            _teach(guarded)
        limits = httpx.Limits(max_connections=10)
        async with serving() as url, httpx.AsyncClient(base_url=url, limits=limits, trust_env=False) as client:
            get = make(operation, client.get)
            assert [answer.text for answer in await at_once(*(get(f"/{number}") for number in range(20)))] == [
                f"/{number}" for number in range(20)
            ]
            if armed:
                await at_once(*(get(f"/slow/{number}") for number in range(4)))
                assert counter(guarded)("hedged") > 0
            for _ in range(3):  # and the pool is whole
                assert {answer.status_code for answer in await at_once(*(get("/again") for _ in range(20)))} == {200}
        tasks = others()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not [task for task in tasks if "loopback" in task.get_name()]
        assert guarded.whole.under_way == 0

    asyncio.run(main())


def _teach(guarded: Policy) -> None:
    now = guarded.now()
    for _ in range(400):
        guarded.whole.good(0.05, now)
    guarded.whole.refresh(now)
    assert guarded.whole.hedge_after_s > 0
