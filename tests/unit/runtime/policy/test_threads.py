"""A policy that is used in several threads at once: what one does between two steps of another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random

from genesis.layers.detection.latency import MINIMUM, Latency
from genesis.layers.mitigation.settings import PolicySettings
from genesis.runtime.gate import Gate


class LeavingLoop(asyncio.SelectorEventLoop):
    """While a task makes what it will wait for, a thread leaves its place."""

    gate: Gate | None = None

    def create_future(self) -> asyncio.Future[object]:
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.leave()
        return super().create_future()


def test_a_place_that_a_thread_leaves_while_a_task_begins_to_wait_is_not_lost() -> None:
    gate = Gate(PolicySettings(concurrency=1, queue=1), Random(), lambda name, limit: None)
    gate.enter_now("thread")

    async def enters() -> None:
        loop.gate = gate
        async with asyncio.timeout(1.0):
            await gate.enter("task", float("inf"))

    loop = LeavingLoop()
    try:
        loop.run_until_complete(enters())
    finally:
        loop.close()
    assert gate.places == 1
    gate.leave()
    assert gate.places == 0


class Meanwhile(list[int]):
    """When it is gone through, another thread does something in the middle of it, once."""

    act: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[int]:
        for index, count in enumerate(super().__iter__()):
            if index == len(self) // 2 and self.act is not None:
                act, self.act = self.act, None
                act()
            yield count


def test_latencies_may_be_told_and_asked_while_they_are_estimated() -> None:
    latency = Latency()
    for _ in range(MINIMUM):
        latency.tell(0.1, 1.0)
    older = Meanwhile(latency._olders[0][0])
    latency._olders = [(older, latency._olders[0][1]), latency._olders[1]]
    heard: list[float | None] = []

    def another_thread() -> None:
        latency.tell(3000.0, 1.0)
        heard.append(latency.quantile(0.5, 1.0))

    older.act = another_thread
    assert latency.quantile(0.5, 1.0) == heard[0]
    assert heard[0] is not None
