"""What `genesis doctor` finds out about the disk of a store: its room, and how long a sync takes."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genesis.cli import moment
from genesis.cli.finding import Finding
from genesis.cli.talk import lasting

SYNCS = 15
SYNC_SLOW_S = 0.05
"""Every accepted event waits for a sync: one slower than this is a network disk, or one that is worn or busy."""
SYNC_RAM_S = 15e-6
"""A sync faster than this has reached no disk."""


def examine_disk(folder: Path, reserve_bytes: int) -> Iterator[Finding]:
    """Check the disk below a folder."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free at {folder}; intake stops below {reserve_bytes / 2**20:.0f} MiB"
    enough = free >= reserve_bytes
    yield Finding("disk", enough, found, "" if enough else "free some room: events are refused now")
    if os.access(folder, os.W_OK | os.X_OK):
        yield _sync(folder)
    else:
        yield Finding("sync", False, f"{folder} cannot be written", "give this user the right to write")


def _sync(folder: Path) -> Finding:
    try:
        took = statistics.median(sync_times(folder, SYNCS))
    except OSError as error:
        return Finding("sync", False, f"{folder}: {error}", "put the store on a disk that works")
    if took > SYNC_SLOW_S:
        return Finding("sync", False, f"a sync takes {lasting(took)}", "put the store on a local disk")
    note = ": in memory only, or without a real sync: power loss would lose events" if took < SYNC_RAM_S else ""
    return Finding("sync", True, f"a sync takes {lasting(took)}{note}")


def sync_times(folder: Path, count: int) -> list[float]:
    """Seconds of so many writes of a page with a sync, in a file that is removed."""
    times = []
    with tempfile.TemporaryFile(dir=folder, prefix=".genesis-sync-") as file:
        for _ in range(count):
            started = moment.precise()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(moment.precise() - started)
    return times
