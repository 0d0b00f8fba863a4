"""The only reader of time. Durations come from the event loop, so a loop with virtual time gives virtual time to all."""

from __future__ import annotations

import asyncio
import time


class LoopClock:
    """`now` is the running loop's clock; `wall` is the system's."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()
