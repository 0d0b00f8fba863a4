"""The only reader of time. Durations come from the event loop, so a loop with virtual time gives virtual time to all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class LoopClock:
    """`now` is the running loop's clock; `wall` is the system's, seconds since the epoch."""

    __slots__ = ("now", "wall")

    def __init__(self) -> None:
        self.now: Callable[[], float] = asyncio.get_running_loop().time
        self.wall: Callable[[], float] = time.time
