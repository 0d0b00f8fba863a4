"""What the small tests of the commit path share: messages, a disk that can be stopped, the store of a process that died."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from genesis import App, Message, Node, State
from genesis.config import Settings
from genesis.core.ports import Answer, Batch, Crasher, CrashPoint, Head
from genesis.engines.sqlite import SqliteEngine
from genesis.engines.writer import ThreadWriter

T = TypeVar("T")
LIMIT_S = float(os.environ.get("HEART_LIMIT_S", "20"))
"""No test comes near it. A broken Genesis may hang, and then the mutants ask for less."""


class Hit(Message, type="hit"):
    key: str = "a"
    n: int = 0


class Next(Message, type="next"):
    key: str = "a"
    n: int = 0


class Seen(State):
    """The numbers that a key has seen, in order."""

    numbers: list[int] = msgspec.field(default_factory=list)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a test's coroutine function, for a time that it never needs."""

    async def limited() -> T:
        async with asyncio.timeout(LIMIT_S):
            return await work()

    return asyncio.run(limited())


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is so."""
    while not true():  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.001)


async def rest(node: Node) -> None:
    """Wait until nothing waits."""
    await until(lambda: not node.status().ledger.waiting)


class Disk(ThreadWriter):
    """A writer whose disk can be stopped: no commit ends until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._going = threading.Event()
        self._going.set()
        self._waits = 0

    def run(self, job: Callable[[], T]) -> Future[T]:  # type: ignore[override]
        def when_it_goes() -> T:
            self._waits += not self._going.is_set()
            if not self._going.wait(LIMIT_S):
                raise TimeoutError("the disk was stopped and forgotten")
            return job()

        return super().run(when_it_goes)  # type: ignore[return-value]

    def stop(self) -> None:
        """Stop now."""
        self._waits = 0
        self._going.clear()

    def stop_at(self, engine: SqliteEngine, wanted: Callable[[Batch], object]) -> None:
        """Stop at the first commit that is wanted: it is begun, and does not end."""
        commit, waiting = engine.commit, True

        async def watched(partition: int, head: Head, batch: Batch) -> Answer:
            nonlocal waiting
            if waiting and wanted(batch):
                waiting = False
                self.stop()
            return await commit(partition, head, batch)

        engine.commit = watched  # type: ignore[method-assign]

    async def reached(self) -> None:
        """Wait until a commit waits for the stopped disk, and everything else has been done that does not."""
        await until(lambda: self._waits)
        for _ in range(50):
            await asyncio.sleep(0)

    def go(self) -> None:
        """Go on."""
        self._going.set()


@asynccontextmanager
async def running(
    app: App,
    store: Path,
    *,
    disk: Disk | None = None,
    crash: Crasher | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[tuple[Node, SqliteEngine]]:
    """A node on a file, with its engine."""
    engine = SqliteEngine(store, writer=disk, crash=crash)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genesis.app.engine_for", lambda *_: engine)
        life = app.running(str(store), settings=settings or Settings(), crash=crash)
    async with life as node:
        try:
            yield node, engine
        finally:
            if disk is not None:
                disk.go()  # also when the test has failed: the node wants to commit before it ends


class Snapshots:
    """A crasher that kills nobody: it takes down the store as a kill at that point would leave it."""

    def __init__(self, store: Path, *points: CrashPoint) -> None:
        self._store, self._points = store, points
        self.taken: list[Path] = []

    def __call__(self, point: CrashPoint) -> None:
        if point in self._points:
            self.take()

    def take(self) -> Path:
        copy = self._store.with_name(f"{self._store.stem}-{len(self.taken)}.db")
        for tail in ("", "-wal"):
            if (file := Path(f"{self._store}{tail}")).exists():
                shutil.copy(file, f"{copy}{tail}")
        self.taken.append(copy)
        return copy


def row(store: Path, sql: str, *values: object) -> Any:
    """The first value of the first row."""
    with closing(sqlite3.connect(store)) as db:
        found = db.execute(sql, values).fetchone()
    return found[0] if found else None


def head(store: Path) -> dict[str, Any]:
    """The head; its ledger is a list."""
    found: dict[str, Any] = msgspec.msgpack.decode(row(store, "SELECT body FROM head"))
    return found


def numbers(store: Path, address: str) -> list[int]:
    """The state of an address."""
    body = row(store, "SELECT body FROM state WHERE address = ?", address)
    return list(msgspec.msgpack.decode(body)["numbers"]) if body else []
