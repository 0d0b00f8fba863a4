"""Tasks that live and end together. The first failure is told; nothing is left behind unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Supervisor:
    """Owner of the tasks of one partition."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """The first error that a task ended with."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task."""
        task = asyncio.create_task(work, name=f"genesis-{name}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self.failure.done():
            self.failure.set_result(error)

    def cancel(self, *prefixes: str) -> None:
        """Cancel the tasks whose names start with one of the prefixes."""
        for task in list(self._tasks):
            if task.get_name().removeprefix("genesis-").startswith(prefixes):
                task.cancel()

    async def stop(self, grace_s: float, *, but: str = "") -> list[str]:
        """Cancel what is left (`but` one, by name) and wait for it, `grace_s` seconds at most.

        Returns the names of those that did not end.
        """
        tasks = [task for task in self._tasks if task.get_name() != f"genesis-{but}"]
        for task in reversed(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        return [task.get_name() for task in tasks if not task.done()]
