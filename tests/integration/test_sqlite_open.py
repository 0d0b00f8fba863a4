"""What a store says when its file cannot be opened; and that it leaves such a file as it is."""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from genesis.core import errors
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import Answer, Batch, Head
from genesis.engines import sqlite_schema as schema
from genesis.engines.outside import Outside
from genesis.engines.sqlite import SqliteEngine

NOBODY = 65534


def claim(path: Path) -> Head:
    """Open a store, take it, and let it go."""

    async def work() -> Head:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        await engine.close(0, head)
        return head

    return asyncio.run(work())


def fill(path: Path, commits: int = 3, rows: int = 200) -> None:
    """Make a store with some rows."""

    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        for number in range(commits):
            head.commit_id += 1
            first = lane_start(0, 5) + 1 + number * rows
            append = [Delivery("a:b", "a/1", f"{n}", "s", b"x" * 100, 1.0, id=first + n) for n in range(rows)]
            answer = await engine.commit(0, head, Batch(append=append, state={f"a/{number}": (1, b"s")}))
            assert answer is Answer.COMMITTED
        await engine.close(0, head)

    asyncio.run(work())


def folder_of(path: Path) -> dict[str, bytes]:
    """All files beside a store but its lock."""
    return {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file() and p.suffix != ".lock"}


def refused(path: Path, kind: type[errors.StoreError], *words: str) -> None:
    """Opening fails with exactly this error, in these words, and changes nothing."""
    before = folder_of(path)
    with pytest.raises(errors.StoreError) as caught:
        claim(path)
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert all(word in message for word in (str(path), *words)), message
    assert folder_of(path).items() >= before.items()
    with pytest.raises(errors.StoreError):
        claim(path)  # the first attempt kept no lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


def test_a_store_is_made_whole_where_nothing_is(path: Path) -> None:
    (path.parent / "shop.db.new").write_bytes(b"half of a store, left by a crash")
    assert claim(path).epoch == 1
    assert claim(path).epoch == 2
    assert sorted(folder_of(path)) == ["shop.db"]


def test_names_that_uris_treat_in_their_own_way(tmp_path: Path) -> None:
    path = tmp_path / "a folder?mode=ro&x#%20" / "ä %41.db"
    path.parent.mkdir()
    assert claim(path).epoch == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["ä %41.db", "ä %41.db.lock"]


def test_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    refused(path, errors.StoreError, "is a folder", str(path / "genesis.db"))


def test_a_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "shop.db"
    with pytest.raises(errors.StoreError, match="does not exist: make it with `mkdir -p"):
        claim(path)
    assert not path.parent.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"# Notes\n" * 5000], ids=["empty", "short", "long"])
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, errors.NotAStoreError, "is not a store", "another path")


@pytest.mark.parametrize("wal", [False, True])
def test_the_database_of_another_program(path: Path, wal: bool) -> None:
    with closing(sqlite3.connect(path)) as db:
        if wal:
            db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE event (id)")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    refused(path, errors.NotAStoreError, "is not a store")


