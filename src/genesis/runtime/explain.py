"""A policy in words: the stages of a call, outermost first, with what is set for each."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from genesis.layers.mitigation.states import CircuitState

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation
    from genesis.runtime.policy import Policy

SHARDS_SHOWN = 20
"""Shards that are not well and are named: a screen has no room for more."""


def explain(policy: Policy, operation: Operation) -> str:
    """The text of `Policy.explain`."""
    rows = [
        ("deadline", _deadline(operation)),
        ("fallback", _fallback(operation)),
        ("throttle", _throttle(operation)),
        ("abandonment", _abandonment(operation)),
        ("retry", _retry(operation)),
        ("hedge", _hedge(operation)),
        ("  limits", _limits(operation)),
        ("  circuit", _circuit(policy, operation)),
        ("  timeout", _timeout(operation)),
        ("  call", "an operation that may run twice" if operation.idempotent else "an operation that must not run twice"),
    ]
    head = f"{operation.name}: {policy.state} ({policy.whole.circuit.why}). Stages, outermost first; indented: of each attempt"
    shards = {name: part.circuit for name, part in policy.shards.items() if part.circuit.state is not CircuitState.CLOSED}
    sick = [f"shard {name}: {circuit.state} ({circuit.why})" for name, circuit in list(shards.items())[:SHARDS_SHOWN]]
    more = [f"and {len(shards) - SHARDS_SHOWN} shards more that are not CLOSED"] if len(shards) > SHARDS_SHOWN else []
    return "\n".join([head, *sick, *more, *(f"{name:<12} {words}" for name, words in rows)])


def _deadline(operation: Operation) -> str:
    own = f"{operation.deadline_s:g} s" if operation.deadline_s < inf else "none of its own"
    return f"{own}; the caller's is kept if it is nearer"


def _fallback(operation: Operation) -> str:
    settings = operation.settings
    stale = f"a result up to {settings.stale_s:g} s old, then " if settings.stale_s else ""
    return stale + (getattr(operation.fallback, "__name__", repr(operation.fallback)) if operation.fallback else "none")


def _throttle(operation: Operation) -> str:
    factor = operation.settings.throttle
    return f"refuses by chance beyond {factor:g} calls for each good one" if factor else "off"


def _abandonment(operation: Operation) -> str:
    settings = operation.settings
    if settings.essential or not settings.abandon_below:
        return "never: it is essential" if settings.essential else "off"
    return f"below a success probability of {settings.abandon_below:g}"


def _retry(operation: Operation) -> str:
    settings = operation.settings
    if settings.attempts == 1:
        return "none"
    which = "of failures" if operation.idempotent else "only of what was not processed"
    return (
        f"{settings.attempts} attempts {which}, waits up to {settings.backoff_s:g} s and twice as long each time, at most"
        f" {settings.backoff_max_s:g} s; with hedges at most {settings.budget_share:.0%} more calls; not below another retry"
    )


def _hedge(operation: Operation) -> str:
    settings = operation.settings
    if not operation.hedges:
        return "none: it must not run twice" if settings.hedges else "none"
    return f"a copy after the learned p95, for at most {settings.hedge_share:.0%} of the calls"


def _limits(operation: Operation) -> str:
    settings, found = operation.settings, []
    if settings.concurrency:
        found.append(f"{settings.concurrency} at once, {settings.queue} in line")
    if settings.rate_per_s:
        found.append(f"{settings.rate_per_s:g} a second, {settings.burst} at once")
    return "; ".join(found) or "none"


def _circuit(policy: Policy, operation: Operation) -> str:
    settings = operation.settings
    return (
        f"opens at {settings.failure_threshold:g} failures in a row or {settings.failure_rate:.0%} of the last"
        f" {settings.window_calls} calls, for {settings.recovery_timeout_s:g} s and longer each time; mode"
        f" {policy.whole.circuit.mode}"
    )


def _timeout(operation: Operation) -> str:
    settings = operation.settings
    if operation.timeout_s is not None:
        return f"{operation.timeout_s:g} s"
    return (
        f"{settings.latency_factor:g} x the expected latency or {settings.p99_factor:g} x the p99, at least"
        f" {settings.timeout_s:g} s ({operation.base_s(CircuitState.RESILIENT):g} RESILIENT,"
        f" {operation.base_s(CircuitState.ULTRA_RESILIENT):g} ULTRA_RESILIENT)"
    )
