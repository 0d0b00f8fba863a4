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
