"""A disk that fails or is full: the engine says that it does not know, and the next claim tells what was stored."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import genesis
from genesis.core.errors import StoreError, StoreFailedError, StoreFullError
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import Answer, Batch, CrashPoint, Head
from genesis.engines.outside import Outside
from genesis.engines.sqlite import SqliteEngine
from genesis.engines.writer import InlineWriter, ThreadWriter, Writer

Writers = pytest.mark.parametrize("make", [InlineWriter, ThreadWriter])

COUNT = """
import asyncio, sys
from pathlib import Path
from genesis.core.errors import StoreError
from genesis.core.ports import Answer, Batch
from genesis.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(Path(sys.argv[1]))
    head = await claim(engine)
    number = head.commit_id + 1
    while number <= 10:
        head.commit_id = number
        batch = Batch(state={"a/1": (1, b"%d" % number)})
        batch.put("reply", f"{number:02d}", b"x" * 2000)
        answer = await engine.commit(0, head, batch)
        print(answer.value, number, type(engine.last_error).__name__, flush=True)
        if answer is Answer.UNKNOWN:
            head = await claim(engine)
            number = head.commit_id
        number += 1
    await engine.close(0, head)

async def claim(engine):
    for _ in range(10):
        try:
            head = await engine.claim(0, "child")
        except StoreError as error:
            print("claim", type(error).__name__, flush=True)
        else:
            print("claimed", head.commit_id, flush=True)
            return head
    sys.exit(1)

asyncio.run(main())
"""


def counted(path: Path, strace: str, inject: str) -> list[str]:
    """Let a process commit 1 to 10 while a system call fails. Returns what it said; all ten must be there at last."""
    command = [strace, "-f", "-o", os.devnull, "-e", f"inject={inject}", sys.executable, "-c", COUNT, str(path)]
    env = os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    with closing(Outside(path)) as outside:
        head = outside.head()
        assert head is not None
        assert head.commit_id == 10
        assert outside.scan("reply") == [(f"{n:02d}", b"x" * 2000) for n in range(1, 11)]
        assert outside.scan_state("") == [("a/1", (1, b"10"))]
        assert outside.check() == []
    return said


@pytest.mark.parametrize("call", [4, 7, 10])
def test_a_failed_sync_is_never_retried_and_loses_nothing(
    tmp_path: Path, require_tool: Callable[[str], str], call: int
) -> None:
    said = counted(tmp_path / "shop.db", require_tool("strace"), f"fdatasync,fsync:error=EIO:when={call}")
    failed = [line for line in said if line.startswith(("unknown", "claim "))]
    assert failed, said
    assert all("StoreFailedError" in line for line in failed)


@pytest.mark.parametrize("call", [30, 45, 60])
def test_a_disk_that_fills_up_and_is_cleared(tmp_path: Path, require_tool: Callable[[str], str], call: int) -> None:
    said = counted(tmp_path / "shop.db", require_tool("strace"), f"pwrite64:error=ENOSPC:when={call}")
    failed = [line for line in said if line.startswith(("unknown", "claim "))]
    assert failed, said
    assert all("StoreFullError" in line for line in failed)


def row(sequence: int, size: int = 5000) -> Delivery:
    return Delivery("a:b", "a/1", str(sequence), "s", b"x" * size, 1.0, id=lane_start(0, 5) + sequence)


@Writers
def test_a_quota_is_a_limit_and_what_drains_goes_on_below_it(tmp_path: Path, make: Callable[[], Writer]) -> None:
    quota = 1 << 20

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "shop.db", writer=make(), quota_bytes=quota)
        head = await engine.claim(0, "test")
        sequence, answer = 0, Answer.COMMITTED
        while answer is Answer.COMMITTED:
            usage = engine.usage()
            assert usage.used_bytes + usage.free_bytes == quota
            head.commit_id += 1
            answer = await engine.commit(0, head, Batch(append=[row(sequence + n) for n in range(1, 11)]))
            sequence += 10
        assert answer is Answer.UNKNOWN
        assert isinstance(engine.last_error, StoreFullError)
        assert "raise its quota" in str(engine.last_error)

        stored = sequence - 10
        head = await engine.claim(0, "test")
        assert head.commit_id == stored // 10
        head.commit_id += 1
        assert await engine.commit(0, head, Batch(done=[row(n).id for n in range(1, 21)])) is Answer.COMMITTED
        head.commit_id += 1
        assert await engine.commit(0, head, Batch(append=[row(sequence + 1)])) is Answer.COMMITTED
        assert engine.usage().free_bytes > 50_000
        await engine.close(0, head)

    asyncio.run(work())


@Writers
def test_what_is_not_a_failure_of_the_store_is_not_swallowed(tmp_path: Path, make: Callable[[], Writer]) -> None:
    """A bug in a batch is raised; nothing of it is stored, and a claim goes on."""

    async def work() -> None:
        engine = SqliteEngine(tmp_path / "shop.db", writer=make())
        head = await engine.claim(0, "test")
        head.commit_id = 1
        with pytest.raises(KeyError):
            await engine.commit(0, head, Batch(append=[row(1)], tables={"no such table": {"a": b""}}))
        head = await engine.claim(0, "test")
        assert head.commit_id == 0
        assert await engine.read(0, 5, 0, 9, 0.0) == []
        await engine.close(0, head)

    asyncio.run(work())


def test_a_commit_that_nobody_waits_for_any_more_is_whole(tmp_path: Path) -> None:
    """Cancelled in the middle of a COMMIT: it ends in the writer, and the next claim tells how."""

    async def work() -> None:
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        engine = SqliteEngine(tmp_path / "shop.db")
        head = await engine.claim(0, "test")
        head.commit_id = 1
        commit = asyncio.create_task(engine.commit(0, head, Batch(append=[row(1)])))
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        head.commit_id = 2
        assert await engine.commit(0, head, Batch(append=[row(2)])) is Answer.UNKNOWN
        head = await engine.claim(0, "test")
        assert head.commit_id == 1
        assert [r.id for r in await engine.read(0, 5, 0, 9, 0.0) if isinstance(r, Delivery)] == [row(1).id]
        await engine.close(0, head)
        assert not problems

    asyncio.run(work())


def test_a_log_that_cannot_be_moved_breaks_the_next_commit_and_not_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(db: sqlite3.Connection) -> sqlite3.Error:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return error

    async def work() -> None:
        monkeypatch.setattr("genesis.engines.sqlite.LOG_PAGES", 1)
        monkeypatch.setattr("genesis.engines.sqlite._move_log", fails)
        engine = SqliteEngine(tmp_path / "shop.db")
        head = await engine.claim(0, "test")
        head.commit_id = 1
        assert await engine.commit(0, head, Batch(append=[row(1)])) is Answer.COMMITTED
        head.commit_id = 2
        assert await engine.commit(0, head, Batch(append=[row(2)])) is Answer.UNKNOWN
        assert isinstance(engine.last_error, StoreFailedError)
        head = await engine.claim(0, "test")
        assert head.commit_id == 1
        await engine.close(0, head)

    asyncio.run(work())


def test_an_engine_that_is_not_open_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        engine = SqliteEngine(tmp_path / "shop.db")
        with pytest.raises(StoreError, match="claim it"):
            await engine.read(0, 0, 0, 1, 0.0)
        with pytest.raises(StoreError, match="claim it"):
            engine.usage()
        assert await engine.commit(0, Head.fresh(), Batch()) is Answer.UNKNOWN
        await engine.close(0, Head.fresh())

    asyncio.run(work())


@Writers
def test_a_store_that_broke_for_good_still_gives_its_lock_back(tmp_path: Path, make: Callable[[], Writer]) -> None:
    path = tmp_path / "shop.db"

    def crash(point: CrashPoint) -> None:
        raise StoreFailedError("the disk is gone")

    async def work() -> None:
        engine = SqliteEngine(path, writer=make(), crash=crash)
        head = await engine.claim(0, "test")
        assert await engine.commit(0, head, Batch()) is Answer.UNKNOWN
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StoreFailedError, match="removed while it was in use"):
            await engine.claim(0, "test")
        await engine.close(0, head)
        (tmp_path / "moved.db").rename(path)
        engine = SqliteEngine(path, writer=make())
        head = await engine.claim(0, "test")
        assert head.epoch == 2
        await engine.close(0, head)

    asyncio.run(work())


FILL = """
import asyncio, sys
from pathlib import Path
from genesis.core.errors import StoreFullError
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import Answer, Batch
from genesis.engines.sqlite import SqliteEngine

