"""A disk that breaks, under the files of a store: what was written and not synced may be lost, whole or in part.

In: what SQLite writes, cuts and syncs. Out: result codes, and, after a loss of power, files as they may be found. Nothing is
synced for real: what the disk would still hold is remembered, sector by sector, until a sync.

A sync that fails makes nothing durable, and the next one does not make good for it: the kernel calls the pages clean (Rebello
et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from genesis.chaos import vfs
from genesis.chaos.vfs import OpenFile

SECTOR = 512
"""Bytes that a disk writes as one."""


@dataclass
class _Dirty:
    """What of a file is not on the disk: by sector, what the disk holds instead."""

    durable_size: int
    sectors: dict[int, bytes] = field(default_factory=dict)
    doubtful: dict[int, bytes] = field(default_factory=dict)
    """Written before a sync that failed: no later sync helps."""


class Disk:
    """The disk of one machine; it holds one folder."""

    def __init__(self, folder: Path, rng: Random, lost_power: Callable[[], None]) -> None:
        """Nothing is wrong with it.

        Args:
            folder: Where the files are.
            rng: Draws what survives a loss of power.
            lost_power: Called when it does, in the middle of a write or a sync.
        """
        self._folder, self._rng, self._lost_power = folder, rng, lost_power
        self._dirty: dict[str, _Dirty] = {}
        self.full = False
        self.failing_syncs: list[int] = []
        """For each fault, how many syncs pass before one fails."""
        self.power_fails_in: list[int] = []
        """For each fault, how many writes and syncs pass before it happens."""
        self.power_follows: list[int] = []
        """The same, counted from the next sync that fails."""
        self._frozen = False
        self._lost = False
        self.busy = False
        """SQLite is in the middle of a call."""
        self.trouble: list[str] = []
        """What went wrong in here, and should not."""

    def calm(self) -> None:
        """Nothing is wrong any more; what is lost is lost."""
        self.full = False
        self.failing_syncs.clear()
        self.power_fails_in.clear()
        self.power_follows.clear()

    def freeze(self) -> None:
        """Whoever writes is dead: nothing more reaches a file."""
        self._frozen = True

    def thaw(self) -> None:
        """The files of the dead are closed: lose what is lost, and serve the next one."""
        if self._lost:
            for name, dirty in self._dirty.items():
                self._lose(self._folder / name, dirty)
            self._dirty.clear()
        self._frozen = self._lost = False

    # --- what SQLite does -------------------------------------------------------------------------------------------

    def write(self, file: OpenFile, offset: int, data: bytes) -> int:
        """Write, and remember what was there."""
        return self._guarded(vfs.IOERR_WRITE, lambda: self._write(file, offset, data))

    def truncate(self, file: OpenFile, size: int) -> int:
        """Cut, and remember what was there."""
        return self._guarded(vfs.IOERR_WRITE, lambda: self._truncate(file, size))

    def sync(self, file: OpenFile) -> int:
        """All that was written to a file is durable now, or the power fails."""
        return self._guarded(vfs.IOERR_FSYNC, lambda: self._sync(file))

    def renewed(self, name: str) -> None:
        """All of a file was written again, as it was, and is to be synced. Raises `OSError`."""
        size = (self._folder / name).stat().st_size
        dirty = self._dirty.setdefault(name, _Dirty(size))
        dirty.sectors |= dirty.doubtful
        dirty.doubtful.clear()
        if self._frozen or self._sync_dirty(dirty, size) != vfs.OK:
            raise OSError(errno.EIO, f"{name}: it cannot be synced")

    def _guarded(self, refusal: int, work: Callable[[], int]) -> int:
        if self._frozen:
            return refusal
        self.busy = True
        try:
            return work()
        except Exception as error:  # a callback from C: it would vanish
            self.trouble.append(f"{type(error).__name__}: {error}")
            return refusal
        finally:
            self.busy = False

    def _write(self, file: OpenFile, offset: int, data: bytes) -> int:
        if self.full and offset + len(data) > file.size():
            self._remember(file, offset, len(data) // 2)
            file.write(offset, data[: len(data) // 2])
            return vfs.FULL
        self._remember(file, offset, len(data))
        written = file.write(offset, data)
        return vfs.IOERR_WRITE if self._power_fails() else written

    def _power_fails(self) -> bool:
        if not _due(self.power_fails_in):
            return False
        self._lost = True
        self.freeze()
        self._lost_power()
        return True

    def _truncate(self, file: OpenFile, size: int) -> int:
        self._remember(file, size, file.size() - size)
        return file.truncate(size)

    def _remember(self, file: OpenFile, offset: int, size: int) -> None:
        """Keep what is in these sectors, unless what is there is not durable itself."""
        dirty = self._of(file)
        first, end = offset // SECTOR, -(-(offset + size) // SECTOR)
        if all(sector in dirty.sectors for sector in range(first, end)):
            return
        old = file.read(first * SECTOR, (end - first) * SECTOR)
        for sector in range(first, end):
            if sector in dirty.doubtful:
                dirty.sectors[sector] = dirty.doubtful.pop(sector)
            elif sector not in dirty.sectors:
                at = (sector - first) * SECTOR
                dirty.sectors[sector] = old[at : at + SECTOR]

    def _of(self, file: OpenFile) -> _Dirty:
        if file.name not in self._dirty:
            self._dirty[file.name] = _Dirty(file.size())
        return self._dirty[file.name]

    def _sync(self, file: OpenFile) -> int:
        return self._sync_dirty(self._of(file), file.size())

    def _sync_dirty(self, dirty: _Dirty, size: int) -> int:
        if self._power_fails():
            return vfs.IOERR_FSYNC
        if _due(self.failing_syncs):
            dirty.doubtful |= {sector: old for sector, old in dirty.sectors.items() if sector not in dirty.doubtful}
            dirty.sectors.clear()
            self.power_fails_in += self.power_follows
            self.power_follows.clear()
            return vfs.IOERR_FSYNC
        dirty.sectors.clear()
        dirty.durable_size = size
        return vfs.OK

    # --- what is lost -----------------------------------------------------------------------------------------------

    def _lose(self, path: Path, dirty: _Dirty) -> None:
        """Of what was not synced, all, nothing, the first writes, or some sectors are on the disk."""
        sectors = dirty.sectors | dirty.doubtful
        if not path.exists():
            return
        kept = self._kept(list(sectors))
        size = path.stat().st_size
        nothing, cut = not kept, size < dirty.durable_size
        end = dirty.durable_size if nothing or (cut and self._rng.random() < 0.5) else size
        with path.open("r+b") as file:
            for number, old in sectors.items():
                if number not in kept or number * SECTOR >= size:
                    file.seek(number * SECTOR)
                    file.write(old.ljust(SECTOR, b"\0"))
            file.truncate(end)

    def _kept(self, numbers: list[int]) -> set[int]:
        """Sectors that reached the disk before the power was gone."""
        match self._rng.randrange(4):
            case 0:
                return set(numbers)
            case 1:
                return set()
            case 2:
                return set(numbers[: self._rng.randint(0, len(numbers))])
            case _:
                return {number for number in numbers if self._rng.random() < 0.5}


def _due(countdowns: list[int]) -> bool:
    """Count every fault down by one; True when one is at its end, which is then taken away."""
    for index in range(len(countdowns)):
        countdowns[index] -= 1
    if any(left < 0 for left in countdowns):
        countdowns[:] = [left for left in countdowns if left >= 0]
        return True
    return False
