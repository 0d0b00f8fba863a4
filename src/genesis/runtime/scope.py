"""What a call inherits from whoever makes it: until when its answer is of use, and whether somebody above repeats it.

A context variable carries both through handlers, asks and protected calls, and into every task they start. Of a running
handler it is worked out when it is asked for: to set it for each attempt would cost every event what few of them need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf, isfinite
from typing import TYPE_CHECKING

from genesis.runtime.clock import monotonic
from genesis.runtime.log import running_attempt

if TYPE_CHECKING:
    from genesis.runtime.context import Context

Scope = tuple[float, bool]
"""Deadline on the loop's clock (infinity: none), and whether a layer above may repeat this call."""
FREE: Scope = (inf, False)
HANDLER: Scope = (-inf, False)
"""Stands for that of the handler that runs: see `scope`. It is no deadline of anybody."""
SPARE = 0.02
"""Share of an attempt's time that is kept back: what ends a call in time must reach the handler before its own timeout does."""
DEADLINE = "genesis-deadline"
"""Header with the deadline of whoever asks, wall clock."""

SCOPE: ContextVar[Scope] = ContextVar("genesis-scope", default=FREE)


def scope() -> Scope:
    """That of the running code."""
    return resolved(SCOPE.get())


def resolved(found: Scope) -> Scope:
    """What a value of `SCOPE` means here."""
    return found if found is not HANDLER else _of_handler()


def _of_handler() -> Scope:
    """What is left to the attempt that runs here. Whoever outlived its attempt is free."""
    attempt = running_attempt()
    return (until_of(attempt), False) if attempt is not None and not attempt._closed else FREE


def until_of(attempt: Context) -> float:
    """Deadline of an attempt on the loop's clock: by its timeout, and by the deadline of whoever asked; infinity: none."""
    clock, route, until = attempt._pipeline.clock, attempt._route, inf
    if route.timeout_s is not None:  # until its first wait, no time counts
        until = (clock.now() + route.timeout_s if attempt._ends_at is None else attempt._ends_at) - SPARE * route.timeout_s
    headers = attempt._delivery.headers
    return min(until, clock.now() + asked_until(headers) - clock.wall()) if headers and DEADLINE in headers else until


def asked_until(headers: dict[str, str]) -> float:
    """When the asker stops waiting, wall clock; infinity when the header says nothing that can be understood."""
    try:
        found = float(headers[DEADLINE])
    except ValueError:
        return inf
    return found if isfinite(found) else inf


def remaining_s() -> float:
    """Seconds until the deadline of the running code: infinity if it has none, negative when it is over."""
    until = scope()[0]
    return until - monotonic() if until < inf else inf


@contextmanager
def deadline(for_s: float) -> Iterator[None]:
    """Give what runs inside `for_s` seconds at most. A nearer deadline from outside is kept.

    It cancels nothing: protected calls and asks inside end in time, and say so to whom they call.

    Raises:
        ValueError: it is no number of seconds.
    """
    if for_s != for_s:
        raise ValueError("a deadline of NaN seconds: never is math.inf")
    before, found = SCOPE.get(), scope()
    SCOPE.set((min(found[0], monotonic() + for_s), found[1]))
    try:
        yield
    finally:
        SCOPE.set(before)  # not by token: a generator may be closed from another context
