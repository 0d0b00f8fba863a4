"""An operation of a dependency: what may be repeated, what stands in for it, how long it may take; and the ways to call it.

In: the user's function, and a policy. Out: a function with the same signature that is protected. A call that ends at once while
the circuit is calm goes the short way: it is stepped in the caller's task, without timer, task or permit. All others become a
`Call`.
"""

from __future__ import annotations

import inspect
from asyncio import get_running_loop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from genesis.core.errors import (
    AbandonedError,
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    DefinitionError,
    NotProcessedError,
    Reject,
)
from genesis.core.signals import AttemptEnded, Outcome, Step
from genesis.layers.mitigation.fallback import Stale
from genesis.layers.mitigation.settings import NEVER, PolicySettings
from genesis.layers.mitigation.states import CircuitState, Permit, Refusal
from genesis.runtime.block import Attempt, Stream
from genesis.runtime.call import Call
from genesis.runtime.clock import own_time
from genesis.runtime.log import log
from genesis.runtime.plain import PlainCall
from genesis.runtime.race import REFUSALS
from genesis.runtime.scope import FREE, SCOPE, resolved

if TYPE_CHECKING:
    from genesis.runtime.part import Part
    from genesis.runtime.policy import Policy

P = ParamSpec("P")
R = TypeVar("R")
Which = type[BaseException] | Callable[[BaseException], bool]
"""Errors by class (subclasses included), or by a function that says yes or no."""


class Matcher:
    """Does an error belong to these?"""

    __slots__ = ("_functions", "_otherwise", "_types")

    def __init__(self, what: Which | tuple[Which, ...], *, otherwise: bool = False) -> None:
        """`otherwise`: what holds when a function of the user's fails: the caller is to have the error of the dependency."""
        self._otherwise = otherwise
        given = what if isinstance(what, tuple) else (what,)
        for one in given:
            if not callable(one):
                raise DefinitionError(f"{one!r} is neither a class of errors nor a function", fix="(OSError, TimeoutError)")
        self._types = tuple(one for one in given if isinstance(one, type))
        self._functions = tuple(one for one in given if not isinstance(one, type))

    def __call__(self, error: BaseException) -> bool:
        """Whether it does."""
        return isinstance(error, self._types) or any(_says(function, error, self._otherwise) for function in self._functions)


def _says(function: Callable[[Any], bool], about: Any, otherwise: bool) -> bool:
    """What a function of the user's says; if it fails, that is logged and `otherwise` holds."""
    try:
        return bool(function(about))
    except Exception:
        log.exception("%r cannot judge %r", function, about)
        return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operation is, as `Policy.protect` takes it. `ignore` is for adapters, and holds beside the policy's."""

    name: str = ""
    idempotent: bool = False
    essential: bool | None = None
    fallback: Callable[..., Any] | None = None
    deadline: float | None = None
    timeout: float | None = None
    expected_latency: float | None = None
    attempts: int | None = None
    retry_on: Which | tuple[Which, ...] | None = None
    not_processed: Which | tuple[Which, ...] = ()
    ignore: Which | tuple[Which, ...] = ()
    bad_result: Callable[[Any], bool] | None = None
    shard: Callable[..., Hashable] | None = None

    def __post_init__(self) -> None:
        for what in ("deadline", "timeout", "expected_latency"):
            value = getattr(self, what)
            if value is not None and (not isinstance(value, (int, float)) or not value > 0):
                raise DefinitionError(f"{what} is {value!r}: more than 0 seconds are needed")
        for what in ("fallback", "bad_result", "shard"):
            value = getattr(self, what)
            if value is not None and not callable(value):
                raise DefinitionError(f"{what} is {value!r}: a function is needed", fix=f"{what}=lambda *args: {value!r}")


