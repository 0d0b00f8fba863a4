"""Several attempts of one call beside each other: the first good result wins.

In: a call and its plan. Out: its result or its error. Each attempt owns a task and a context of its own from its first step.
A failure starts what is planned next at once, and never beats a success that may still come. Losers are cancelled and
awaited in the background: they never delay the winner, and their results are closed. Of the attempts that a fallback was
faster than, one at a time goes on: else nobody would learn that the dependency does not answer at all.

Source: gRPC A6 for failures that start the next copy; Polly v8 for contexts and closed results; specification section 1.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from genesis.core.errors import AbandonedError, CircuitOpenError, DeadlineExceededError, LimitedError
from genesis.core.signals import Outcome, Step
from genesis.layers.mitigation.attempts import Plan
from genesis.runtime.instead import fallback
from genesis.runtime.log import log

if TYPE_CHECKING:
    from genesis.runtime.call import Call

GRACE_S = 0.02
"""How long a fallback that is ready waits for the call itself: a true answer is worth that much."""
FALLBACK = "fallback"
REFUSALS = (CircuitOpenError, LimitedError, AbandonedError, DeadlineExceededError)
"""What policies say, this one or one further inside, when they do not let a call out: no answer of the dependency."""
WEIGHTS = {FALLBACK: 1, "copy": 2, "first": 3}
"""Whose error is raised rather than another's."""
_losers: dict[asyncio.Task[Any], None] = {}
"""Cancelled attempts that have not ended: held, for the loop only refers to tasks weakly."""


