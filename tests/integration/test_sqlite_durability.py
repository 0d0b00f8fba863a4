"""A commit is on the disk before its answer, and whatever the disk loses after its last sync, what is left is whole."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genesis
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import Answer, Batch
from genesis.engines import sqlite as sqlite_engine
from genesis.engines.outside import Outside
from genesis.engines.sqlite import SqliteEngine
from genesis.engines.sqlite_schema import log_of
from genesis.engines.writer import InlineWriter, ThreadWriter, Writer

ANSWERS = """
import asyncio, os, sys
from pathlib import Path
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import Answer, Batch
from genesis.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(Path(sys.argv[1]))
    head = await engine.claim(0, "child")
    os.write(1, b"yes claim\\n")
    for number in range(1, 21):
        head.commit_id = number
        row = Delivery("a:b", "a/1", str(number), "s", b"x" * 3000, 1.0, id=lane_start(0, 5) + number)
        answer = await engine.commit(0, head, Batch(append=[row]))
        os.write(1, b"yes %d\\n" % number if answer is Answer.COMMITTED else b"no\\n")
    await engine.close(0, head)
    os.write(1, b"yes close\\n")

asyncio.run(main())
"""


def calls(trace: str) -> list[str]:
    """System calls in the order in which they ended, each on one line; those that write, where they began."""
    begun: dict[str, str] = {}
    found = []
    for line in trace.splitlines():
        pid, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            if "write" in call:
                found.append(call)
        elif resumed := re.match(r"<\.\.\. (\w+) resumed>", call):
            if "write" not in resumed[1]:
                found.append(begun[pid] + call[resumed.end() :])
        else:
            found.append(call)
    return found


def test_the_log_is_synced_before_each_yes(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    path, trace = tmp_path / "shop.db", tmp_path / "trace"
    command = [require_tool("strace"), "-f", "-y", "-o", str(trace), "-e", "trace=write,pwrite64,fsync,fdatasync"]
    env = os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])}
    output = subprocess.run([*command, sys.executable, "-c", ANSWERS, path], env=env, check=True, capture_output=True)
    yes = ["yes claim", *(f"yes {n}" for n in range(1, 21)), "yes close"]
    assert output.stdout.decode().splitlines() == yes

    dirty, synced, answered = False, False, 0
    for call in calls(trace.read_text()):
        if "shop.db-wal>" in call and call.startswith("pwrite64"):
            dirty = True
        elif "shop.db-wal>" in call and re.search(r"sync\(.*= 0$", call):
            dirty, synced = False, True
        elif call.startswith("write(1<") and '"yes' in call:
            assert synced, f"no sync before {call}"
            assert not dirty, f"written and not synced before {call}"
            synced, answered = False, answered + 1
    assert answered == len(yes)


def test_a_new_store_is_synced_with_its_name(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    path, trace = tmp_path / "shop.db", tmp_path / "trace"
    script = "import sys, pathlib, genesis.engines.sqlite_schema as s; s.prepare(pathlib.Path(sys.argv[1]))"
    command = [require_tool("strace"), "-f", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,rename"]
    env = os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])}
    subprocess.run([*command, sys.executable, "-c", script, path], env=env, check=True)
    ended = calls(trace.read_text())
    (renamed,) = [n for n, call in enumerate(ended) if call.startswith("rename(")]
    assert any("shop.db.new>" in call and "sync(" in call for call in ended[:renamed])
    assert any(f"{tmp_path}>" in call and "sync(" in call for call in ended[renamed:])


AGAIN = """
import asyncio, os, sys
from pathlib import Path
from genesis.core.ports import Answer, Batch
from genesis.engines.sqlite import SqliteEngine

async def main():
    engine = SqliteEngine(Path(sys.argv[1]))
    head = await engine.claim(0, "child")
    while True:
        head.commit_id += 1
        if await engine.commit(0, head, Batch(state={"a/1": (1, b"s")})) is Answer.UNKNOWN:
            break
    os.write(1, b"unknown\\n")
    again = await engine.claim(0, "child")
    os.write(1, b"yes\\n")
    assert again.commit_id == head.commit_id, (again.commit_id, head.commit_id)
    await engine.close(0, again)

