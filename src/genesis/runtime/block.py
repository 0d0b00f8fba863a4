"""Protected work that is not one call: a block of code, and a stream of items. Neither can be repeated once it has begun.

In: an operation. Out: permission, a timer on the current task, and an outcome when the work ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import aclosing, nullcontext
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from genesis.core.errors import CallTimeoutError
from genesis.core.signals import Outcome
from genesis.runtime.call import Call
from genesis.runtime.limit import Limit
from genesis.runtime.scope import SCOPE

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation


class Attempt:
    """``async with policy.attempt() as a:`` one attempt. `a.deadline` is its end on the loop's clock."""

    __slots__ = ("_began", "_call", "_limit", "_limit_s", "_operation", "_scope", "_shard", "deadline")

    def __init__(self, operation: Operation, shard: Hashable) -> None:
        self._operation, self._shard = operation, shard
        self._limit: Limit | None = None

    async def __aenter__(self) -> Attempt:
        """Ask for permission. Raises CircuitOpenError, LimitedError, AbandonedError or DeadlineExceededError."""
        policy = self._operation.policy
        now = policy.now()
        part = policy.whole if self._shard is None else policy.part(str(self._shard))
        call = self._call = Call(self._operation, part, _nothing, ((), {}), now)
        await call.enter()
        self._scope, self._began = call.scope, call.loop.time()
        self._limit_s = call.limit_s(self._began)
        self.deadline = self._began + self._limit_s
        SCOPE.set((min(call.until, self.deadline), call.scope[1]))
        if self.deadline < inf:
            self._limit = Limit(call.loop, self.deadline)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the outcome. Raises CallTimeoutError when the block was cut off."""
        SCOPE.set(self._scope)
        expired = self._limit is not None and self._limit.over()
        call, name = self._call, self._operation.name
        if expired and isinstance(error, asyncio.CancelledError):
            error = CallTimeoutError(name, self._limit_s)
        outcome = Outcome.GOOD if error is None else self._operation.judge(error)
        call.leave(self._began, outcome, error)
        if isinstance(error, CallTimeoutError) and error.what == name:
            raise error from None


def _nothing() -> None:
    """What a block calls: its work is between entering and leaving."""


class Stream:
    """A protected async generator. Until its first item it may be tried again; from then on it is one attempt."""

    def __init__(
        self,
        operation: Operation,
        function: Callable[..., AsyncGenerator[Any, Any]],
        given: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        self._operation, self._function, self._given = operation, function, given

    async def items(self) -> AsyncIterator[Any]:
        """Yield its items. The call ends when the stream is closed; the timeout is for the first item."""
        operation, now = self._operation, self._operation.policy.now()
        call = Call(operation, operation.part(self._given), self._open, self._given, now)
        call.alone = call.held = True
        try:
            opened = await call.run()
        except BaseException:
            call.let_go()  # it was cancelled: nobody told an outcome
            raise
        if call.fell_back or not isinstance(opened, _Opened):  # another stream stands in
            async with aclosing(opened) if hasattr(opened, "aclose") else nullcontext():
                async for item in opened:
                    yield item
            return
        outcome, failure, thrown = Outcome.CANCELLED if opened.first else Outcome.GOOD, None, None
        call.part.under_way += 1
        try:
            while opened.first:
                try:
                    sent = yield opened.first[0]
                except GeneratorExit:
                    raise
                except BaseException as error:  # of the reader, as a context manager throws that of its block
                    thrown = error
                    opened.first[0] = await opened.rest.athrow(error)
                else:
                    opened.first[0] = await opened.rest.asend(sent)
        except StopAsyncIteration:
            outcome = Outcome.GOOD
        except Exception as error:
            outcome, failure = Outcome.IGNORED if error is thrown else operation.judge(error), error
            raise
        finally:
            call.part.under_way -= 1
            try:
                await opened.rest.aclose()
            finally:
                call.leave_gate()
                call.conclude(outcome, failure)

    async def _open(self, *args: Any, **kwargs: Any) -> _Opened:
        rest = self._function(*args, **kwargs)
        try:
            return _Opened(rest, [await anext(rest)])
        except StopAsyncIteration:
            return _Opened(rest, [])
        except BaseException:
            await rest.aclose()
            raise


class _Opened:
    """A stream whose first item is there."""

    __slots__ = ("first", "rest")

    def __init__(self, rest: AsyncGenerator[Any, Any], first: list[Any]) -> None:
        self.rest, self.first = rest, first
