"""How the processes of a world end: one that is killed is buried, one that is told to end is watched until it has.

In: processes. Out: complaints about what does not end. Nobody owns the tasks here: what unwinds does not bury itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from genesis.chaos.loop import VirtualLoop
from genesis.chaos.process import Process
from genesis.runtime.life import REOPENS, NodeSettings

BURY_TRIES = 30
BURY_S = 300.0
"""How long what is left of a dead process may take to unwind: longer than any handler that ignores its cancellation."""


class Ends:
    """The ends of all processes of one world."""

    def __init__(self, loop: VirtualLoop, settings: NodeSettings, wrong: Callable[[str], None]) -> None:
        """Nothing ends yet.

        Args:
            loop: Where they run.
            settings: Limits of each process.
            wrong: Told what must not be.
        """
        self._loop, self._wrong = loop, wrong
        self._limit_s = BURY_S + REOPENS * 2 * (settings.drain_s + settings.grace_s)
        """Longest way to an end in order: each try drains and commits, and the store may be out of reach for a while."""
        self._tasks: list[asyncio.Task[None]] = []

    def bury(self, process: Process) -> None:
        """Let what is left of a dead process unwind, for a while."""
        self._watch(self._bury(process), f"bury-{process.host.name}")

    def stop(self, process: Process) -> None:
        """Tell a process to end in order, and see that it does, with all that it began."""
        process.stop()
        self._watch(self._see(process), f"end-{process.host.name}")

    def _watch(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(self._loop.create_task(work, name=name, context=Context()))

    async def _bury(self, process: Process) -> None:
        for _ in range(BURY_TRIES):  # again and again: some do not heed it, and go on
            if not process.remains:
                break
            await asyncio.wait(process.remains, timeout=BURY_S / BURY_TRIES)
            for task in process.remains:
                task.cancel()
        if process.remains:
            self._wrong(f"left behind by a dead process: {_names(process)}")
        process.dead = True

    async def _see(self, process: Process) -> None:
        await asyncio.wait([process.died], timeout=self._limit_s)
        if not process.died.done():
            self._wrong(f"{process.host.name} was told to end, and does not in {self._limit_s:.0f} s")
            process.kill()
        until = self._loop.time() + BURY_S
        while process.remains and self._loop.time() < until:  # of its own accord, and with all that it begins meanwhile
            await asyncio.wait(process.remains, timeout=until - self._loop.time())
        if process.remains:
            self._wrong(f"left running: {_names(process)}")

    async def all(self) -> None:
        """Wait for all ends."""
        while under_way := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(under_way)


def _names(process: Process) -> str:
    return ", ".join(task.get_name() for task in process.remains)
