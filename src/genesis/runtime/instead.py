"""What a caller gets in place of the error of an attempt: a last good result, a fallback, or an error that says more.

In: a call and its error. Out: a result, which is never counted as a success of the dependency, or an error.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from genesis.core.errors import (
    AbandonedError,
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    UnavailableError,
)
from genesis.core.signals import Outcome, Step
from genesis.runtime.limit import calling, resumed, within

if TYPE_CHECKING:
    from genesis.runtime.call import Call
    from genesis.runtime.operation import Operation
    from genesis.runtime.part import Part


async def instead(call: Call, error: Exception) -> Any:
    """Answer in place of a call that failed, or raise its error."""
    operation, policy = call.operation, call.policy
    unavailable = isinstance(error, (UnavailableError, DeadlineExceededError))
    if not unavailable and operation.judge(error) not in (Outcome.FAILED, Outcome.TIMEOUT):
        raise error
    kept = operation.stale.get(operation.entry(call.given), call.loop.time()) if operation.stale is not None else None
    if kept is not None:
        policy.tell(operation, Step.STALE, f"{kept[1]:.1f} s old, since: {error!r}")
        return kept[0]
    if operation.fallback is None or call.fell_flat:
        raise error
    policy.tell(operation, Step.FALLBACK, repr(error))
    try:
        return await fallback(call)
    except Exception as failure:
        if failure.__cause__ is None:  # whoever judges it must see why the fallback was asked
            raise failure from error
        raise


def explained(operation: Operation, part: Part, error: BaseException, more: bool, *, over: bool) -> Exception | None:
    """What tells the caller more than the error of an attempt: that the deadline, the circuit or the odds ended the call.

    Args:
        operation: That of the call.
        part: What it was for.
        error: Of its last attempt.
        more: Whether there would have been another attempt.
        over: Whether its deadline is.
    """
    policy, circuit, now = operation.policy, part.circuit, operation.policy.now()
    told: UnavailableError
    if over and isinstance(error, CallTimeoutError):
        policy.tell(operation, Step.DEADLINE)
        return DeadlineExceededError(f"{operation.name} did not answer until its deadline")
    if policy.raise_original or not circuit.rules:
        return None
    if circuit.shut:
        told = CircuitOpenError(operation.name, circuit.retry_after_s(now), circuit.state.value, circuit.why)
    elif more and isinstance(error, Exception) and operation.may_repeat(error) and part.abandons(operation.settings):
        policy.tell(operation, Step.ABANDONED, f"success probability {part.probability.value:.2f}")
        told = AbandonedError(operation.name, 1.0, part.probability.value)
    else:
        return None
    told.attempted = True
    return told


async def fallback(call: Call) -> Any:
    """Run the fallback. After the deadline, only one that does not wait."""
    operation = call.operation
    assert operation.fallback is not None
    rest = calling(operation.fallback, *call.given)
    try:
        waiting_for = rest.send(None)
    except StopIteration as stop:
        return stop.value
    if call.until == inf:
        return await resumed(rest, waiting_for)
    now = call.loop.time()
    what = f"the fallback of {operation.name}"
    return await within(call.loop, max(now, call.until), what, max(0.0, call.until - now), rest, waiting_for)
