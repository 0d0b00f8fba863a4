"""What a call inherits from whoever makes it: until when its answer is of use, and whether somebody above repeats it.

A context variable carries both through handlers, asks and protected calls, and into every task they start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf

Scope = tuple[float, bool]
"""Deadline on the loop's clock (infinity: none), and whether a layer above may repeat this call."""
FREE: Scope = (inf, False)

SCOPE: ContextVar[Scope] = ContextVar("genesis-scope", default=FREE)


def remaining_s() -> float:
    """Seconds until the deadline of the running code: infinity if it has none, negative when it is over."""
    until = SCOPE.get()[0]
    return until - asyncio.get_running_loop().time() if until < inf else inf


@contextmanager
def deadline(for_s: float) -> Iterator[None]:
    """Give what runs inside `for_s` seconds at most. A nearer deadline from outside is kept.

    It cancels nothing: protected calls and asks inside end in time, and say so to whom they call.
    """
    before = SCOPE.get()
    SCOPE.set((min(before[0], asyncio.get_running_loop().time() + for_s), before[1]))
    try:
        yield
    finally:
        SCOPE.set(before)  # not by token: a generator may be closed from another context
