"""A policy that is used in several threads at once: what one does between two steps of another."""

from __future__ import annotations

import asyncio
from random import Random

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
