"""Handlers that misbehave: what faults of handlers do to the next calls of the components of one machine."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Any

from genesis.chaos import faults as f
from genesis.chaos.loop import VirtualLoop
from genesis.core.errors import UnavailableError

HANG_S = 1e6
"""How long a handler hangs that never ends by itself: its timeout, or the end of the process, comes first."""


class InjectedError(Exception):
    """A handler fails because a fault says so."""


class Mischief:
    """What the next calls of handlers have to suffer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._next: deque[f.AnyFault] = deque()
        self._down_until = 0.0

    def plan(self, fault: f.AnyFault) -> None:
        """The next calls suffer this."""
        match fault:
            case f.HandlerRaises(times=times) | f.HandlerSlow(times=times):
                self._next.extend([fault] * times)
            case f.DependencyDown(seconds=seconds):
                self._down_until = max(self._down_until, self._loop.time() + seconds)
            case _:
                self._next.append(fault)

    def clear(self) -> None:
        """Handlers behave again."""
        self._next.clear()
        self._down_until = 0.0

    def wrap(self, instance: object) -> Any:
        """The instance of a component, its handlers suffering what is planned."""
        return _Troubled(instance, self)

    def suffered(self) -> f.AnyFault | None:
        """What this call suffers. Raises what it fails with at once; blocks if it blocks."""
        if self._loop.time() < self._down_until:
            raise UnavailableError("a dependency", 0.5)
        fault = self._next.popleft() if self._next else None
        if isinstance(fault, f.HandlerRaises):
            raise InjectedError("a fault made this handler fail")
        if isinstance(fault, f.HandlerBlocks):
            self._loop.pass_time(fault.seconds)
        return fault


class _Troubled:
    """Stands before an instance."""

    def __init__(self, instance: object, mischief: Mischief) -> None:
        self._instance, self._mischief = instance, mischief

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._instance, name)
        if not inspect.ismethod(found):
            return found
        return _troubled(found, self._mischief)


def _troubled(method: Callable[..., Any], mischief: Mischief) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(method):

        @wraps(method)
        def call(*arguments: Any) -> Any:
            mischief.suffered()
            return method(*arguments)

        return call

    @wraps(method)
    async def call_async(*arguments: Any) -> Any:
        fault = mischief.suffered()
        if fault is not None:
            await _suffer(fault)
        return await method(*arguments)

    return call_async


async def _suffer(fault: f.AnyFault) -> None:
    match fault:
        case f.HandlerHangs():
            await asyncio.sleep(HANG_S)
        case f.HandlerIgnoresCancel(seconds=seconds):
            await _stubbornly(seconds)
        case f.HandlerSlow(seconds=seconds):
            await asyncio.sleep(seconds)


async def _stubbornly(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