class Race:
    """The attempts of one call, under way."""

    def __init__(self, call: Call, plan: Plan) -> None:
        self._call, self._loop = call, call.loop
        began = call.loop.time()
        self._planned: deque[tuple[float, str]] = deque(
            sorted(
                [(began + after_s, "copy") for after_s in plan.copies]
                + ([(began + plan.fallback_after_s, FALLBACK)] if plan.fallback_after_s is not None else [])
            )
        )
        self._running: dict[asyncio.Task[Any], str] = {}
        self._contexts: dict[asyncio.Task[Any], contextvars.Context] = {}
        self._let_out: dict[asyncio.Task[Any], asyncio.Event] = {}
        """Of each copy, whether limits and circuit have let it out."""
        self._ended: deque[asyncio.Task[Any]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        """What is raised if nothing is good: what the dependency said rather than a refusal, and of the first attempt first."""
        self._weight = 0
        self._bad: asyncio.Task[Any] | None = None
        """The last one whose result is bad."""
        self._failures = 0
        """Since the last start."""
        self._waits_until = 0.0
        """For the call itself, while a fallback is ready; 0: none is."""
        self._ready: asyncio.Task[Any] | None = None

    async def run(self) -> Any:
        """Wait for the first good result. If there is none, return a bad one, or raise the error of the first attempt."""
        self._start("first", self._call.once)
        try:
            while True:
                winner = self._judge()
                if winner is not None:
                    return self._won(winner, self._running.pop(winner))
                self._start_due()
                if not self._running:
                    return self._nothing_good()
                await self._news()
        finally:
            if not self._loop.is_closed():  # else all are thrown away together
                for task, kind in self._running.items():
                    self._lose(task, kind)

    def _start(self, kind: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Start an attempt. Its coroutine is made at its first step, which never comes if it is cancelled before."""
        context = contextvars.copy_context()
        task = self._loop.create_task(self._reported(work), name=f"{self._call.operation.name}-{kind}", context=context)
        task.add_done_callback(self._tell)
        self._running[task] = kind
        self._contexts[task] = context
        return task

    async def _reported(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """An attempt that tells its end itself, one turn of the loop before its task would."""
        task = asyncio.current_task()
        assert task is not None
        try:
            return await work()
        finally:
            if not self._loop.is_closed():  # else it is thrown away with its loop, and nobody waits
                self._tell(task)

    def _tell(self, task: asyncio.Task[Any]) -> None:
        if task in self._running and task not in self._ended:
            self._ended.append(task)
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def _news(self) -> None:
        """Wait until an attempt ends or the next one is due."""
        if self._ended:
            return
        self._wake = self._loop.create_future()
        due = self._waits_until or (self._planned[0][0] if self._planned else 0.0)
        timer = self._loop.call_at(due, _wake, self._wake) if due else None
        try:
            await self._wake
        finally:
            if timer is not None:
                timer.cancel()

    def _start_due(self) -> None:
        """Start what is due, or what is next if nothing runs."""
        now = self._loop.time()
        while self._planned and not self._waits_until and (self._planned[0][0] <= now or self._failures or not self._running):
            kind = self._planned.popleft()[1]
            self._failures = 0
            if kind == FALLBACK:
                self._start(kind, partial(fallback, self._call))
            else:
                self._copy(now)

    def _copy(self, now: float) -> None:
        call = self._call
        policy, part = call.policy, call.part
        if not part.wins.allow():
            return
        if not part.take("hedge", now):
            policy.tell(call.operation, Step.BUDGET_SPENT, "no copy")
            self._planned = deque(one for one in self._planned if one[1] == FALLBACK)
            return
        policy.tell(call.operation, Step.HEDGED, f"after {now - call.began:.3f} s")
        let_out = asyncio.Event()
        self._let_out[self._start("copy", partial(call.once, let_out))] = let_out

    def _judge(self) -> asyncio.Task[Any] | None:
        """Look at what has ended. Returns the winner, if there is one."""
        while self._ended:
            task = self._ended.popleft()
            kind = self._running[task]
            if self._is_good(task, kind):
                if kind != FALLBACK or not self._attempt_runs(task):
                    return task
                self._ready, self._waits_until = task, self._loop.time() + GRACE_S
                continue
            del self._running[task]
            if kind == "copy":
                self._copy_lost(task)
        if self._ready is not None and (self._loop.time() >= self._waits_until or not self._attempt_runs(self._ready)):
            return self._ready
        return None

    def _attempt_runs(self, but: asyncio.Task[Any]) -> bool:
        return any(task is not but and kind != FALLBACK and not task.done() for task, kind in self._running.items())

    def _is_good(self, task: asyncio.Task[Any], kind: str) -> bool:
        """Whether it may win. An error that no other attempt could mend wins too: it is the answer."""
        if task.cancelled():
            self._note(asyncio.CancelledError(), kind)
            return False
        error = task.exception()
        if error is None:
            if kind == FALLBACK or not self._call.operation.is_bad(task.result()):
                return True
            self._bad = task
            self._failures += 1
        elif isinstance(error, REFUSALS) and kind != FALLBACK:
            self._refused(error, kind)
        elif kind != FALLBACK and self._call.operation.judge(error) not in (Outcome.FAILED, Outcome.TIMEOUT):
            return True
        else:
            self._call.fell_flat |= kind == FALLBACK
            self._note(error, kind)
        return False

    def _refused(self, error: Exception, kind: str) -> None:
        """An attempt was not let out, here or further inside: no answer, and no reason to start another one."""
        self._note(error, kind)
        self._failures -= 1
        self._planned = deque(one for one in self._planned if one[1] == FALLBACK)

    def _note(self, error: BaseException, kind: str) -> None:
        self._failures += 1
        weight = WEIGHTS[kind] + (kind != FALLBACK and not isinstance(error, REFUSALS)) * len(WEIGHTS)
        if weight > self._weight:
            self._weight = weight
            self._error = error if isinstance(error, Exception) else RuntimeError("an attempt was cancelled from inside")

    def _nothing_good(self) -> Any:
        """All attempts have ended, and none was good."""
        if self._bad is not None:
            return self._won(self._bad, "bad")
        assert self._error is not None
        raise self._error

    def _won(self, winner: asyncio.Task[Any], kind: str) -> Any:
        """Hand its context and its result to the caller."""
        for variable, value in self._contexts[winner].items():
            if variable.get(_NONE) is not value:
                variable.set(value)
        call = self._call
        if kind == "copy":
            call.part.wins.tell(won=True)
            call.policy.tell(call.operation, Step.HEDGE_WON)
        elif kind == FALLBACK:
            call.policy.tell(call.operation, Step.FALLBACK, "it was faster")
            call.stood_in(self._error, failed="first" not in self._running.values())
        return winner.result()

    def _lose(self, task: asyncio.Task[Any], kind: str) -> None:
        call = self._call
        if kind == "copy":
            self._copy_lost(task)
        _losers[task] = None
        if kind == "first" and call.fell_back and not call.part.observed:
            task.add_done_callback(call.observe())
        else:
            task.cancel()
        task.add_done_callback(_lost)

    def _copy_lost(self, task: asyncio.Task[Any]) -> None:
        call = self._call
        if self._let_out[task].is_set():
            call.part.wins.tell(won=False)
        else:  # it never began: it was refused, or waited for its turn
            call.policy.budget.give_back("hedge", self._loop.time())
        call.policy.tell(call.operation, Step.HEDGE_LOST)


_NONE = object()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _lost(task: asyncio.Task[Any]) -> None:
    """A loser has ended: nobody wants its error, and its result is closed."""
    _losers.pop(task, None)
    if task.cancelled() or task.exception() is not None:
        return
    result = task.result()
    close = getattr(result, "aclose", None) or getattr(result, "close", None)
    if close is None:
        return
    try:
        closing = close()
        if asyncio.iscoroutine(closing):
            closer = task.get_loop().create_task(closing, name="close-loser")
            _losers[closer] = None
            closer.add_done_callback(_lost)
    except Exception as error:
        log.warning("the result of an attempt that was not needed could not be closed: %r", error)
