"""What other processes may do with a SQLite store, whether its owner lives or not; and the lock that says who owns it.

They read what was committed, and they file requests, which the owner answers in a commit of its own.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path

import msgspec

from genesis.core.errors import StoreError, StoreInUseError
from genesis.core.event import Delivery, Pending, Timer
from genesis.core.ports import Head, StateRow
from genesis.engines import sqlite_rows as rows
from genesis.engines import sqlite_schema as schema

PROBES_MAX = 100
"""Attempts at a lock that somebody only looks at. Looking takes microseconds."""
OWNER_BYTES = 1024
"""Room for the words about an owner in the lock file."""


class Owner(msgspec.Struct, frozen=True):
    """Who holds a store, or held it last."""

    pid: int = 0
    host: str = ""
    name: str = ""


class Lock:
    """The right of one process to write a store: a lock on ``<path>.lock`` that the kernel frees when it ends."""

    def __init__(self, path: Path) -> None:
        self._store = path
        self._path = _lock_path(path)
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._handle is not None

    def acquire(self, name: str) -> None:
        """Take it.

        Raises:
            StoreInUseError: a living process has it.
            OSError: the file cannot be written.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(handle):
                owner = _read_owner(handle)
                raise StoreInUseError(str(self._store), owner.pid, owner.host)
            # In place and at full length: a full disk does not keep a store from being taken over.
            os.pwrite(handle, msgspec.json.encode(Owner(os.getpid(), os.uname().nodename, name[:99])).ljust(OWNER_BYTES), 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def release(self) -> None:
        """Give it back. The file stays: removing it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _lock_path(path: Path) -> Path:
    real = path.resolve()  # two names of one file have one lock
    return real.with_name(real.name + ".lock")


def _lock(handle: int) -> bool:
    for _ in range(PROBES_MAX):
        if _try(handle, fcntl.LOCK_EX):
            return True
        if not _try(handle, fcntl.LOCK_SH):
            return False
        # It was shared: somebody had looked whether it is held, and is gone in a moment.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.sched_yield()
    return False


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_owner(handle: int) -> Owner:
    try:
        return msgspec.json.decode(os.pread(handle, OWNER_BYTES, 0), type=Owner)
    except msgspec.DecodeError:
        return Owner()  # it has been locked this very moment, or never


class Outside:
    """A store seen from a process that does not own it.

    All methods may raise `StoreError`, and block for as long as the disk takes.
    """

    def __init__(self, path: str | Path) -> None:
        """Open it for reading.

        Raises:
            StoreError: there is none, or it cannot be read by this version.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{self.path}: there is no store: check the path, or start a node with it")
        with schema.store_errors(self.path):
            self._db = schema.open_reader(self.path)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with schema.store_errors(self.path):
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own, a row long: the owner waits for it."""
        with schema.store_errors(self.path), closing(schema.connect(self.path, "rw")) as db:
            schema.configure(db, self.path)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def owner(self) -> tuple[int, str, bool] | None:
        """The process that owns the store, or owned it last: (pid, host, whether it lives). None: nobody ever did."""
        try:
            handle = os.open(_lock_path(self.path), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            alive = not _try(handle, fcntl.LOCK_SH)
            owner = _read_owner(handle)
        finally:
            os.close(handle)
        return owner.pid, owner.host, alive

    def head(self, partition: int = 0) -> Head | None:
        """Where a partition stands; None when nobody ever owned it."""
        with self._reading() as db:
            return rows.read_head(db, partition)

    def scan(self, table: str, after: str = "", limit: int = 1000, partition: int = 0) -> list[tuple[str, bytes]]:
        """A page of a named table, in key order."""
        with self._reading() as db:
            return rows.scan(db, partition, table, after, limit)

    def scan_state(self, prefix: str, after: str = "", limit: int = 1000, partition: int = 0) -> list[tuple[str, StateRow]]:
        """A page of the states whose address starts with `prefix`, in address order."""
        with self._reading() as db:
            return rows.scan_state(db, partition, prefix, after, limit)

    def scan_pending(self, after: int = 0, limit: int = 1000, partition: int = 0) -> list[Pending]:
        """A page of the pending deliveries, in id order."""
        with self._reading() as db:
            return rows.scan_pending(db, partition, after, limit)

    def read_lane(self, lane: int, after: int = 0, limit: int = 1000, partition: int = 0) -> list[Delivery]:
        """A page of the deliveries that wait in a lane, in order, expired ones too."""
        with self._reading() as db:
            found = rows.read_lane(db, partition, lane, after, limit, -inf)
            return [delivery for delivery in found if isinstance(delivery, Delivery)]

    def timers(self, limit: int = 1000, partition: int = 0) -> list[Timer]:
        """The timers that are due first."""
        with self._reading() as db:
            return rows.due_timers(db, partition, inf, limit)

    def count_lanes(self, partition: int = 0) -> list[int]:
        """Rows of each lane, counted one by one: what `Head.waiting_by_lane` must say."""
        with self._reading() as db:
            return rows.count_lanes(db, partition)

    def count(self, table: str, partition: int = 0) -> int:
        """Rows of a named table, counted one by one."""
        with self._reading() as db:
            return rows.count_rows(db, partition, table)

    def check(self) -> list[str]:
        """Read all of the file. Returns what is wrong with it; nothing when it is whole."""
        found: list[str] = []
        with self._reading() as db:
            try:
                found += (row[0] for row in db.execute("PRAGMA integrity_check"))
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                    raise
                found.append(str(error))
        return [] if found == ["ok"] else found

    def file_request(self, kind: str, body: bytes, partition: int = 0) -> str:
        """Ask the owner for something; it is durable when this returns.

        Returns:
            Its key in table ``request``: ``number:kind``. Keys sort in the order of filing, whoever files.
        """
        with self._writing() as db:
            db.execute("UPDATE filed SET last = last + 1")
            (number,) = db.execute("SELECT last FROM filed").fetchone()
            key = f"{number:016d}:{kind}"
            db.execute("INSERT INTO request VALUES (?, ?, ?)", (partition, key, body))
        return key

    def answer(self, key: str, partition: int = 0) -> bytes | None:
        """What the owner answered; None: not yet."""
        with self._reading() as db:
            return rows.load(db, partition, "answer", [key]).get(key)

    def forget(self, key: str, partition: int = 0) -> None:
        """Remove an answer, and the request if it still waits."""
        with self._writing() as db:
            for table in ("request", "answer"):
                db.execute(f"DELETE FROM {table} WHERE partition = ? AND key = ?", (partition, key))
