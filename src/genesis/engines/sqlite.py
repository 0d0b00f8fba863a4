"""The default engine: one SQLite file on one machine.

The loop thread runs the statements of a commit; only COMMIT, which waits for the disk, runs in the writer. Reads use a
connection of their own and see what was committed. One process owns the file, by a lock on ``<path>.lock``.

Any failure of SQLite breaks the engine: it lets go of the file and answers UNKNOWN, and the next `claim` opens the file
anew and tells what was stored. Nothing is retried, a failed sync least of all: the kernel may report it only once.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.event import Delivery, Pending, Timer
from genesis.core.ports import Answer, Batch, Crasher, CrashPoint, Head, StateRow, Traits, Usage
from genesis.engines import sqlite_rows as rows
from genesis.engines import sqlite_schema as schema
from genesis.engines.outside import Lock
from genesis.engines.writer import ThreadWriter, Writer

LOG_PAGES = 2000
"""Pages (8 MiB) in the write-ahead log at which it is moved into the file. Four times as many gave the same rate, and half as
much again at p99: nobody commits while the file is synced."""
COMMIT_ROWS = 4
"""Pages that every commit writes beside its rows."""


class _File(NamedTuple):
    """An open store. The writer uses `write` while a job is under way, the loop thread at all other times."""

    write: sqlite3.Connection
    read: sqlite3.Connection


class SqliteEngine:
    """An engine on a file. Give it to one event loop."""

    traits = Traits(name="sqlite", durable=True, immediate=False)

    def __init__(
        self,
        path: str | Path,
        *,
        writer: Writer | None = None,
        crash: Crasher | None = None,
        quota_bytes: int | None = None,
    ) -> None:
        """Describe it; `claim` opens it.

        Args:
            path: The file. Its folder must exist.
            writer: Where to wait for the disk; a thread by default. The engine closes it.
            crash: Called with EXECUTE and COMMIT, the latter in the writer. If it raises a `StoreError`, the disk
                failed there.
            quota_bytes: The most that the file may take; by default its disk is the limit.
        """
        self.path = Path(path)
        self.last_error: StoreError | None = None
        """Why the last commit was answered with UNKNOWN, or the last claim failed."""
        self._writer = writer or ThreadWriter()
        self._crash = crash
        self._quota_bytes = quota_bytes
        self._lock = Lock(self.path)
        self._file: _File | None = None
        self._epochs: dict[int, int] = {}
        """Partitions that are owned, and under which epoch."""
        self._turn = asyncio.Lock()
        self._under_way: set[int] = set()
        self._chore: Awaitable[int | sqlite3.Error | None] | None = None
        """What the writer does while nobody waits: moving the log, or closing a broken file."""
        self._log_rows = 0
        self._pages_per_row = 1.0

    # --- ownership --------------------------------------------------------------------------------------------------

    async def claim(self, partition: int, owner: str) -> Head:
        """Become the owner under a new epoch."""
        async with self._turn:
            try:
                with schema.store_errors(self.path):
                    db = (await self._open(owner)).write
                    await self._begin(db)
                    head = rows.claim(db, partition)
                    await self._writer.run(partial(db.execute, "COMMIT"))
            except BaseException as error:
                self._fail(error)
                if not self._epochs:
                    await self._leave()
                raise
        self._epochs[partition] = head.epoch
        return head

    async def _open(self, owner: str) -> _File:
        await self._finish_chore()
        if self._file is None:
            schema.check_folder(self.path)
            if not self._lock.held:
                self._lock.acquire(owner)
            schema.prepare(self.path, was_open=bool(self._epochs))
            self._file = self._connect()
            self._log_rows = 0
        return self._file

    def _connect(self) -> _File:
        read = schema.open_reader(self.path)
        try:
            write = schema.open_writer(self.path, self._quota_bytes, renew=self._writer.renew)
        except BaseException:
            read.close()
            raise
        write.execute("PRAGMA busy_timeout = 0")  # the loop thread never waits: see `_begin`
        return _File(write, read)

    async def close(self, partition: int, head: Head) -> None:
        """Give up ownership. Nothing is stored if it was lost before."""
        async with self._turn:
            if self._epochs.get(partition) != head.epoch:
                return
            del self._epochs[partition]
            try:
                with schema.store_errors(self.path):
                    await self._store_head(partition, head)
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                if not self._epochs:
                    await self._leave()

    async def _store_head(self, partition: int, head: Head) -> None:
        await self._finish_chore()
        if self._file is not None:
            db = self._file.write
            await self._begin(db)
            rows.write_head(db, partition, rows.seal(head))
            await self._writer.run(partial(db.execute, "COMMIT"))

    async def _leave(self) -> None:
        """Close the file in order, and give the lock back."""
        try:
            with schema.store_errors(self.path):
                await self._finish_chore()
                if self._file is not None:
                    file, self._file = self._file, None
                    await self._writer.run(partial(_end, file))
        finally:
            self._writer.close()
            self._lock.release()

    def _fail(self, error: BaseException) -> None:
        """Drop the file as the end of the process would: the transaction is undone, the log stays as it is."""
        if isinstance(error, StoreError):
            self.last_error = error
        self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._chore = self._writer.run(partial(_drop, file))

    def abandon(self) -> None:
        """Let go of everything, as the end of the process would. With a writer that is a thread, it may take a moment."""
        self._drop_file()
        self._epochs.clear()
        self._lock.release()

    async def _finish_chore(self) -> None:
        """Wait until the writer is idle."""
        if self._chore is None:
            return
        chore, self._chore = self._chore, None
        done = await chore
        if isinstance(done, sqlite3.Error):
            raise done
        if done:
            self._pages_per_row = done / self._log_rows
        self._log_rows = 0

    # --- commits ----------------------------------------------------------------------------------------------------

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """Store the batch and the head, if the epoch is the current one. Partitions take turns."""
        assert partition not in self._under_way, f"partition {partition} has a commit under way"
        sealed = rows.seal(head)
        self._under_way.add(partition)
        try:
            async with self._turn:
                with schema.store_errors(self.path):
                    return await self._commit(partition, sealed, batch)
        except BaseException as error:
            self._fail(error)
            if isinstance(error, StoreError):
                return Answer.UNKNOWN
            raise
        finally:
            self._under_way.remove(partition)

    async def _commit(self, partition: int, sealed: rows.Sealed, batch: Batch) -> Answer:
        await self._finish_chore()
        if self._file is None:
            return Answer.UNKNOWN
        db = self._file.write
        await self._begin(db)
        if not rows.write(db, partition, sealed, batch):
            db.execute("ROLLBACK")
            return Answer.FENCED
        if self._crash is not None:
            self._crash(CrashPoint.EXECUTE)
        await self._writer.run(partial(self._commit_now, db))
        self._log_rows += COMMIT_ROWS + rows.count(batch)
        if self._log_rows * self._pages_per_row > LOG_PAGES:
            self._chore = self._writer.run(partial(_move_log, db))
        return Answer.COMMITTED

    async def _begin(self, db: sqlite3.Connection) -> None:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            # Another process files a request. Wait for it where that stops nobody.
            await self._writer.run(partial(_begin_patiently, db))

    def _commit_now(self, db: sqlite3.Connection) -> None:
        db.execute("COMMIT")
        if self._crash is not None:
            self._crash(CrashPoint.COMMIT)

    # --- reads ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._file is None:
            raise StoreFailedError(f"{self.path}: it is not open: claim it ({self.last_error or 'nobody did'})")
        with schema.store_errors(self.path):
            yield self._file.read

    async def read(self, partition: int, lane: int, after: int, limit: int, wall: float) -> list[Delivery | int]:
        """Deliveries of a lane, in order."""
        with self._reading() as db:
            return rows.read_lane(db, partition, lane, after, limit, wall)

    async def load(self, partition: int, table: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Rows of a named table."""
        with self._reading() as db:
            return rows.load(db, partition, table, keys)

    async def load_state(self, partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
        """Committed states."""
        with self._reading() as db:
            return rows.load_state(db, partition, addresses)

    async def scan(self, partition: int, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Rows of a named table, in key order."""
        with self._reading() as db:
            return rows.scan(db, partition, table, after, limit)

    async def scan_state(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, StateRow]]:
        """States whose address starts with `prefix`, in address order."""
        with self._reading() as db:
            return rows.scan_state(db, partition, prefix, after, limit)

    async def scan_pending(self, partition: int, after: int, limit: int) -> list[Pending]:
        """Pending deliveries, in id order."""
        with self._reading() as db:
            return rows.scan_pending(db, partition, after, limit)

    async def behind(self, partition: int, address: str) -> Pending | None:
        """The first held delivery of an address."""
        with self._reading() as db:
            return rows.behind(db, partition, address)

    async def due_pending(self, partition: int, before: float, after: tuple[float, int], limit: int) -> list[Pending]:
        """Pending deliveries that are due, in order of (due, id)."""
        with self._reading() as db:
            return rows.due_pending(db, partition, before, after, limit)

    async def due_timers(self, partition: int, before: float, limit: int) -> list[Timer]:
        """Timers that are due, in order of due time."""
        with self._reading() as db:
            return rows.due_timers(db, partition, before, limit)

    def usage(self) -> Usage:
        """Pages in use, and what the disk and the quota leave. The log counts as taken from the disk."""
        with self._reading() as db:
            page_bytes, pages, spare = (
                db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
            )
            disk = os.statvfs(self.path)
        used = (pages - spare) * page_bytes
        free = disk.f_bavail * disk.f_frsize + spare * page_bytes
        if self._quota_bytes is not None:
            free = min(free, max(0, self._quota_bytes - used))
        return Usage(used, free)


# --- what runs in the writer ----------------------------------------------------------------------------------------


def _begin_patiently(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA busy_timeout = {schema.BUSY_S * 1000:.0f}")
    try:
        db.execute("BEGIN IMMEDIATE")
    finally:
        db.execute("PRAGMA busy_timeout = 0")


def _move_log(db: sqlite3.Connection) -> int | sqlite3.Error:
    """Copy the log into the file, so that it starts over. Returns its pages; an error is for the next commit."""
    try:
        _, logged, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        # Without room the log grows until a commit finds none either.
        return 0 if error.sqlite_errorcode == sqlite3.SQLITE_FULL else error
    return max(0, int(logged))


def _end(file: _File) -> None:
    """Close in order, with nothing left in the log."""
    with suppress(sqlite3.Error):  # all is stored: the next one to open it moves the log
        schema.settle_log(file.write)
    file.read.close()
    file.write.close()


def _drop(file: _File) -> None:
    # The one that can write is closed first: whoever is last and can write moves the log, and syncs it once more.
    file.write.close()
    file.read.close()