asyncio.run(main())
"""


def test_what_a_failed_sync_left_behind_is_written_again_before_it_counts(
    tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """The log was written and not synced; it says that the commit is there. The kernel may have forgotten it."""
    path, trace = tmp_path / "shop.db", tmp_path / "trace"
    command = [require_tool("strace"), "-f", "-y", "-o", str(trace), "-e", "trace=write,pwrite64,fsync,fdatasync"]
    command += ["-e", "inject=fdatasync,fsync:error=EIO:when=9", sys.executable, "-c", AGAIN, str(path)]
    env = os.environ | {"PYTHONPATH": str(Path(genesis.__file__).parents[1])}
    output = subprocess.run(command, env=env, check=True, capture_output=True)
    assert output.stdout.split() == [b"unknown", b"yes"]
    ended = calls(trace.read_text())
    said = [n for n, call in enumerate(ended) if call.startswith("write(1<")]
    between = [call for call in ended[said[0] : said[1]] if "shop.db>" in call]
    assert between[0].startswith("pwrite64")
    assert any(re.search(r"sync\(.*= 0$", call) for call in between)


# --- what the disk loses ----------------------------------------------------------------------------------------------

COMMITS = 12


def recorded(folder: Path) -> list[int]:
    """Make a store whose commits all are in its log; copy it, live, to ``folder/copy``.

    Returns the length of the log after the claim and after each commit.
    """
    path = folder / "shop.db"

    async def work() -> list[int]:
        engine = SqliteEngine(path, writer=InlineWriter())
        head = await engine.claim(0, "test")
        lengths = [log_of(path).stat().st_size]
        for number in range(1, COMMITS + 1):
            head.commit_id = number
            rows = [
                Delivery("a:b", f"a/{number}", "e", "s", b"x" * 700, 1.0, id=lane_start(0, 5) + 10 * number + n)
                for n in range(10)
            ]
            state = {f"a/{n}": (number, b"s" * 100) for n in range(number)}
            assert await engine.commit(0, head, Batch(append=rows, state=state)) is Answer.COMMITTED
            lengths.append(log_of(path).stat().st_size)
        shutil.copytree(folder, folder / "copy")
        await engine.close(0, head)
        return lengths

    return asyncio.run(work())


def reopened(path: Path) -> int:
    """Claim a store; check that it holds exactly its first n commits, and return n."""

    async def work() -> int:
        engine = SqliteEngine(path, writer=InlineWriter())
        head = await engine.claim(0, "test")
        number = head.commit_id
        rows = await engine.read(0, 5, 0, 1000, 0.0)
        first = lane_start(0, 5) + 10
        assert [row if isinstance(row, int) else row.id for row in rows] == list(range(first, first + 10 * number))
        states = await engine.scan_state(0, "", "", 1000)
        assert states == [(f"a/{n}", (number, b"s" * 100)) for n in sorted(range(number), key=str)]
        head.commit_id += 1
        assert await engine.commit(0, head, Batch()) is Answer.COMMITTED
        await engine.close(0, head)
        return number

    return asyncio.run(work())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    folder = tmp_path_factory.mktemp("record")
    return folder / "copy", recorded(folder)


@settings(max_examples=60)
@given(share=st.floats(0, 1))
def test_a_log_that_was_cut_off_anywhere_holds_the_commits_before(record: tuple[Path, list[int]], share: float) -> None:
    saved, lengths = record
    with copied(saved) as path:
        length = round(share * lengths[-1])
        os.truncate(log_of(path), length)
        whole = sum(end <= length for end in lengths)
        assert reopened(path) == max(0, whole - 1)


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), size=st.integers(1, 5000), noise=st.integers(1, 255))
def test_a_log_that_was_torn_anywhere_holds_the_commits_before(
    record: tuple[Path, list[int]], share: float, size: int, noise: int
) -> None:
    saved, lengths = record
    start = int(share * lengths[-1])
    with copied(saved) as path:
        content = bytearray(log_of(path).read_bytes())
        for at in range(start, min(start + size, len(content))):
            content[at] ^= noise
        log_of(path).write_bytes(content)
        whole = sum(end <= start for end in lengths)
        assert reopened(path) == max(0, whole - 1)


def test_pages_that_reached_the_disk_out_of_order(record: tuple[Path, list[int]]) -> None:
    """The last commit's pages are all there but its first one: it does not count."""
    saved, lengths = record
    with copied(saved) as path:
        content = bytearray(log_of(path).read_bytes())
        content[lengths[-2] : lengths[-2] + 4096] = bytes(4096)
        log_of(path).write_bytes(content)
        assert reopened(path) == COMMITS - 1


def pages_of(log: bytes) -> dict[int, bytes]:
    """The newest content of each page in a log (https://sqlite.org/fileformat2.html#walformat)."""
    page_bytes = int.from_bytes(log[8:12], "big")
    frames = range(32, len(log), 24 + page_bytes)
    return {int.from_bytes(log[at : at + 4], "big"): log[at + 24 : at + 24 + page_bytes] for at in frames}


@pytest.mark.parametrize("moved", [1, 2, 5, 20, 1000])
def test_a_process_that_died_while_it_moved_the_log(record: tuple[Path, list[int]], moved: int) -> None:
    saved, _ = record
    with copied(saved) as path:
        pages = pages_of(log_of(path).read_bytes())
        with path.open("r+b") as file:
            for number in sorted(pages)[:moved]:
                file.seek((number - 1) * 4096)
                file.write(pages[number])
        assert reopened(path) == COMMITS


def test_the_whole_log_holds_all_commits(record: tuple[Path, list[int]]) -> None:
    saved, lengths = record
    assert lengths == sorted(set(lengths))
    with copied(saved) as path:
        assert reopened(path) == COMMITS


@contextmanager
def copied(saved: Path) -> Iterator[Path]:
    """A copy of a store that may be harmed."""
    with tempfile.TemporaryDirectory(dir=saved.parent) as folder:
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        yield Path(folder) / "shop.db"


# --- the log does not grow for ever -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [InlineWriter, ThreadWriter])
def test_the_log_starts_over_under_steady_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Writer]
) -> None:
    monkeypatch.setattr(sqlite_engine, "LOG_PAGES", 100)
    path = tmp_path / "shop.db"

    async def work() -> int:
        engine = SqliteEngine(path, writer=make())
        head = await engine.claim(0, "test")
        for number in range(1, 301):
            head.commit_id = number
            state = {f"a/{(number * 37 + n) % 500}": (number, b"s" * 1000) for n in range(10)}
            assert await engine.commit(0, head, Batch(state=state)) is Answer.COMMITTED
        length = log_of(path).stat().st_size
        await engine.close(0, head)
        assert not log_of(path).exists()
        return length

    assert asyncio.run(work()) < 400 * 4096
    outside = Outside(path)
    assert outside.check() == []
    assert len(outside.scan_state("")) == 500
    outside.close()