folder = Path(sys.argv[1])
base = lane_start(0, 5)

async def main():
    (folder / "other").write_bytes(b"x" * 3_000_000)
    engine = SqliteEngine(folder / "shop.db")
    head = await engine.claim(0, "child")
    count, answer = 0, Answer.COMMITTED
    while answer is Answer.COMMITTED:
        head.commit_id += 1
        rows = [Delivery("a:b", "a/1", "e", "s", b"x" * 3000, 1.0, id=base + 10 * count + n) for n in range(1, 11)]
        answer = await engine.commit(0, head, Batch(append=rows))
        count += 1
    assert answer is Answer.UNKNOWN and isinstance(engine.last_error, StoreFullError), engine.last_error
    head = await engine.claim(0, "child")  # what was there is read on a full disk too
    (folder / "other").unlink()
    assert head.commit_id == count - 1, (head.commit_id, count)
    found = await engine.read(0, 5, 0, 1 << 20, 0.0)
    assert [row.id - base for row in found] == list(range(1, 10 * (count - 1) + 1))
    head.commit_id += 1
    assert await engine.commit(0, head, Batch(done=[row.id for row in found])) is Answer.COMMITTED
    await engine.close(0, head)
    print("drained", count)

asyncio.run(main())
"""


def test_a_full_disk_stops_a_commit_and_loses_nothing(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    mount = 'mount -t tmpfs -o size=6m none "$1" && shift && exec "$@"'
    inside = [require_tool("unshare"), "-rm", "sh", "-c", mount, "sh", str(tmp_path)]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    env = os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])}
    child = subprocess.run(
        [*inside, sys.executable, "-c", FILL, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout.split()[1]) > 10
