"""The SQLite file of a store: its tables, how it is made, opened, checked and brought up to date.

A file that cannot be used is left as it is, and the error says what is wrong, where, and what to do.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from genesis.core.errors import (
    NotAStoreError,
    StoreCorruptError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreNewerError,
    StoreReadOnlyError,
)
from genesis.core.ports import TABLES
from genesis.engines.writer import renew

APPLICATION_ID = 0x47454E53
"""``GENS``, at byte 68 of the file."""
SCHEMA = 2
BUSY_S = 5.0
"""How long to wait for another process that writes. Its transactions are a row long."""
CACHE_KIB = 32 << 10
"""Page cache of the connection that writes: a commit of 1,024 states on as many pages does not spill (measured)."""

NAMED_SQL = "CREATE TABLE {table} (partition INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (partition, key))"
TABLES_SQL = (
    # Rowid tables throughout: a table without rowid keeps whole rows in its inner pages, and is slower from 80 bytes
    # a row on (measured). An id carries its partition in its high bits.
    "CREATE TABLE head (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, commit_id INTEGER NOT NULL, body BLOB)",
    "CREATE TABLE event (id INTEGER PRIMARY KEY, expires_at REAL, body BLOB NOT NULL)",
    "CREATE TABLE pending (id INTEGER PRIMARY KEY, address TEXT NOT NULL, reason TEXT NOT NULL, due REAL,"
    " attempt INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX pending_held ON pending (address, id) WHERE reason = 'held'",
    "CREATE INDEX pending_due ON pending (due, id) WHERE due IS NOT NULL",
    "CREATE TABLE state (partition INTEGER NOT NULL, address TEXT NOT NULL, version INTEGER NOT NULL,"
    " body BLOB NOT NULL, UNIQUE (partition, address))",
    "CREATE TABLE timer (partition INTEGER NOT NULL, address TEXT NOT NULL, name TEXT NOT NULL, due REAL NOT NULL,"
    " body BLOB NOT NULL, UNIQUE (partition, address, name))",
    "CREATE INDEX timer_due ON timer (partition, due)",
    *(NAMED_SQL.format(table=table) for table in TABLES),
    # The last number given to a request of another process.
    "CREATE TABLE filed (last INTEGER NOT NULL)",
    "INSERT INTO filed VALUES (0)",
)

Step = Callable[[sqlite3.Connection], None]


def _add_outbox(db: sqlite3.Connection) -> None:
    db.execute(NAMED_SQL.format(table="out"))


MIGRATIONS: dict[int, Step] = {1: _add_outbox}
"""By schema: the step to the next one."""

DURABLE = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: the log is synced before a commit is answered
    "fullfsync": 1,  # where a plain sync stops at the drive's cache (macOS)
    "checkpoint_fullfsync": 1,
    "wal_autocheckpoint": 0,  # the engine says when, so that no commit waits for it
}
"""Set on every connection that writes, and read back."""


# --- errors ---------------------------------------------------------------------------------------------------------

RESTORE = "it is damaged, and was left as it is: restore it from a copy"
RIGHTS = "it cannot be written: give this user the right to write"

_DAMAGED = (StoreCorruptError, RESTORE)
_READ_ONLY = (StoreReadOnlyError, RIGHTS)
_FULL = (StoreFullError, "there is no room: free some on its disk, or raise its quota")
_OTHER = (StoreFailedError, "the disk or its file system failed")
_BY_CODE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,  # the index of the log cannot grow
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: (StoreReadOnlyError, "it, or its folder, cannot be opened: give this user the rights"),
    sqlite3.SQLITE_BUSY: (StoreError, f"another process has kept it locked for {BUSY_S:.0f} s: see which has it open"),
}
_BY_ERRNO: dict[int, tuple[type[StoreError], str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
}


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """What a failure of SQLite means to whoever uses the store at `path`."""
    code = getattr(error, "sqlite_errorcode", 0)
    kind, meaning = _BY_CODE.get(code) or _BY_CODE.get(code & 0xFF, _OTHER)
    return kind(f"{path}: {meaning} ({error})")


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Let nothing but `StoreError` out of what touches the file at `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    except msgspec.DecodeError as error:
        raise StoreCorruptError(f"{path}: {RESTORE} (a row cannot be decoded: {error})") from error
    except OSError as error:
        kind, meaning = _BY_ERRNO.get(error.errno or 0, _OTHER)
        raise kind(f"{path}: {meaning} ({error})") from error


# --- opening --------------------------------------------------------------------------------------------------------


def connect(path: Path, mode: str, *, timeout_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection to a file, in autocommit; `mode` as in SQLite's URIs. Never makes a file unless `mode` is rwc."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=1024,
    )


def log_of(path: Path) -> Path:
    """The write-ahead log of a store."""
    return path.with_name(path.name + "-wal")


def open_writer(path: Path, quota_bytes: int | None = None, *, renew: Callable[[Path], None] = renew) -> sqlite3.Connection:
    """Open for writing a store that was checked, make sure of what its log holds, and bring its schema up to date.

    `renew` writes a file once more, and syncs it.
    """
    db = connect(path, "rw")
    try:
        configure(db, path)
        _make_sure(db, path, renew)
        if quota_bytes is not None:
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA max_page_count = {quota_bytes // page_bytes}")
        migrate(db)
        settle_log(db)
    except BaseException:
        db.close()
        raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """Open and check an existing store, for reading what was committed. Raises as `check_tables`."""
    db = connect(path, "ro")
    try:
        check_tables(db, path)
    except BaseException:
        db.close()
        raise
    return db


def configure(db: sqlite3.Connection, path: Path) -> None:
    """Make commits durable, and see that they are.

    Raises:
        StoreError: the file system cannot do it.
    """
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    for name, wanted in DURABLE.items():
        db.execute(f"PRAGMA {name} = {wanted}")
        (found,) = db.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            raise StoreError(
                f"{path}: its file system does not take PRAGMA {name} = {wanted} (it stays {found}):"
                " put the store on a local disk"
            )


def _make_sure(db: sqlite3.Connection, path: Path, renew: Callable[[Path], None]) -> None:
    """Let nobody build on a log that may be in the cache only.

    After a failed sync, of this process or of one before it, the kernel may call pages clean that never reached the disk. A
    commit in them counts as stored. When the power fails while it is moved into the file, the log is without it, and half of
    it is in the file.
    """
    log = log_of(path)
    if not log.exists() or not log.stat().st_size:
        return
    db.execute("BEGIN IMMEDIATE")  # nobody else writes to it meanwhile, or starts it over
    try:
        renew(log)
    finally:
        db.execute("ROLLBACK")


def settle_log(db: sqlite3.Connection) -> None:
    """Move what the log holds into the file, and sync it; it may wait for room, or for somebody who reads."""
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise


def check_tables(db: sqlite3.Connection, path: Path) -> None:
    """Cheap checks: it is ours, not newer than this version, all tables are there, and their first pages are whole.

    Raises:
        NotAStoreError: another program's file.
        StoreNewerError: written by a newer version.
        StoreCorruptError: a table is missing or cannot be read.
    """
    _check_ours(db, path)
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = {"head", "event", "pending", "state", "timer", "filed", *TABLES} - names
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if missing and version == SCHEMA:
        raise StoreCorruptError(f"{path}: {RESTORE} (no table {min(missing)})")
    for name in sorted(names):
        db.execute(f'SELECT * FROM "{name}" LIMIT 1').fetchone()
    (pages,), (page_bytes,) = db.execute("PRAGMA page_count").fetchone(), db.execute("PRAGMA page_size").fetchone()
    log = log_of(path)
    bytes_there = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    if bytes_there < pages * page_bytes:
        raise StoreCorruptError(f"{path}: {RESTORE} (its end is missing: {bytes_there} of {pages * page_bytes} bytes)")


def _check_ours(db: sqlite3.Connection, path: Path) -> None:
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        application = None
    if application != APPLICATION_ID:
        raise NotAStoreError(f"{path}: it is not a store of Genesis, and was left as it is: give the store another path")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < 1:
        raise StoreCorruptError(f"{path}: {RESTORE} (schema {version})")
    if version > SCHEMA:
        raise StoreNewerError(
            f"{path}: it has schema {version}, and this version of Genesis knows {SCHEMA}: install a newer Genesis"
        )


def migrate(db: sqlite3.Connection, steps: Mapping[int, Step] = MIGRATIONS, target: int = SCHEMA) -> None:
    """Bring the schema to `target`, a step at a time; each step and its number are one transaction."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number in range(version, target):
        db.execute("BEGIN IMMEDIATE")
        try:
            steps[number](db)
            db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise


