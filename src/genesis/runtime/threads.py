"""Where plain functions run: a bounded number of threads, in which one that hangs takes nothing from the others.

In: a function, and how long it may take from its first line on. Out: its result. A thread cannot be stopped: a function
that goes on beyond its limit is left behind, and another thread takes the place of the one it sits in.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from genesis.runtime.log import log

T = TypeVar("T")
LOST_MAX = 64
"""Threads that are replaced: each costs a stack. Beyond, plain functions wait for one that ends."""


class Threads:
    """The threads of one node. Give it to one event loop."""

    def __init__(self, count: int, executor: Executor | None = None) -> None:
        """Start none yet.

        Args:
            count: Functions that may run at once.
            executor: Where they run instead; it is not closed.
        """
        self._count, self._own = count, executor is None
        self._executor = executor or self._pool()
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._lost: set[Future[Any]] = set()

    def _pool(self) -> Executor:
        return ThreadPoolExecutor(self._count, thread_name_prefix="genesis-handler")

    async def run(self, function: Callable[[], T], limit_s: float | None) -> T:
        """Run a function as soon as a thread is free, with the context variables of the caller: the wait does not count.

        Raises:
            TimeoutError: it took over `limit_s` seconds, and goes on, unheard.
        """
        await self._turn()
        loop = asyncio.get_running_loop()
        work: Future[T] = self._executor.submit(contextvars.copy_context().run, function)
        work.add_done_callback(lambda _: _tell(loop, self._ended, work))
        waiter = asyncio.wrap_future(work)
        try:
            await asyncio.wait([waiter], timeout=limit_s)
        finally:
            if not waiter.done():
                waiter.cancel()
                self._lose(work)
        if waiter.cancelled():
            raise TimeoutError
        return waiter.result()

    async def _turn(self) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it had its turn, and does not take it
                self._next()
            raise

    def _next(self) -> None:
        """A thread is free."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _lose(self, work: Future[T]) -> None:
        """Nobody waits for it any more, and it may go on."""
        if work.done():
            return
        if len(self._lost) >= LOST_MAX:
            log.error("%d plain handlers hang in their threads: others wait until one of them ends", LOST_MAX)
            return
        self._lost.add(work)
        if self._own:  # the threads of the old pool end with what runs in them
            self._executor.shutdown(wait=False)
            self._executor = self._pool()
        self._next()

    def _ended(self, work: Future[T]) -> None:
        if work in self._lost:
            self._lost.remove(work)
        else:
            self._next()

    def close(self) -> None:
        """Begin nothing more. What hangs is not waited for."""
        if self._own:
            self._executor.shutdown(wait=False, cancel_futures=True)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[Future[T]], None], work: Future[T]) -> None:
    """Called in the thread. The loop may be gone by now, with everybody who cared."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, work)