class Operation:
    """One operation of a policy. `@operation` protects a function; `call`, `attempt` and `guard` protect what is at hand."""

    def __init__(self, policy: Policy, options: Options) -> None:
        self.policy, self.options = policy, options
        self.name = f"{policy.name}.{options.name}" if options.name else policy.name
        self.idempotent, self.fallback, self.shard = options.idempotent, options.fallback, options.shard
        self.timeout_s, self.expected_s = options.timeout, options.expected_latency
        self._retry_on = None if options.retry_on is None else Matcher(options.retry_on)
        self._not_processed, self._ignored = Matcher(options.not_processed), Matcher(options.ignore)
        self._bad_result = options.bad_result
        self.stale: Stale[Hashable, Any] | None = None
        self.tune(policy.settings)
        policy.operations.add(self)

    def tune(self, settings: PolicySettings) -> None:
        """The policy has other settings."""
        options = self.options
        own = {"essential": options.essential, "deadline_s": options.deadline, "attempts": options.attempts}
        self.settings = settings.changed(**{name: value for name, value in own.items() if value is not None})
        self.attempts, self.deadline_s = self.settings.attempts, self.settings.deadline_s
        self.repeats = self.idempotent and (self.attempts > 1 or settings.hedges > 0)
        self.hedges = self.idempotent and settings.hedges > 0
        self.scoped = self.repeats or self.deadline_s < NEVER
        """Whether what its calls call has another scope than its callers."""
        if settings.stale_s > 0:
            self.stale = Stale(self.settings) if self.stale is None else self.stale
            self.stale.tune(self.settings)
        else:
            self.stale = None
        limited = settings.concurrency > 0 or settings.rate_per_s > 0 or settings.throttle > 0
        self.easy = not (limited or self.stale is not None or self._bad_result or self.shard)
        """Whether its calls may go the short way."""
        self.plain = self.easy and not self.scoped
        """Whether they may, without a look at the clock: nobody below has to know a deadline."""

    # --- judgement --------------------------------------------------------------------------------------------------------

    def judge(self, error: BaseException) -> Outcome:
        """What an error says of the dependency."""
        if not isinstance(error, Exception):
            return Outcome.CANCELLED
        policy = self.policy
        if policy.ignored(error) or self._ignored(error):
            return Outcome.IGNORED
        if isinstance(error, CallTimeoutError) and error.what == self.name:
            return Outcome.TIMEOUT
        if isinstance(error, REFUSALS):
            return Outcome.IGNORED
        ours = isinstance(error, (Reject, DefinitionError))  # a handler's verdict on its event, or a mistake in the application
        failed = policy.failures(error) and not ours
        if failed or isinstance(error, NotProcessedError) or self._not_processed(error):
            return Outcome.FAILED
        return Outcome.UNHANDLED

    def is_bad(self, result: Any) -> bool:
        """Whether a result counts as a failure."""
        return self._bad_result is not None and _says(self._bad_result, result, False)

    def may_repeat(self, error: Exception | None) -> bool:
        """Whether another attempt may follow this failure (None: a bad result)."""
        if error is not None and (isinstance(error, NotProcessedError) or self._not_processed(error)):
            return True
        return self.idempotent and (self._retry_on is None or error is None or self._retry_on(error))

    def base_s(self, state: CircuitState) -> float:
        """The base timeout in a state of the circuit. It is never shorter where calls are known to be slower."""
        settings = self.settings
        if state is CircuitState.RESILIENT:
            return max(settings.timeout_s, settings.timeout_resilient_s)
        if state is CircuitState.ULTRA_RESILIENT:
            return max(settings.timeout_s, settings.timeout_resilient_s, settings.timeout_ultra_s)
        return settings.timeout_s

    def begin(self, part: Part, began: float, until: float) -> None:
        """May a call be tried at all? Raises what says no."""
        policy = self.policy
        part.deposit(began)
        if began >= until:
            raise DeadlineExceededError(f"{self.name} was not called: its deadline was over")
        if not part.circuit.rules:
            return
        policy.gate.throttled(self.name)
        wait_s = part.probability.ask(self.settings, began)
        if wait_s is not None:
            policy.tell(self, Step.ABANDONED, f"success probability {part.probability.value:.2f}")
            raise AbandonedError(self.name, wait_s, part.probability.value)

    def permitted(self, part: Part, now: float, lease_s: float) -> Permit:
        """May an attempt go out? Raises CircuitOpenError."""
        found = part.ask(now, lease_s)
        if isinstance(found, Refusal):
            self.policy.tell(self, Step.REJECTED, found.why)
            raise CircuitOpenError(self.name, found.retry_after_s, found.state.value, found.why) from part.cause
        return found

    def part(self, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Part:
        """The dependency, or the shard of it that a call is for."""
        if self.shard is None:
            return self.policy.whole
        shard = self.shard(*given[0], **given[1])
        return self.policy.whole if shard is None else self.policy.part(str(shard))

    def entry(self, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Hashable:
        """Under which a result is kept: its arguments, or what they look like."""
        key = (given[0], tuple(sorted(given[1].items())))
        try:
            hash(key)
        except TypeError:
            return repr(key)
        return key

    # --- the ways to call -------------------------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Protect a function: ``async def``, ``def`` or an async generator, of a module or of a class."""
        if not callable(function) or isinstance(function, type):
            raise DefinitionError(f"{self.name} cannot protect {function!r}", fix="@policy above a function")
        if isinstance(function, (staticmethod, classmethod)):
            kind = type(function).__name__
            raise DefinitionError(f"{self.name} cannot protect what {kind} has wrapped", fix=f"@{kind} above @policy")
        if inspect.isgeneratorfunction(function):
            raise DefinitionError(f"{self.name} cannot protect the generator {function.__qualname__}", fix="async def")
        operation = self
        if not self.options.name:  # each function is an operation of its own
            operation = Operation(self.policy, replace(self.options, name=getattr(function, "__name__", "call")))
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            make: Callable[..., Any] = _short_way
        else:
            make = _streaming if inspect.isasyncgenfunction(function) else _plain
        protected = wraps(function)(make(operation, function))
        setattr(protected, "genesis_operation", operation)
        return cast("Callable[P, R]", protected)

    @overload
    async def call(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, async or not, protected. It is called again for each further attempt."""
        given = args, kwargs
        now = self.policy.now()
        return await Call(self, self.part(given), function, given, now).run()

    def attempt(self, shard: Hashable = None) -> Attempt:
        """``async with operation.attempt():`` one attempt, as a block. It cannot be repeated."""
        return Attempt(self, shard)

    def guard(self, awaitable: Awaitable[R], **refused: object) -> Coroutine[Any, Any, R]:
        """Await what is at hand, protected. It can run once: no retry, no hedge.

        Raises:
            DefinitionError: it is no awaitable, or repetition is asked for.
        """
        if refused or self.idempotent or not inspect.isawaitable(awaitable):
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            if not inspect.isawaitable(awaitable):
                raise DefinitionError(f"{awaitable!r} cannot be awaited", fix="policy.call(function, ...)")
            asked = ", ".join(refused) or "idempotent"
            raise DefinitionError(f"an awaitable runs once, so {asked} cannot be kept", fix="policy.call(function, ...)")
        return self._guarded(awaitable)

    async def _guarded(self, awaitable: Awaitable[R]) -> R:
        try:
            async with self.attempt():
                return await awaitable
        finally:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # of a call that was refused it never began

    # --- in words ---------------------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """The stages of a call, outermost first, with what is set for each."""
        return self.policy.explain(self)


# --- wrappers -------------------------------------------------------------------------------------------------------------


def _short_way(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """The hot path of the library: one coroutine, and while calls end at once, not even a look at the clock."""
    policy, looked = operation.policy, _looked(operation, function)
    if operation.scoped:
        return looked

    async def protected(*args: Any, **kwargs: Any) -> Any:
        part = policy.whole
        if not (part.untold > 0 and operation.plain and SCOPE.get() is FREE) or own_time.loops:
            return await looked(*args, **kwargs)
        rest = function(*args, **kwargs)
        try:
            waiting_for = rest.send(None)
        except StopIteration as stop:
            part.untold -= 1
            return stop.value
        except BaseException as error:
            call = Call(operation, part, function, (args, kwargs), policy.now())
            return await _begun(call, call.raised(error, call.began))
        call = Call(operation, part, function, (args, kwargs), policy.now())
        return await _begun(call, call.waits(rest, waiting_for, 1, call.began, False))

    return protected


def _looked(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with a look at the clock before and after: where somebody below has to know a deadline, and now and then."""
    policy = operation.policy

    async def looked(*args: Any, **kwargs: Any) -> Any:
        if (policy.asks_loop or own_time.loops) and (loop := get_running_loop()) is not policy.loop:
            policy.enter(loop)
        now, part, scope = policy.clock(), policy.whole, SCOPE.get()
        if not (part.easy and operation.easy) or (part.hedge_after_s and operation.hedges):
            given = args, kwargs
            return await Call(operation, operation.part(given), function, given, now).run()
        until = NEVER
        if scope is not FREE:
            until = resolved(scope)[0]
            if until <= now:
                return await Call(operation, part, function, (args, kwargs), now).run()
        rest = function(*args, **kwargs)
        if operation.scoped:
            SCOPE.set((min(now + operation.deadline_s, until), scope[1] or operation.repeats))
        try:
            waiting_for = rest.send(None)
        except StopIteration as stop:
            if operation.scoped:
                SCOPE.set(scope)
            _ended(operation, part, now, policy.clock())
            return stop.value
        except BaseException as error:
            call = Call(operation, part, function, (args, kwargs), now, scope)
            return await _begun(call, call.raised(error, now))
        call = Call(operation, part, function, (args, kwargs), now, scope)
        if call.loop is not policy.loop:
            policy.enter(call.loop)
            now = call.began = policy.clock()
        return await _begun(call, call.waits(rest, waiting_for, 1, now, False))

    return looked


def _ended(operation: Operation, part: Part, began: float, now: float) -> None:
    """A call that was looked at ended at its first step."""
    took_s = now - began
    quick = now < part.quick_until and took_s < part.quick_s
    if quick and not operation.plain:
        part.quick += 1
        part.quick_total_s += took_s
        return
    if part.circuit.calm:  # it may have moved the circuit itself
        part.good(took_s, now)
    policy = operation.policy
    if quick and not (policy.asks_loop or own_time.loops):
        part.open(get_running_loop(), took_s, now)
    policy.count(Outcome.GOOD)
    if policy.listened:
        policy.emit(AttemptEnded(policy.name, now, operation.name, 1, took_s, Outcome.GOOD))


async def _begun(call: Call, first: Coroutine[Any, Any, Any]) -> Any:
    """Go on with a call whose first attempt has taken its first step."""
    call.part.deposit(call.began)
    call.number, call.permit = 1, Permit(call.part.circuit.generation, False, NEVER)
    return await call.run(first)


def _streaming(operation: Operation, function: Callable[..., AsyncGenerator[Any, Any]]) -> Callable[..., AsyncIterator[Any]]:
    def protected(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return Stream(operation, function, (args, kwargs)).items()

    return protected


def _plain(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    def protected(*args: Any, **kwargs: Any) -> Any:
        return PlainCall(operation, function, (args, kwargs)).run()

    return protected
