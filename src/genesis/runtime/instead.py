"""What answers in place of a call that failed: its last good result, or the fallback of its operation.

In: a call and its error. Out: a result, which is never counted as a success of the dependency, or the error.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from genesis.core.errors import DeadlineExceededError, UnavailableError
from genesis.core.signals import Outcome, Step
from genesis.runtime.limit import calling, resumed, within

if TYPE_CHECKING:
    from genesis.runtime.call import Call


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
