"""What the suite needs to know of each engine: how to make one, and how its process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from genesis.core.event import LANES, Delivery, Kind, Pending, Priority, Reason, Timer, lane_of, lane_start
from genesis.core.ports import TABLES, Answer, Batch, CrashPoint, Engine, Head
from genesis.engines.memory import MemoryEngine, MemoryStorage
from genesis.engines.sqlite import SqliteEngine
from genesis.engines.writer import InlineWriter, ThreadWriter


class Killed(BaseException):
    """The process of an engine ended here."""


class Trap:
    """A crash injector: what is set for a point is raised there, once."""

    def __init__(self) -> None:
        self.set: dict[CrashPoint, BaseException] = {}

    def __call__(self, point: CrashPoint) -> None:
        if error := self.set.pop(point, None):
            raise error


class Store(Protocol):
    """What outlives a process."""

    trap: Trap

    def engine(self, *, risky: bool = True) -> Engine:
        """An engine as a new process would make it. Only a risky one looks at the trap."""
        ...

    async def bury(self, engine: Engine) -> None:
        """Take away what the test's own process still holds of an engine that was killed."""
        ...


class Memory:
    def __init__(self, *, immediate: bool) -> None:
        self.trap, self.immediate, self.storage = Trap(), immediate, MemoryStorage()

    def engine(self, *, risky: bool = True) -> Engine:
        return MemoryEngine(self.storage, immediate=self.immediate, crash=self.trap if risky else None)

    async def bury(self, engine: Engine) -> None:
        assert isinstance(engine, MemoryEngine)
        engine.cut()


class Sqlite:
    def __init__(self, path: Path, *, thread: bool) -> None:
        self.trap, self.thread, self.path = Trap(), thread, path

    def engine(self, *, risky: bool = True) -> Engine:
        writer = ThreadWriter() if self.thread else InlineWriter()
        return SqliteEngine(self.path, writer=writer, crash=self.trap if risky else None)

    async def bury(self, engine: Engine) -> None:
        assert isinstance(engine, SqliteEngine)
        for partition, epoch in list(engine._epochs.items()):
            await engine.close(partition, Head(epoch=epoch))  # a broken engine only lets go of its lock


def make_stores(folder: Path) -> dict[str, Callable[[], Store]]:
    """By name, makers of stores that are empty."""
    number = iter(range(1 << 30))
    return {
        "memory": lambda: Memory(immediate=True),
        "memory-delayed": lambda: Memory(immediate=False),
        "sqlite": lambda: Sqlite(folder / f"{next(number)}.db", thread=True),
        "sqlite-inline": lambda: Sqlite(folder / f"{next(number)}.db", thread=False),
    }


NAMES = list(make_stores(Path()))


class Owner:
    """Who owns a partition: its head, counted on as the runtime does, and commits one by one."""

    def __init__(self, engine: Engine, head: Head, partition: int) -> None:
        self.engine, self.head, self.partition = engine, head, partition

    @classmethod
    async def claim(cls, engine: Engine, partition: int = 0) -> Owner:
        return cls(engine, await engine.claim(partition, "test"), partition)

    async def commit(self, batch: Batch | None = None) -> Answer:
        self.head.commit_id += 1
        self.head.clean = False
        return await self.engine.commit(self.partition, self.head, batch or Batch())

    async def die(self, store: Store, point: CrashPoint, batch: Batch | None = None) -> None:
        """Be killed in a commit."""
        store.trap.set[point] = Killed()
        with suppress(Killed):
            await self.commit(batch)
            raise AssertionError("it was not killed")
        await store.bury(self.engine)

    async def close(self) -> None:
        self.head.clean = True
        await self.engine.close(self.partition, self.head)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test."""
    asyncio.run(work)


def delivery(
    sequence: int,
    priority: Priority = Priority.NORMAL,
    kind: Kind = Kind.EXTERNAL,
    *,
    partition: int = 0,
    address: str = "stock/a",
    expires_at: float | None = None,
    payload: bytes = b"{}",
    headers: dict[str, str] | None = None,
) -> Delivery:
    """A delivery as the runtime hands it over: its id given."""
    return Delivery(
        route="stock:shop.order.placed",
        address=address,
        event_id=f"event-{sequence}",
        source="shop",
        payload=payload,
        born_at=1000.5,
        kind=kind,
        priority=priority,
        expires_at=expires_at,
        origin=f"origin-{sequence}",
        headers=headers,
        id=lane_start(partition, lane_of(priority, kind)) + sequence,
        message=object(),
    )


def pended(row: Delivery, reason: Reason = Reason.RETRY, due: float | None = None, attempt: int = 1) -> Pending:
    """A delivery on its way to the pending table."""
    row.attempt = attempt
    return Pending(row, reason, due)


def timer(name: str, due: float, address: str = "stock/a") -> Timer:
    return Timer(address, name, due, "shop.expire", b"{}", Priority.LOW, f"{address}-{name}", headers={"a": "b"})


LaneRow = tuple[int, tuple[object, ...]]
PendingRow = tuple[int, tuple[object, ...], int, str, float | None]


def lane_row(row: Delivery | int) -> LaneRow:
    assert isinstance(row, Delivery)
    assert row.pending == ""
    return row.id, row.stored()


def pending_row(row: Pending) -> PendingRow:
    assert row.delivery.pending == row.reason
    return row.delivery.id, row.delivery.stored(), row.delivery.attempt, row.reason, row.due


async def contents(engine: Engine, partition: int = 0) -> dict[str, object]:
    """All that is stored of a partition but its head, read page by page."""
    found: dict[str, object] = {}
    found["lanes"] = [lane_row(r) for lane in range(LANES) for r in await read_lane(engine, partition, lane)]
    pending: list[PendingRow] = []
    while page := await engine.scan_pending(partition, pending[-1][0] if pending else 0, 2):
        pending += map(pending_row, page)
    found["pending"] = pending
    state: list[tuple[str, tuple[int, bytes]]] = []
    while rows := await engine.scan_state(partition, "", state[-1][0] if state else "", 3):
        state += rows
    found["state"] = state
    found["timers"] = await engine.due_timers(partition, 1e9, 1 << 20)
    for table in TABLES:
        found[table] = await scan_all(engine, partition, table)
    return found


async def read_lane(engine: Engine, partition: int, lane: int, page: int = 3) -> list[Delivery | int]:
    found: list[Delivery | int] = []
    after = 0
    while rows := await engine.read(partition, lane, after, page, wall=0.0):
        found += rows
        after = rows[-1] if isinstance(rows[-1], int) else rows[-1].id
    return found


async def scan_all(engine: Engine, partition: int, table: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    while rows := await engine.scan(partition, table, found[-1][0] if found else "", 2):
        found += rows
    return found
