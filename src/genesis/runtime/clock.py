"""The only reader of time. Durations come from the event loop, so a loop with virtual time gives virtual time to all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime


class LoopClock:
    """`now` is the running loop's clock; `wall` is the system's, seconds since the epoch."""

    __slots__ = ("now", "wall")

    def __init__(self) -> None:
        self.now: Callable[[], float] = asyncio.get_running_loop().time
        self.wall: Callable[[], float] = time.time


def utc(wall: float) -> str:
    """A time of the wall clock (seconds since the epoch) for programs: ISO 8601, UTC."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


time_of_system = time.monotonic
"""What loops without a time of their own read."""


def time_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The clock of a loop, without the method around it: a protected call reads it twice."""
    return time_of_system if type(loop).time is asyncio.BaseEventLoop.time else loop.time


class OwnTime:
    """How many loops run in this process whose time is not the system's."""

    __slots__ = ("loops",)

    def __init__(self) -> None:
        self.loops = 0


own_time = OwnTime()
"""A loop with virtual time counts itself here while it runs. While none does, nobody has to ask which loop is running to know
the time: on Python 3.11 the question is a system call, a third of what a protected call costs."""


def monotonic() -> float:
    """For who may run outside of any event loop: the running loop's clock, else the system's that it is made of."""
    loop = asyncio._get_running_loop()
    return time.monotonic() if loop is None else loop.time()


def sleep(for_s: float) -> None:
    """Block this thread: for plain functions, which have nothing else to wait with."""
    time.sleep(for_s)
