"""A protected call of a plain function, in whatever thread it is called.

In: an operation and a function. Out: its result, or one typed error. A plain function cannot be cut off: what comes late is a
slow success. It is not hedged, and between two tries its thread sleeps: on the thread of an event loop it is not tried again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genesis.core.errors import DeadlineExceededError, DefinitionError, UnavailableError
from genesis.core.signals import AttemptEnded, Outcome, Step
from genesis.layers.mitigation.attempts import backoff_s, retry_after_of
from genesis.layers.mitigation.circuit import LEASE_S
from genesis.layers.mitigation.states import Permit
from genesis.runtime.call import WAIT_MAX_S
from genesis.runtime.clock import sleep
from genesis.runtime.instead import explained
from genesis.runtime.scope import SCOPE, scope

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation


class PlainCall:
    """A call under way, in one thread."""

    def __init__(
        self, operation: Operation, function: Callable[..., Any], given: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> None:
        self._operation, self._policy = operation, operation.policy
        self._function, self._given = function, given
        self._began = self._policy.now()
        self._part = operation.part(given)
        self._scope = SCOPE.get()
        self._until = min(scope()[0], self._began + operation.deadline_s)
        self._number = 0

    def run(self) -> Any:
        """All stages, in their order."""
        operation = self._operation
        SCOPE.set((self._until, self._scope[1] or operation.repeats))
        try:
            operation.begin(self._part, self._began, self._until)
            result = self._repeated()
        except Exception as error:
            return self._instead(error)
        finally:
            SCOPE.set(self._scope)
        if operation.stale is not None:
            operation.stale.put(operation.entry(self._given), result, self._policy.now())
        return result

    def _repeated(self) -> Any:
        operation, part = self._operation, self._part
        while True:
            self._number += 1
            permit = operation.permitted(part, self._policy.now(), LEASE_S)
            began = self._policy.now()
            error, result, outcome = None, None, Outcome.CANCELLED
            try:
                result = self._attempt()
                outcome = Outcome.FAILED if operation.is_bad(result) else Outcome.GOOD
            except Exception as caught:
                error, outcome = caught, operation.judge(caught)
            finally:
                now = self._policy.now()
                self._ended(outcome, began, now)
                if outcome is Outcome.CANCELLED:
                    part.released(permit)
            wait_s = self._wait_s(error, outcome, permit, now)
            if wait_s is None:
                self._tell(permit, outcome, error, now - began, now)
                if error is not None:
                    told = explained(operation, part, error, False, over=False) if outcome is Outcome.FAILED else None
                    if told is not None:
                        raise told from error
                    raise error
                return result
            part.released(permit)
            sleep(wait_s)

    def _attempt(self) -> Any:
        gate = self._policy.gate
        if not gate.limited:
            return self._call()
        gate.enter_now(self._operation.name)
        try:
            return self._call()
        finally:
            gate.leave()

    def _call(self) -> Any:
        result = self._function(*self._given[0], **self._given[1])
        if inspect.iscoroutine(result):  # it would be taken for a good result before it has begun
            result.close()
            raise DefinitionError(
                f"{self._operation.name} gives a coroutine and is no `async def`", fix="await policy.call(function)"
            )
        return result

    def _wait_s(self, error: Exception | None, outcome: Outcome, permit: Permit, now: float) -> float | None:
        """After a failed attempt: seconds until the next one. None: there is none."""
        operation, policy = self._operation, self._policy
        if outcome is not Outcome.FAILED:
            return None
        if self._scope[1] or permit.probe or self._number >= operation.attempts or not operation.may_repeat(error):
            return None
        if asyncio._get_running_loop() is not None:
            return None
        asked_s = retry_after_of(error) if error is not None else None
        wait_s = backoff_s(operation.settings, self._number, policy.rng, retry_after_s=asked_s)
        if wait_s > WAIT_MAX_S or now + wait_s >= self._until or not self._part.take("retry", now):
            return None
        policy.tell(operation, Step.RETRIED, f"attempt {self._number} failed: {error!r}; next in {wait_s:.3f} s")
        return wait_s

    def _tell(self, permit: Permit, outcome: Outcome, error: Exception | None, took_s: float, now: float) -> None:
        part = self._part
        if outcome is Outcome.FAILED:
            self._policy.gate.judged(good=False)
            part.failed(permit, took_s, now, timeout=False, error=error)
            if error is not None:
                part.note(error, now)
        elif outcome is Outcome.IGNORED:
            part.released(permit)
        else:
            part.took(took_s, now)
            self._policy.gate.judged(good=True)
            part.succeeded(permit, took_s, now)

    def _ended(self, outcome: Outcome, began: float, now: float) -> None:
        policy = self._policy
        policy.count(outcome)
        if policy.listened:
            policy.emit(AttemptEnded(policy.name, now, self._operation.name, self._number, now - began, outcome))

    def _instead(self, error: Exception) -> Any:
        operation, policy = self._operation, self._policy
        unavailable = isinstance(error, (UnavailableError, DeadlineExceededError))
        if not unavailable and operation.judge(error) is not Outcome.FAILED:
            raise error
        kept = operation.stale.get(operation.entry(self._given), policy.now()) if operation.stale is not None else None
        if kept is not None:
            policy.tell(operation, Step.STALE, f"{kept[1]:.1f} s old, since: {error!r}")
            return kept[0]
        if operation.fallback is None:
            raise error
        policy.tell(operation, Step.FALLBACK, repr(error))
        try:
            result = operation.fallback(*self._given[0], **self._given[1])
            if inspect.iscoroutine(result):
                result.close()
                raise DefinitionError(f"the fallback of {operation.name}, a plain function, is async", fix="def")
            return result
        except Exception as failure:
            if failure.__cause__ is None:  # whoever judges it must see why the fallback was asked
                raise failure from error
            raise
