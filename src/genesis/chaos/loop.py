"""An event loop whose time is virtual: when nothing is ready, it jumps to the next timer.

It runs nested inside any other loop, or none: production code cannot tell. Sockets and threads have no place in it.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio import events
from collections.abc import Coroutine
from typing import Any, TypeVar

from genesis.core.errors import GenesisError

T = TypeVar("T")


class DeadlockError(GenesisError):
    """Everything waits and no timer is set: nothing can ever happen again."""

    code = "deadlock"


class _NoSelector(selectors.BaseSelector):
    """Knows no files; "waits" by moving the clock of its loop."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._map: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Accept the loop's own wake-up socket; it never fires."""
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._map[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget it again."""
        return self._map.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Jump over the time that would have been waited."""
        assert self.loop is not None
        if timeout is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self.loop))
            raise DeadlockError(f"nothing can happen any more; waiting: {', '.join(waiting) or 'nobody'}")
        self.loop.virtual_now += max(0.0, timeout)
        return []

    def get_map(self) -> Any:
        """What is registered."""
        return self._map


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual and starts at 0."""

    def __init__(self) -> None:
        selector = _NoSelector()
        self.virtual_now = 0.0
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual_now

    def run_nested(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, whether or not another loop runs in this thread."""
        outer = events._get_running_loop()
        events._set_running_loop(None)
        try:
            return self.run_until_complete(work)
        finally:
            events._set_running_loop(outer)
