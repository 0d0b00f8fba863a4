"""Threads of plain handlers, in virtual time: their functions begin and end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from genesis.runtime.threads import LOST_MAX, Threads


class ByHand(Executor):
    """Begins what it is given at once, and ends it when it is told."""

    def __init__(self) -> None:
        self.begun: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        work: Future[Any] = Future()
        work.set_running_or_notify_cancel()
        self.begun.append(work)
        return work


def nothing() -> None:
    """What the executor does not really run."""


def begin(threads: Threads, limit_s: float | None = None) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(threads.run(nothing, limit_s))


async def test_the_wait_for_a_thread_is_no_part_of_the_limit() -> None:
    hand = ByHand()
    threads = Threads(1, hand)
    first, second = begin(threads), begin(threads, 0.05)
    await asyncio.sleep(10)
    assert len(hand.begun) == 1
    hand.begun[0].set_result(None)
    await asyncio.sleep(0.04)
    hand.begun[1].set_result(None)
    await asyncio.wait([first, second])
    assert second.exception() is None


async def test_a_function_over_its_limit_leaves_its_place_to_the_next_and_gives_no_second_one_when_it_ends() -> None:
    hand = ByHand()
    threads = Threads(1, hand)
    stuck = begin(threads, 1.0)
    await asyncio.sleep(2)
    assert isinstance(stuck.exception(), TimeoutError)
    begin(threads)
    await asyncio.sleep(0)
    assert len(hand.begun) == 2
    hand.begun[0].set_result(None)  # the lost one ends after all
    begin(threads)
    await asyncio.sleep(1)
    assert len(hand.begun) == 2, "one runs, and there is one thread"
    hand.begun[1].set_result(None)
    await asyncio.sleep(1)
    assert len(hand.begun) == 3


async def test_so_many_threads_are_replaced_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    hand = ByHand()
    threads = Threads(1, hand)
    for _ in range(LOST_MAX + 1):
        begin(threads, 1.0)
        await asyncio.sleep(2)
    assert len(hand.begun) == LOST_MAX + 1
    waits = begin(threads, 1.0)
    await asyncio.sleep(100)
    assert len(hand.begun) == LOST_MAX + 1
    assert not waits.done(), "it waits, and costs no attempt"
    assert "hang in their threads" in caplog.text
    hand.begun[-1].set_result(None)
    await asyncio.sleep(0.5)
    assert len(hand.begun) == LOST_MAX + 2


async def test_who_is_cancelled_while_waiting_leaves_the_turn_to_the_next() -> None:
    hand = ByHand()
    threads = Threads(1, hand)
    _, second, third = begin(threads), begin(threads), begin(threads)
    await asyncio.sleep(0)
    hand.begun[0].set_result(None)
    await asyncio.sleep(0)  # its turn has come, and it has not taken it yet
    second.cancel()
    await asyncio.sleep(1)
    assert second.cancelled()
    assert len(hand.begun) == 2
    hand.begun[1].set_result(None)
    await asyncio.wait([third])
    assert third.exception() is None
