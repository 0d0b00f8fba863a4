"""One protected call, from its deadline to its outcome.

The stages stand here in their order, outermost first:
deadline -> fallback -> throttle -> abandonment -> retry -> hedge -> per attempt [limits -> circuit -> timeout -> the call]

In: an operation and what makes its awaitable. Out: a result, or one typed error. The circuit hears of one outcome at the most,
however many attempts there were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from genesis.core.signals import AttemptEnded, Outcome, Step
from genesis.layers.mitigation.attempts import Plan, backoff_s, plan, retry_after_of
from genesis.layers.mitigation.settings import NEVER
from genesis.layers.mitigation.states import CircuitState, Permit
from genesis.layers.mitigation.timeouts import timeout_s
from genesis.runtime.instead import explained, instead
from genesis.runtime.limit import calling, resumed, within
from genesis.runtime.race import Race
from genesis.runtime.scope import SCOPE, Scope, resolved

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation
    from genesis.runtime.part import Part

WAIT_MAX_S = 60.0
"""Longest wait for another attempt that a caller is kept for. Who has to come back later is told so by the error itself."""
LEASE_MAX_S = 3600.0
"""How long a probe that has no timeout holds its permit."""


class Call:
    """A call under way. Lives in the task of its caller."""

    __slots__ = (
        *("began", "given", "loop", "make", "operation", "part", "policy", "repeats", "scope", "until"),
        *("alone", "entered", "fell_back", "fell_flat", "held", "number", "permit", "took_s", "tries"),
    )

    def __init__(
        self,
        operation: Operation,
        part: Part,
        make: Callable[..., Any],
        given: tuple[tuple[Any, ...], dict[str, Any]],
        began: float,
        scope: Scope | None = None,
    ) -> None:
        self.operation, self.policy, self.part = operation, operation.policy, part
        self.make, self.given = make, given
        self.loop, self.began = asyncio.get_running_loop(), began
        self.scope: Scope = SCOPE.get() if scope is None else scope
        self.until = min(resolved(self.scope)[0], began + operation.deadline_s)
        self.repeats = not self.scope[1]
        """Whether attempts may follow a failed one, or run beside a slow one: not below somebody who repeats this call."""
        self.number = self.tries = 0
        """Attempts begun, copies included; and rounds of them, one after the other."""
        self.permit: Permit | None = None
        self.took_s = 0.0
        self.fell_back = self.fell_flat = self.alone = self.held = self.entered = False
        """Whether a fallback answered, or failed beside an attempt; nothing may run beside one; its outcome is told by whoever
        made the call; a block or stream has a turn of the gate."""

    # --- the stages ---------------------------------------------------------------------------------------------------

    async def run(self, first: Coroutine[Any, Any, Any] | None = None) -> Any:
        """All stages. `first`: the first attempt, which has begun already, in the scope that it is to have."""
        try:
            if first is None:
                self._enter_scope()
                self.operation.begin(self.part, self.began, self.until)
            result = await self._repeated(first)
        except Exception as error:
            return await instead(self, error)
        finally:
            SCOPE.set(self.scope)
            if not self.held:
                self.let_go()
        if self.operation.stale is not None and not (self.fell_back or self.held):
            self.operation.stale.put(self.operation.entry(self.given), result, self.loop.time())
        return result

    def _enter_scope(self) -> None:
        SCOPE.set((self.until, self.scope[1] or self.operation.repeats))

    async def _repeated(self, first: Coroutine[Any, Any, Any] | None) -> Any:
        """Try, and try again while that is allowed and may help."""
        judge = self.operation.judge
        while True:
            self.tries += 1
            try:
                result = await (self._attempts() if first is None else first)
            except Exception as error:
                outcome = judge(error)
                wait_s = self._wait_s(error, outcome)
                if wait_s is None:
                    self._fails(error, outcome)
                    raise
            else:
                if self.fell_back or self.held or not self.operation.is_bad(result):
                    if not self.held:
                        self._succeeds()
                    return result
                wait_s = self._wait_s(None, Outcome.FAILED)
                if wait_s is None:
                    self._fails(None, Outcome.FAILED)
                    return result
            if first is not None:  # it may have been inside a scope of its own when it ended
                first = None
                self._enter_scope()
            self.let_go()
            await self._pause(wait_s)

    async def _pause(self, wait_s: float) -> None:
        try:
            await asyncio.sleep(wait_s)
        except BaseException:  # the next attempt, which is paid, never starts
            self.policy.budget.give_back("retry", self.loop.time())
            raise

    async def _attempts(self) -> Any:
        """One attempt, or several beside each other."""
        found = self._plan()
        if found is None:
            return await self.once()
        return await Race(self, found).run()

    def _plan(self) -> Plan | None:
        part, operation = self.part, self.operation
        state = part.circuit.state
        if self.alone or state in (CircuitState.OPEN, CircuitState.HALF_OPEN):
            return None
        now = self.loop.time()
        found = plan(
            operation.settings,
            state=state.value,
            quantile=lambda q: part.quantile(q, now),
            expected_s=operation.expected_s or part.expected_s,
            idempotent=operation.idempotent and self.repeats,
            has_fallback=operation.fallback is not None,
            vetoed=part.vetoed(now),
        )
        return found if found.copies or found.fallback_after_s is not None else None

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def once(self, let_out: asyncio.Event | None = None) -> Any:
        """One attempt: limits, circuit, timeout, the call itself. `let_out`: it is a copy, and says there that it begins."""
        self.number += 1
        number, gate = self.number, self.policy.gate
        limited = gate.limited
        if limited:
            await gate.enter(self.operation.name, self.until)
        try:
            permit = self._permitted()
            if let_out is not None:
                let_out.set()
            first = self.permit is None  # may be a copy, while the first attempt waits for its turn or was refused it
            if first:
                self.permit = permit
            try:
                result = await self._made(number, let_out is not None)
            finally:
                if not first:
                    self.part.released(permit)
            if self.held:
                self.entered, limited = limited, False
            return result
        finally:
            if limited:
                gate.leave()

    async def enter(self) -> None:
        """Begin a block, which is its own first attempt."""
        self.operation.begin(self.part, self.began, self.until)
        self.number, gate = 1, self.policy.gate
        if gate.limited:
            await gate.enter(self.operation.name, self.until)
            self.entered = True
        try:
            self.permit = self._permitted()
        except BaseException:
            self.leave_gate()
            raise
        self.part.under_way += 1

    def leave(self, began: float, outcome: Outcome, error: BaseException | None) -> None:
        """A block has ended. Raises what says more than its error."""
        self.part.under_way -= 1
        self.ended(1, began, outcome, False)
        self.leave_gate()
        self.conclude(outcome, error)

    def conclude(self, outcome: Outcome, error: BaseException | None) -> None:
        """Tell the outcome of a call that was held. Raises what says more than its error."""
        if outcome is Outcome.GOOD:
            self._succeeds()
            return
        self._fails(error, outcome)

    def leave_gate(self) -> None:
        """Give the turn of a block or stream back."""
        if self.entered:
            self.entered = False
            self.policy.gate.leave()

    def _permitted(self) -> Permit:
        now = self.loop.time()
        return self.operation.permitted(self.part, now, min(self.limit_s(now), LEASE_MAX_S))

    async def _made(self, number: int, hedge: bool) -> Any:
        """Make the call and step it for the first time."""
        began = self.loop.time()
        rest = calling(self.make, *self.given)
        try:
            waiting_for = rest.send(None)
        except StopIteration as stop:
            self.ended(number, began, Outcome.GOOD, hedge)
            return stop.value
        except BaseException as error:
            self.ended(number, began, self.operation.judge(error), hedge)
            raise
        return await self.waits(rest, waiting_for, number, began, hedge)

    async def raised(self, error: BaseException, began: float) -> NoReturn:
        """The first attempt ended at its first step."""
        self.ended(1, began, self.operation.judge(error), False)
        raise error

    async def waits(self, rest: Coroutine[Any, Any, Any], waiting_for: Any, number: int, began: float, hedge: bool) -> Any:
        """Go on with an attempt that waits for something: now it has a timer."""
        part, outcome = self.part, Outcome.CANCELLED
        limit_s = self.limit_s(began)
        part.under_way += 1
        try:
            if limit_s < NEVER:
                result = await within(self.loop, began + limit_s, self.operation.name, limit_s, rest, waiting_for)
            else:
                result = await resumed(rest, waiting_for)
            outcome = Outcome.GOOD
            return result
        except Exception as error:
            outcome = self.operation.judge(error)
            raise
        finally:
            part.under_way -= 1
            self.ended(number, began, outcome, hedge)

    def limit_s(self, began: float) -> float:
        """How long an attempt may take that begins now."""
        operation, part = self.operation, self.part
        remaining_s = max(0.0, self.until - began)
        if operation.timeout_s is not None:
            return min(operation.timeout_s, remaining_s)
        base_s = operation.base_s(part.circuit.state)
        expected_s = operation.expected_s or part.expected_s
        return timeout_s(operation.settings, base_s, expected_s, part.p99_s, remaining_s)

    def ended(self, number: int, began: float, outcome: Outcome, hedge: bool) -> None:
        """An attempt ended: its latency is learned, unless it failed, which says nothing of how long a call takes."""
        now = self.loop.time()
        self.took_s = took_s = now - began
        if outcome in (Outcome.GOOD, Outcome.UNHANDLED):
            self.part.took(took_s, now)
        elif outcome in (Outcome.TIMEOUT, Outcome.CANCELLED):
            self.part.took(took_s, now, censored=True)
        policy = self.policy
        policy.count(outcome)
        if policy.listened:
            policy.emit(AttemptEnded(policy.name, now, self.operation.name, number, took_s, outcome, hedge))

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def observe(self) -> Callable[[asyncio.Task[Any]], None]:
        """The attempt goes on after a fallback has answered. Returns what is to be told its end."""
        part, permit = self.part, self.permit
        self.permit, part.observed = None, True

        def ended(task: asyncio.Task[Any]) -> None:
            part.observed, self.permit, self.fell_back = False, permit, False
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            with suppress(Exception):  # what the caller would be told: there is none any more
                self.conclude(Outcome.GOOD if error is None else self.operation.judge(error), error)

        return ended

    def _wait_s(self, error: Exception | None, outcome: Outcome) -> float | None:
        """After a failed attempt: seconds until the next one. None: there is none."""
        operation, policy, now = self.operation, self.policy, self.loop.time()
        if outcome not in (Outcome.FAILED, Outcome.TIMEOUT):
            return None
        if not self.repeats or self.tries >= operation.attempts or not operation.may_repeat(error):
            return None
        if self.permit is not None and self.permit.probe:
            return None
        asked_s = retry_after_of(error) if error is not None else None
        wait_s = backoff_s(operation.settings, self.tries, policy.rng, retry_after_s=asked_s)
        if wait_s > WAIT_MAX_S or now + wait_s >= self.until or self.part.abandons(operation.settings):
            return None
        if not self.part.take("retry", now):
            policy.tell(operation, Step.BUDGET_SPENT, "no retry")
            return None
        policy.tell(operation, Step.RETRIED, f"attempt {self.number} failed: {error!r}; next in {wait_s:.3f} s")
        return wait_s

    def stood_in(self, error: Exception | None, *, failed: bool) -> None:
        """A fallback answers, while the first attempt goes on or after it `failed`, of which the circuit hears all the same."""
        self.fell_back = True
        if failed:
            self._tell(error, self.operation.judge(error) if error is not None else Outcome.FAILED)

    def _succeeds(self) -> None:
        """The call was good; or a fallback was, which is no news of the dependency."""
        if self.permit is None or self.fell_back:
            return
        now, permit = self.loop.time(), self.permit
        self.permit = None
        self.policy.gate.judged(good=True)
        self.part.succeeded(permit, self.took_s, now)

    def _fails(self, error: BaseException | None, outcome: Outcome) -> None:
        """The call ended badly, or not as it was meant to. Raises what tells the caller more than the error itself."""
        if self.permit is None:
            return
        self._tell(error, outcome)
        if error is not None and outcome in (Outcome.FAILED, Outcome.TIMEOUT):
            now = self.loop.time()
            self.part.note(error, now, timeout=outcome is Outcome.TIMEOUT)
            more = self.repeats and self.tries < self.operation.attempts
            told = explained(self.operation, self.part, error, more, over=now >= self.until)
            if told is not None:
                raise told from error

    def _tell(self, error: BaseException | None, outcome: Outcome) -> None:
        """The circuit hears of it, if it is an outcome, and if it has not heard of one."""
        part, permit = self.part, self.permit
        if permit is None:
            return
        now, self.permit = self.loop.time(), None
        if outcome in (Outcome.IGNORED, Outcome.CANCELLED) or (outcome is Outcome.TIMEOUT and self._hurried(now)):
            part.released(permit)
        elif outcome is Outcome.UNHANDLED:  # an answer
            self.policy.gate.judged(good=True)
            part.succeeded(permit, self.took_s, now)
        else:
            self.policy.gate.judged(good=False)
            part.failed(permit, self.took_s, now, timeout=outcome is Outcome.TIMEOUT, error=error)

    def _hurried(self, now: float) -> bool:
        """Whether the deadline cut it off before it took longer than calls take."""
        usual_s = self.part.p99_s
        return now >= self.until and usual_s is not None and self.took_s < usual_s

    def let_go(self) -> None:
        """Give a permit back that was not used up by an outcome."""
        permit, self.permit = self.permit, None
        if permit is not None:
            self.part.released(permit)
