"""One process owns a store; others are told who, may look, and may ask."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import genesis
from genesis.core.errors import StoreError, StoreInUseError
from genesis.core.event import Delivery, Pending, Reason, Timer, lane_start
from genesis.core.ports import Answer, Batch
from genesis.engines import sqlite_schema as schema
from genesis.engines.outside import Lock, Outside
from genesis.engines.sqlite import SqliteEngine

OWN = """
import asyncio, sys
from pathlib import Path
from genesis.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(Path(sys.argv[1]))
    head = await engine.claim(0, "child")
    print("ready", flush=True)
    sys.stdin.readline()
    await engine.close(0, head)

asyncio.run(main())
"""
FILE = """
import sys
from genesis.engines.outside import Outside

outside = Outside(sys.argv[1])
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    print(outside.file_request(sys.argv[2], b"%d" % number), flush=True)
"""
HOLD = """
import sys
from pathlib import Path
from genesis.engines import sqlite_schema

db = sqlite_schema.connect(Path(sys.argv[1]), "rw")
db.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python processes, and see that they end."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])},
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def wait_for(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


def let_go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


def test_a_store_has_one_owner_until_it_ends(path: Path, start: Start) -> None:
    async def claim() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        await engine.close(0, head)

    child = start(OWN, path)
    wait_for(child)
    with pytest.raises(StoreInUseError) as caught:
        asyncio.run(claim())
    assert (caught.value.pid, caught.value.host) == (child.pid, os.uname().nodename)
    assert f"process {child.pid} on {os.uname().nodename}" in str(caught.value)
    with closing(Outside(path)) as outside:
        assert outside.owner() == (child.pid, os.uname().nodename, True)

    child.send_signal(signal.SIGSTOP)  # not dead: only slow
    with pytest.raises(StoreInUseError):
        asyncio.run(claim())
    child.send_signal(signal.SIGCONT)

    child.kill()
    child.wait()
    with closing(Outside(path)) as outside:
        assert outside.owner() == (child.pid, os.uname().nodename, False)
    asyncio.run(claim())


def test_an_orderly_end_frees_the_store(path: Path, start: Start) -> None:
    child = start(OWN, path)
    wait_for(child)
    let_go(child)
    assert child.wait() == 0
    with closing(Outside(path)) as outside:
        head = outside.head()
        assert head is not None
        assert (head.epoch, head.clean) == (1, True)


def test_the_same_process_is_no_exception_and_neither_is_another_name(path: Path) -> None:
    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        alias = path.with_name("alias.db")
        alias.symlink_to(path)
        for name in (path, alias):
            with pytest.raises(StoreInUseError) as caught:
                await SqliteEngine(name).claim(0, "test")
            assert caught.value.pid == os.getpid()
        assert await engine.commit(0, head, Batch()) is Answer.COMMITTED
        await engine.close(0, head)

    asyncio.run(work())


def test_looking_who_owns_it_never_makes_a_claim_fail(path: Path) -> None:
    lock = Lock(path)
    with Path(f"{path}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        with pytest.raises(StoreInUseError):  # somebody who looks for ever is in the way at last
            lock.acquire("test")
    lock.acquire("test")
    lock.release()


def test_others_see_what_was_committed(path: Path) -> None:
    rows = [Delivery("a:b", "a/1", str(n), "s", b"x", 1.0, id=lane_start(0, 5) + n) for n in range(1, 6)]
    timer = Timer("a/1", "t", 9.0, "b", b"", 2, "id")

    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        head.commit_id, head.ledger.done = 1, 7
        batch = Batch(append=rows, state={"a/1": (2, b"s")}, timers={("a/1", "t"): timer})
        batch.pend = [Pending(rows[0], Reason.HELD), Pending(rows[1], Reason.RETRY, 5.0)]
        batch.put("dead", "k", b"letter")
        await engine.commit(0, head, batch)
        look()
        await engine.close(0, head)

    def look() -> None:
        with closing(Outside(path)) as outside:
            head = outside.head()
            assert head is not None
            assert (head.epoch, head.commit_id, head.ledger.done) == (1, 1, 7)
            assert outside.head(partition=1) is None
            assert outside.scan("dead") == [("k", b"letter")]
            assert outside.scan_state("a/") == [("a/1", (2, b"s"))]
            assert [p.delivery.id for p in outside.scan_pending()] == [rows[0].id, rows[1].id]
            assert outside.timers() == [timer]
            assert outside.count_lanes() == [0, 0, 0, 0, 0, 3, 0, 0, 0, 0]

    asyncio.run(work())
    look()


def test_where_there_is_no_store_nothing_is_made(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Outside(path)
    assert list(path.parent.iterdir()) == []


def test_requests_wait_for_the_owner_in_the_order_of_filing(path: Path, start: Start) -> None:
    schema.prepare(path)
    clerks = [start(FILE, path, kind, 20) for kind in ("replay", "drop")]
    for clerk in clerks:
        let_go(clerk)
    outputs = [clerk.communicate()[0].split() for clerk in clerks]
    assert [len(keys) for keys in outputs] == [20, 20]
    with closing(Outside(path)) as outside:
        assert outside.owner() is None
        rows = outside.scan("request")
        assert [key for key, _ in rows] == sorted(outputs[0] + outputs[1])
        for keys in outputs:
            assert keys == sorted(keys)
            assert [body for key, body in rows if key in keys] == [b"%d" % n for n in range(20)]
        assert {key.partition(":")[2] for key in outputs[0]} == {"replay"}
        outside.forget(outputs[0][0])
        last = outside.file_request("replay", b"")
        assert last > max(outputs[0] + outputs[1])


def test_the_owner_answers_in_a_commit(path: Path) -> None:
    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        with closing(Outside(path)) as outside:
            key = outside.file_request("replay", b"event-1")
            assert outside.answer(key) is None
            assert await engine.scan(0, "request", "", 10) == [(key, b"event-1")]
            batch = Batch()
            batch.put("request", key, None)
            batch.put("answer", key, b"replayed")
            assert await engine.commit(0, head, batch) is Answer.COMMITTED
            assert outside.answer(key) == b"replayed"
            assert outside.scan("request") == []
            outside.forget(key)
            assert outside.answer(key) is None
            assert outside.file_request("replay", b"") > key
        await engine.close(0, head)

    asyncio.run(work())


def test_a_commit_waits_for_a_request_without_stopping_the_loop(path: Path, start: Start) -> None:
    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        child = start(HOLD, path)
        wait_for(child)
        commit = asyncio.create_task(engine.commit(0, head, Batch()))
        await asyncio.sleep(0)  # the loop comes back while the commit waits
        assert not commit.done()
        let_go(child)
        assert await commit is Answer.COMMITTED
        await engine.close(0, head)

    asyncio.run(work())


def test_the_owner_outlives_everybody_who_only_looked(path: Path) -> None:
    """Whoever closes a file last moves its log: that must not be somebody who may not write, nor harm the owner."""

    async def work() -> None:
        engine = SqliteEngine(path)
        head = await engine.claim(0, "test")
        for number in range(1, 4):
            with closing(Outside(path)) as outside:
                outside.file_request("replay", b"")
            head.commit_id = number
            assert await engine.commit(0, head, Batch(state={"a/1": (1, b"%d" % number)})) is Answer.COMMITTED
        outside = Outside(path)
        await engine.close(0, head)
        assert outside.scan_state("") == [("a/1", (1, b"3"))]
        outside.close()
        head = await engine.claim(0, "test")
        assert head.commit_id == 3
        await engine.close(0, head)

    asyncio.run(work())
