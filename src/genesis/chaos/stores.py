"""What outlives the processes of a world: a model of a store in memory, or the real SQLite engine on a disk that breaks.

In: the engine that each process asks for, and what the disk suffers. Out: what is stored, as somebody outside sees it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

from genesis.chaos import faults as f
from genesis.chaos.disk import Disk
from genesis.chaos.vfs import watch
from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.event import Pending, Timer
from genesis.core.ports import Answer, Batch, Crasher, Engine, Head, StateRow
from genesis.engines.memory import MemoryEngine, MemoryStorage
from genesis.engines.outside import Outside
from genesis.engines.sqlite import SqliteEngine
from genesis.engines.writer import InlineWriter

ALL = 1 << 40
"""Rows, when all of them are asked for."""
T = TypeVar("T")
KINDS = ("memory", "sqlite")


class ProcessEngine(Engine, Protocol):
    """The engine of one simulated process."""

    def cut(self) -> None:
        """The process is dead: whatever its remains still call takes no effect."""
        ...

    def fail(self, error: StoreError) -> None:
        """The store failed: nothing more is stored until the next `claim`."""
        ...

    def take(self, partition: int, head: Head, batch: Batch) -> Answer:
        """A commit, in the moment in which it takes effect, or does not."""
        ...


class Store(Protocol):
    """What is stored."""

    nodes_max: int
    """Machines that may share it."""
    has_disk: bool
    """Whether it suffers what a disk does."""

    def engine(self, crash: Crasher) -> ProcessEngine:
        """The engine of a new process."""
        ...

    def suffer(self, fault: f.DiskFault, later: Callable[[float, Callable[[], None]], object]) -> None:
        """Let a fault of the disk happen, if it has one; `later` calls something after so many seconds."""
        ...

    def calm(self) -> None:
        """Nothing is wrong any more."""
        ...

    def head(self) -> Head:
        """Where the partition stands."""
        ...

    def epoch(self) -> int:
        """Of the owner who claimed it last."""
        ...

    def table(self, name: str) -> dict[str, bytes]:
        """The rows of a named table."""
        ...

    def states(self) -> dict[str, StateRow]:
        """The states, by address."""
        ...

    def pending(self) -> list[Pending]:
        """The pending deliveries, by id."""
        ...

    def timers(self) -> list[Timer]:
        """The timers, by due time."""
        ...

    def in_lanes(self) -> int:
        """Rows of the lanes, counted one by one."""
        ...

    def trouble(self) -> list[str]:
        """What is wrong with it as a whole."""
        ...

    def close(self) -> None:
        """Nobody uses it any more."""
        ...


class MemoryStore:
    """A `MemoryStorage`, which nodes share."""

    nodes_max = 1 << 20
    has_disk = False

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self._stored = self.storage.partitions[0]

    def engine(self, crash: Crasher) -> ProcessEngine:
        """An engine whose commits may fail."""
        return MemoryEngine(self.storage, immediate=False, crash=crash)

    def suffer(self, fault: f.DiskFault, later: Callable[[float, Callable[[], None]], object]) -> None:
        """It has no disk."""

    def calm(self) -> None:
        """Nothing is ever wrong with it."""

    def head(self) -> Head:
        """As it was stored: not to be changed."""
        return self._stored.head

    def epoch(self) -> int:
        """Of the last claim."""
        return self._stored.epoch

    def table(self, name: str) -> dict[str, bytes]:
        """As it is stored: not to be changed."""
        return self._stored.tables[name].rows

    def states(self) -> dict[str, StateRow]:
        """As they are stored: not to be changed."""
        return self._stored.state.rows

    def pending(self) -> list[Pending]:
        """As they are stored."""
        return [self._stored.pending[id] for id in sorted(self._stored.pending)]

    def timers(self) -> list[Timer]:
        """As they are stored."""
        return sorted(self._stored.timers.values(), key=lambda timer: timer.due)

    def in_lanes(self) -> int:
        """Of all lanes."""
        return sum(map(len, self._stored.chunks.values()))

    def trouble(self) -> list[str]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing is left of it."""