def test_a_newer_store(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {schema.SCHEMA + 1}")
    refused(path, errors.StoreNewerError, f"schema {schema.SCHEMA + 1}", "install a newer")
    with pytest.raises(errors.StoreNewerError):
        Outside(path)


def test_a_file_whose_end_is_missing(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    refused(path, errors.StoreCorruptError, "damaged", "restore it from a copy")


def test_a_file_with_a_page_of_noise(path: Path) -> None:
    fill(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096)
    refused(path, errors.StoreCorruptError, "damaged")


def test_a_file_without_one_of_its_tables(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE once")
    refused(path, errors.StoreCorruptError, "no table once")


def test_a_log_without_its_file(path: Path) -> None:
    fill(path)
    path.with_name("shop.db-wal").write_bytes(b"log" * 1000)
    path.unlink()
    refused(path, errors.StoreCorruptError, "is missing", "shop.db-wal")


def test_a_row_that_cannot_be_decoded_is_damage(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE event SET body = x'c1' WHERE id = (SELECT max(id) FROM event)")
        db.commit()

    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        assert len(await engine.read(0, 5, 0, 10, 0.0)) == 10
        with pytest.raises(errors.StoreCorruptError, match="cannot be decoded"):
            await engine.read(0, 5, 0, 1000, 0.0)
        await engine.close(0, head)

    asyncio.run(work())


def test_damage_deep_inside_is_found_by_a_check(path: Path) -> None:
    fill(path)
    with closing(Outside(path)) as outside:
        assert outside.check() == []
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_state_1'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096 + 8)  # its first cell pointer
        file.write(b"\x0f\xf0")
    with closing(Outside(path)) as outside:
        assert outside.check()


# --- rights -----------------------------------------------------------------------------------------------------------


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may do anything: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach, owned by who will be refused."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
        folder.chmod(0o755)


def test_a_file_that_cannot_be_written(shared: Path) -> None:
    path = shared / "shop.db"
    with without_privileges():
        fill(path)
        path.chmod(0o444)
        refused(path, errors.StoreReadOnlyError, "cannot be written", "right to write")


def test_a_file_that_cannot_be_read(shared: Path) -> None:
    path = shared / "shop.db"
    with without_privileges():
        fill(path)
        path.chmod(0o000)
        with pytest.raises(errors.StoreReadOnlyError, match="cannot be opened: give this user the rights"):
            claim(path)


def test_a_folder_that_cannot_be_written(shared: Path) -> None:
    path = shared / "shop.db"
    with without_privileges():
        fill(path)
        shared.chmod(0o555)
        refused(path, errors.StoreReadOnlyError, "cannot be written")
        shared.chmod(0o755)


def test_a_new_store_in_a_folder_that_cannot_be_written(shared: Path) -> None:
    with without_privileges():
        shared.chmod(0o555)
        refused(shared / "shop.db", errors.StoreReadOnlyError, "folder cannot be written")


def test_a_lock_that_cannot_be_opened(shared: Path) -> None:
    path = shared / "shop.db"
    with without_privileges():
        fill(path)
        path.with_name("shop.db.lock").chmod(0o000)
        refused(path, errors.StoreReadOnlyError, "cannot be written")


# --- schema -----------------------------------------------------------------------------------------------------------


def version_of(db: sqlite3.Connection) -> tuple[int, list[str]]:
    columns = [row[1] for row in db.execute("PRAGMA table_info(filed)")]
    return db.execute("PRAGMA user_version").fetchone()[0], columns


def test_a_schema_is_brought_up_to_date_in_steps_that_are_whole(path: Path) -> None:
    def first(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE filed ADD COLUMN one")

    def second(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE filed ADD COLUMN two")
        if crashes:
            raise KeyboardInterrupt

    crashes = True
    schema.prepare(path)
    steps = {schema.SCHEMA: first, schema.SCHEMA + 1: second}
    with closing(schema.connect(path, "rw")) as db:
        assert version_of(db) == (schema.SCHEMA, ["last"])
        with pytest.raises(KeyboardInterrupt):
            schema.migrate(db, steps, schema.SCHEMA + 2)
    with closing(schema.connect(path, "rw")) as db:
        assert version_of(db) == (schema.SCHEMA + 1, ["last", "one"])
        crashes = False
        schema.migrate(db, steps, schema.SCHEMA + 2)
        schema.migrate(db, steps, schema.SCHEMA + 2)
        assert version_of(db) == (schema.SCHEMA + 2, ["last", "one", "two"])


def test_a_store_of_this_schema_needs_no_step(path: Path) -> None:
    schema.prepare(path)
    assert schema.MIGRATIONS.keys() == set(range(1, schema.SCHEMA))
    with closing(schema.connect(path, "rw")) as db:
        schema.migrate(db)
        assert version_of(db)[0] == schema.SCHEMA


# --- durability as asked for ------------------------------------------------------------------------------------------


def test_every_connection_that_writes_is_durable(path: Path) -> None:
    schema.prepare(path)
    with closing(schema.open_writer(path)) as db:
        for name, wanted in schema.DURABLE.items():
            assert db.execute(f"PRAGMA {name}").fetchone() == (wanted,), name
        assert schema.DURABLE["journal_mode"] == "wal"
        assert schema.DURABLE["synchronous"] == 2


def test_a_file_system_that_cannot_be_durable_is_refused(path: Path) -> None:
    schema.prepare(path)
    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as db,  # its journal mode is always "memory"
        pytest.raises(errors.StoreError, match="does not take PRAGMA journal_mode = wal"),
    ):
        schema.configure(db, path)