# --- making ---------------------------------------------------------------------------------------------------------


def prepare(path: Path, *, was_open: bool = False) -> None:
    """Make the store if there is nothing at `path` and never was, or see that what is there may be opened.

    To be called under the lock of the store.

    Raises:
        StoreError: one of its kinds; nothing was changed.
    """
    log = log_of(path)
    has_log = log.exists() and log.stat().st_size > 0
    if path.exists():
        _check_alone(path, has_log)
    elif was_open:
        raise StoreFailedError(f"{path}: the file was removed while it was in use: put it back")
    elif has_log:
        raise StoreCorruptError(
            f"{path}: the file is missing and its log {log.name} is there: put the file back,"
            " or move the log away to start a new store"
        )
    else:
        _create(path)


def _check_alone(path: Path, has_log: bool) -> None:
    """See, without touching anything beside it, that a file is ours and may be written."""
    # Through SQLite and not by opening the file: closing it would drop the locks of this process on it (POSIX).
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        try:
            _check_ours(db, path)
        except sqlite3.DatabaseError as error:
            # A crash while the log was moved leaves a file that is whole only together with its log.
            if not has_log or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
    if not _may(path, os.W_OK):
        raise StoreReadOnlyError(f"{path}: {RIGHTS}")


def check_folder(path: Path) -> None:
    """See that a store can live at `path`.

    Raises:
        StoreError: it is a folder, or its folder is missing.
        StoreReadOnlyError: its folder cannot be written.
    """
    if path.is_dir():
        raise StoreError(f"{path}: it is a folder: name a file in it, such as {path / 'genesis.db'}")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: its folder does not exist: make it with `mkdir -p {path.parent}`")
    if not _may(path.parent, os.W_OK | os.X_OK):
        raise StoreReadOnlyError(f"{path}: its folder cannot be written: give this user the right to write")


def _may(path: Path, rights: int) -> bool:
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


def _create(path: Path) -> None:
    """Make an empty store beside its place and move it there whole: no failure leaves half of one."""
    draft = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    with closing(connect(draft, "rwc")) as db:
        db.execute("PRAGMA journal_mode = off")  # a draft is finished or thrown away
        db.execute("PRAGMA synchronous = full")
        db.execute("BEGIN IMMEDIATE")
        for statement in TABLES_SQL:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = wal")  # before anybody opens it: whoever then does holds a lock on it
    os.rename(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