class _DiskWriter(InlineWriter):
    """Inline, on a disk that breaks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def renew(self, path: Path) -> None:
        """As in production, as far as the disk lets it."""
        super().renew(path)
        self._disk.renewed(path.name)


class _SqliteProcess(SqliteEngine):
    """The production engine, in a process that can be killed, on a disk that breaks."""

    def __init__(self, path: Path, disk: Disk, crash: Crasher) -> None:
        super().__init__(path, writer=_DiskWriter(disk), crash=crash)
        self._disk, self._dead = disk, False

    def cut(self) -> None:
        """Nothing more of it reaches the disk. When SQLite is in the middle of a call, it is buried at the end of that."""
        self._dead = True
        self._disk.freeze()
        if not self._disk.busy:
            self._bury()

    def _bury(self) -> None:
        self.abandon()
        self._disk.thaw()

    def fail(self, error: StoreError) -> None:
        """Drop the file; the next `claim` opens it again."""
        self._fail(error)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """For a call of the process. When it dies in the middle, it is buried in the end."""
        if self._dead:
            raise StoreFailedError("its process is dead")
        try:
            yield
        finally:
            if self._dead:
                self._bury()

    async def claim(self, partition: int, owner: str) -> Head:
        """As in production."""
        with self._alive():
            return await super().claim(partition, owner)

    def take(self, partition: int, head: Head, batch: Batch) -> Answer:
        """As in production; with its writer inline it waits for nothing."""
        work = self.commit(partition, head, batch)
        try:
            work.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise AssertionError("a commit of an inline writer waits")

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """As in production."""
        with self._alive():
            return await super().commit(partition, head, batch)

    async def close(self, partition: int, head: Head) -> None:
        """As in production."""
        with self._alive():
            await super().close(partition, head)


class SqliteStore:
    """A file on the disk of one machine, in a folder of its own that goes with it."""

    nodes_max = 1
    has_disk = True

    def __init__(self, rng: Random, lost_power: Callable[[], None]) -> None:
        """Make the folder; `lost_power` is called in the middle of a write or a sync, and ends the process that wrote.

        Raises:
            NotWatchableError: this Python does not share its SQLite.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="genesis-world-")
        folder = Path(self._folder.name).resolve()
        self._path = folder / "world.db"
        self._disk = Disk(folder, rng, lost_power)
        self._unwatch = watch(folder, self._disk)

    def engine(self, crash: Crasher) -> ProcessEngine:
        """The production engine; its writer runs inline."""
        return _SqliteProcess(self._path, self._disk, crash)

    def suffer(self, fault: f.DiskFault, later: Callable[[float, Callable[[], None]], object]) -> None:
        """What lasts ends by itself."""
        match fault:
            case f.PowerLoss(after=after):
                self._disk.power_fails_in.append(after)
            case f.SyncFails(after=after, power_after=power_after):
                self._disk.failing_syncs.append(after)
                if power_after is not None:
                    self._disk.power_follows.append(power_after)
            case f.DiskFull(seconds=seconds):
                self._disk.full = True
                later(seconds, self._room_again)

    def _room_again(self) -> None:
        self._disk.full = False

    def calm(self) -> None:
        """The disk is whole and has room."""
        self._disk.calm()

    def _read(self, what: Callable[[Outside], T], otherwise: T) -> T:
        if not self._path.exists():
            return otherwise
        with closing(Outside(self._path)) as store:
            return what(store)

    def head(self) -> Head:
        """As it was committed last."""
        return self._read(lambda store: store.head(), None) or Head.fresh()

    def epoch(self) -> int:
        """Of the last claim."""
        return self.head().epoch

    def states(self) -> dict[str, StateRow]:
        """Committed rows."""
        return self._read(lambda store: dict(store.scan_state("", limit=ALL)), {})

    def table(self, name: str) -> dict[str, bytes]:
        """Committed rows."""
        return self._read(lambda store: dict(store.scan(name, limit=ALL)), {})

    def pending(self) -> list[Pending]:
        """Committed rows."""
        return self._read(lambda store: store.scan_pending(limit=ALL), [])

    def timers(self) -> list[Timer]:
        """Committed rows."""
        return self._read(lambda store: store.timers(limit=ALL), [])

    def in_lanes(self) -> int:
        """Counted in the table itself."""
        return self._read(lambda store: sum(store.count_lanes()), 0)

    def trouble(self) -> list[str]:
        """What SQLite finds when it reads all of the file, and what went wrong in the model of the disk."""
        try:
            return self._disk.trouble + self._read(lambda store: store.check(), list[str]())
        except StoreError as error:
            return [*self._disk.trouble, str(error)]

    def close(self) -> None:
        """Its files go."""
        self._unwatch()
        self._folder.cleanup()
