"""A coroutine that was stepped once goes on in the same task, with a timer.

The timer is armed at the first suspension: a call that ends at once costs none. It cancels the task and takes the cancellation
back, as `asyncio.timeout_at` does, so that scopes around and inside it (anyio, TaskGroup) see what they expect.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from genesis.core.errors import CallTimeoutError


@types.coroutine
def resumed(rest: Coroutine[Any, Any, Any], waiting_for: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was stepped once and waits for something."""
    while True:
        try:
            yield waiting_for
        except BaseException as error:
            try:
                waiting_for = rest.throw(error)
            except StopIteration as stop:
                return stop.value
        else:
            return (yield from rest.__await__())


async def calling(make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A coroutine that calls a function and awaits what it gives, if that can be awaited."""
    made = make(*args, **kwargs)
    return await made if hasattr(made, "__await__") else made


class Limit:
    """A timer on the current task."""

    __slots__ = ("_cancelling", "_handle", "_task", "expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """Arm it for `when`, on the loop's clock."""
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a protected call that waits needs a task to run in: await it from a coroutine of the loop")
        self._task, self._cancelling, self.expired = task, task.cancelling(), False
        self._handle = loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    def over(self) -> bool:
        """The work ended. Returns whether a cancellation that ended it was this timer's alone."""
        self._handle.cancel()
        return self.expired and self._task.uncancel() <= self._cancelling


async def within(
    loop: asyncio.AbstractEventLoop, when: float, what: str, limit_s: float, rest: Coroutine[Any, Any, Any], waiting_for: Any
) -> Any:
    """Go on with a coroutine until `when`, in the task that stepped it.

    Raises:
        CallTimeoutError: it was not over.
    """
    limit = Limit(loop, when)
    try:
        result = await resumed(rest, waiting_for)
    except asyncio.CancelledError:
        if limit.over():
            raise CallTimeoutError(what, limit_s) from None
        raise
    except BaseException:
        limit.over()
        raise
    limit.over()
    return result
