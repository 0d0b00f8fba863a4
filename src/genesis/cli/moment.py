"""The time of a command: it waits for a store or a person, and no event loop runs."""

from __future__ import annotations

import time

now = time.monotonic  # noqa: TID251 - no loop runs here whose clock could be asked
precise = time.perf_counter  # noqa: TID251
wall = time.time  # noqa: TID251
sleep = time.sleep
