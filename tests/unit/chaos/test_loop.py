"""The virtual loop: its time, its order, and what it refuses."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from genesis.chaos import loop as machine
from genesis.chaos.loop import PLACE, DeadlockError, LivelockError, OutsideWorldError, VirtualLoop


def run(work: Coroutine[Any, Any, Any], order: Random | None = None, *, trace: bool = False) -> tuple[Any, VirtualLoop]:
    loop = VirtualLoop(order, trace=trace)
    try:
        return loop.run_nested(work), loop
    finally:
        loop.close()


def test_an_hour_of_virtual_time_passes_exactly() -> None:
    _, loop = run(asyncio.sleep(3600.1))
    assert loop.time() == 3600.1


async def _race() -> list[int]:
    order: list[int] = []

    async def arrive(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        order.append(number)

    tasks = [asyncio.get_running_loop().create_task(arrive(number)) for number in range(6)]
    await asyncio.wait(tasks)
    return order


def test_without_a_seed_the_order_is_that_of_asyncio() -> None:
    assert run(_race())[0] == asyncio.run(_race()) == list(range(6))


def test_each_seed_has_an_order_of_its_own_and_always_the_same() -> None:
    orders = [tuple(run(_race(), Random(seed))[0]) for seed in range(20)]
    assert orders == [tuple(run(_race(), Random(seed))[0]) for seed in range(20)]
    assert len(set(orders)) > 15


def test_equal_worlds_have_equal_digests_and_others_do_not() -> None:
    digests = [run(_race(), Random(seed), trace=True)[1].digest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def waits_for_godot() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(waits_for_godot(), name="vladimir")
        await asyncio.wait([task])

    with pytest.raises(DeadlockError, match=r"vladimir waits in .*waits_for_godot \(test_loop\.py:\d+\) for a Future"):
        run(main())


def test_callbacks_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "STUCK_STEPS", 1000)

    async def spins() -> None:
        while True:  # noqa: ASYNC110 - nobody will ever tell it
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="1000 callbacks ran and time stands still"):
        run(spins())


@pytest.mark.parametrize(
    "reach",
    [
        lambda: asyncio.open_connection("127.0.0.1", 1),
        lambda: asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 80),
        lambda: asyncio.create_subprocess_exec("true"),
    ],
    ids=["connection", "server", "name", "process"],
)
def test_what_reaches_outside_is_refused_with_what_to_do(reach: Any) -> None:
    async def main() -> None:
        await reach()

    with pytest.raises(OutsideWorldError, match="have no place in virtual time: give the component something that the test"):
        run(main())


def test_a_pool_of_threads_is_refused_and_the_default_one_runs_inline() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool, pytest.raises(OutsideWorldError, match=r"use None, or asyncio\.to_thread"):
            await loop.run_in_executor(pool, print)
        return await asyncio.to_thread(threading.get_ident)

    assert run(main())[0] == threading.get_ident()


def test_a_thread_that_calls_in_is_refused() -> None:
    refused: list[Exception] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except OutsideWorldError as error:
                refused.append(error)

        thread = threading.Thread(target=call, name="stranger")
        thread.start()
        thread.join()

    run(main())
    assert "the thread stranger called into virtual time" in str(refused[0])


def test_a_nap_ends_at_its_time_in_one_step_and_can_be_cancelled() -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        assert isinstance(loop, VirtualLoop)

        async def nap(seconds: float) -> None:
            try:
                await loop.nap(seconds)
                seen.append(f"awake at {loop.time()}")
            except asyncio.CancelledError:
                seen.append(f"cancelled at {loop.time()}")
                raise

        short, long = loop.create_task(nap(1.1)), loop.create_task(nap(60.0))
        await short
        long.cancel()
        await asyncio.wait([long])
        assert long.cancelled()
        await asyncio.sleep(100)
        return seen

    assert run(main())[0] == ["awake at 1.1", "cancelled at 1.1"]


def test_timers_of_one_time_become_ready_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        timers = [loop.call_at(1.0, seen.append, number) for number in range(300)]
        for timer in timers[::2] + timers[:10]:
            timer.cancel()
        await asyncio.sleep(2)
        return seen

    assert run(main())[0] == [number for number in range(300) if number % 2 and number >= 10]


def test_what_a_place_cancels_as_it_admits_it_does_not_run() -> None:
    class Place:
        def admits(self, handle: asyncio.Handle) -> bool:
            handle.cancel()
            return True

    async def main() -> list[Any]:
        seen, loop = list[Any](), asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, complaint: seen.append(complaint))
        context = contextvars.copy_context()
        context.run(PLACE.set, Place())
        loop.call_soon(seen.append, 1, context=context)
        await asyncio.sleep(1)
        return seen

    assert run(main())[0] == []
