"""Nodes on real files, in real time, with real threads."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from genesis import (
    App,
    Context,
    DeadLetter,
    IntakeFullError,
    NotAcceptedError,
    Reject,
    Request,
    Retry,
    StoreError,
    StoreInUseError,
    every,
    on,
)
from genesis.core.errors import FencedError, NotAStoreError, StoreFailedError
from genesis.core.ports import CrashPoint
from genesis.engines.outside import Outside
from tests.unit.runtime.support import Alarm, Done, Job, Log, in_real_time, until


class Add(Request[int], type="add"):
    key: str = "a"
    n: int = 0


def shop() -> tuple[App, type]:
    app = App("shop", version="1.0")

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=0.01))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))
            if job.n < 0:
                raise Reject("below zero")

        @on(Done)
        async def done(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(1000 + done.n)

        @on(Add)
        async def add(self, add: Add, log: Log, ctx: Context) -> int:
            log.seen.append(add.n)
            return sum(log.seen)

    return app, Till


def rows(store: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store)) as db, db:
        return db.execute(sql, values).fetchall()


# --- one file, one owner --------------------------------------------------------------------------------------------


@in_real_time
async def test_what_was_accepted_is_in_the_file_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    app, till = shop()
    store = tmp_path / "shop.db"
    async with app.running(store=str(store)) as node:
        receipts = await node.send_many([Job("ab"[n % 2], n) for n in range(1000)])
        assert len(receipts) == 1000
        head = Outside(store).head()
        assert head is not None
        assert head.ledger.accepted == 1000
        await node.ask(Add("a", 1), id="1")
        await node.send(Job("a", 1), id="job-1")
    async with app.running(store=str(store)) as node:
        assert (await node.send(Job("a", 1), id="job-1")).duplicate
        await until(lambda: node.status().ledger.waiting == 0)
        await node._ready().barrier()  # counted when sealed; seen in the state when committed
        seen = (await node.state(till, "a")).seen
        assert [n for n in seen if n < 1000][:500] == list(range(0, 1000, 2))
        assert len(seen) == 500 + 500 + 1 + 2
        assert node.status().imbalance == ""
        assert node.status().latency_s["NORMAL"]["max"] >= 0
        answer = await node.ask(Add("a", 1), id="1")
        assert answer == await node.ask(Add("a", 1), id="1")


@in_real_time
async def test_a_second_node_on_the_file_is_told_who_has_it(tmp_path: Path) -> None:
    app, _ = shop()
    store = str(tmp_path / "shop.db")
    async with app.running(store=store) as node:
        with pytest.raises(StoreInUseError) as refusal:
            async with app.running(store=store):
                pytest.fail("it runs")
        assert (refusal.value.pid, refusal.value.host) == (os.getpid(), socket.gethostname())
        assert str(os.getpid()) in str(refusal.value)
        await node.send(Job())
    async with app.running(store=store):
        pass


@in_real_time
async def test_another_epoch_in_the_file_stops_the_node(tmp_path: Path) -> None:
    app, till = shop()
    store = tmp_path / "shop.db"
    reached: list[str] = []
    with pytest.raises(FencedError, match="another process took over"):  # noqa: PT012
        async with app.running(store=str(store)) as node:
            await node.send(Job("a", 1))
            await until(lambda: node.status().ledger.waiting == 0)
            rows(store, "UPDATE head SET epoch = epoch + 1")
            sending = asyncio.create_task(node.send(Job("a", 2), id="2"))
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                reached.append("cancelled")
                raise
    assert reached == ["cancelled"]
    with pytest.raises(NotAcceptedError):
        await sending
    async with app.running(store=str(store)) as node:  # the file was let go
        assert not (await node.send(Job("a", 2), id="2")).duplicate
        await until(lambda: node.status().ledger.waiting == 0)
        await node._ready().barrier()
        assert sorted((await node.state(till, "a")).seen) == [1, 2, 1001, 1002]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.write_bytes(b"no store" * 1000), StoreError),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close(), NotAStoreError),
        (lambda path: path.mkdir(), StoreError),
    ],
    ids=["garbage", "another program's", "a folder"],
)
def test_errors_of_the_store_come_out_as_their_own_type(tmp_path: Path, make: Any, error: type[Exception]) -> None:
    app, _ = shop()
    store = tmp_path / "shop.db"
    make(store)

    async def run() -> None:
        async with app.running(store=str(store)):
            pytest.fail("it runs")

    with pytest.raises(error) as raised:
        asyncio.run(run())
    assert isinstance(raised.value, StoreError)
    assert not isinstance(raised.value, BaseExceptionGroup)
    assert str(store) in str(raised.value)


@in_real_time
async def test_a_store_that_cannot_be_opened_again_is_let_go(tmp_path: Path) -> None:
    app, _ = shop()
    store, fail = tmp_path / "shop.db", False

    def crash(point: CrashPoint) -> None:
        if fail and point is CrashPoint.EXECUTE:
            raise StoreFailedError("the disk failed")

    with pytest.raises(StoreFailedError, match="the store could not be opened again"):  # noqa: PT012
        async with app.running(store=str(store), crash=crash) as node:
            await node.send(Job("a", 1))
            await until(lambda: node.status().ledger.waiting == 0)
            for file in tmp_path.iterdir():  # noqa: ASYNC240
                if not file.name.endswith(".lock"):
                    file.rename(file.with_name(file.name.replace("shop.db", "kept.db")))
            store.write_bytes(b"garbage" * 1000)
            fail = True
            with pytest.raises(NotAcceptedError):
                await node.send(Job("a", 2))
            await asyncio.sleep(30)
    store.unlink()
    for file in tmp_path.glob("kept.db*"):  # noqa: ASYNC240
        file.rename(file.with_name(file.name.replace("kept.db", "shop.db")))
    async with app.running(store=str(store)) as node:
        assert node.status().ledger.accepted == 1


@in_real_time
async def test_an_error_of_the_body_drains_and_comes_out(tmp_path: Path) -> None:
    app, till = shop()
    store = str(tmp_path / "shop.db")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with app.running(store=store) as node:
            await node.send(Job("a", 1))
            raise ZeroDivisionError
    async with app.running(store=store) as node:
        await until(lambda: node.status().ledger.waiting == 0)
        await node._ready().barrier()
        assert sorted((await node.state(till, "a")).seen) == [1, 1001]


@in_real_time
async def test_a_failing_disk_loses_and_doubles_nothing(tmp_path: Path) -> None:
    app, till = shop()
    passed, points = 0, (CrashPoint.EXECUTE, CrashPoint.COMMIT)

    def crash(point: CrashPoint) -> None:
        nonlocal passed
        if point is points[(passed // 9) % 2]:
            passed += 1
            if passed % 9 == 0:
                raise StoreFailedError("the disk failed")

    async with app.running(store=str(tmp_path / "shop.db"), crash=crash) as node:
        for n in range(40):
            while True:
                try:
                    await node.send(Job("a", n), id=str(n))
                    break
                except (NotAcceptedError, IntakeFullError):
                    await asyncio.sleep(0.001)
        rested = False
        while not rested:
            await until(lambda: node._life.pipeline and node.status().ledger.waiting == 0)
            with suppress(StoreFailedError):
                await node._ready().barrier()  # the disk may fail at this commit too
                rested = True
        seen = (await node.state(till, "a")).seen
        assert [n for n in seen if n < 1000] == list(range(40))
        assert sorted(n for n in seen if n >= 1000) == list(range(1000, 1040))
        assert node.status().imbalance == ""
        assert passed >= 18


# --- people ---------------------------------------------------------------------------------------------------------


@in_real_time
async def test_another_process_files_requests_and_the_owner_answers(tmp_path: Path) -> None:
    app, _till = shop()
    store = tmp_path / "shop.db"
    async with app.running(store=str(store)) as node:
        outside = Outside(store)

        async def call(**request: Any) -> dict[str, Any]:
            key = outside.file_request(request["kind"], msgspec.msgpack.encode(request))
            await until(lambda: outside.answer(key) is not None)
            answer: dict[str, Any] = msgspec.msgpack.decode(outside.answer(key) or b"")
            outside.forget(key)
            return answer

        sent = await call(kind="send", type="job", fields={"key": "a", "n": 5}, id="1", source="desk")
        assert sent == {"receipt": {"id": "1", "source": "desk", "duplicate": False, "deliveries": 1}}
        again = await call(kind="send", type="job", fields={"key": "a", "n": 5}, id="1", source="desk")
        assert again["receipt"]["duplicate"]
        assert "did you mean 'job'" in (await call(kind="send", type="jop", fields={}))["error"]
        assert "Expected `int`" in (await call(kind="send", type="job", fields={"key": "a", "n": "x"}))["error"]
        assert (await call(kind="dance"))["error"].startswith("unknown request 'dance'")
        assert "error" in await call(kind="send", type="job", fields={}, priority="urgent")

        await node.send(Job("b", -1), id="bad")
        await until(lambda: node.status().ledger.dead == 1)
        await until(lambda: outside.scan("dead"))
        ((key, body),) = outside.scan("dead")
        letter = msgspec.msgpack.decode(body, type=DeadLetter)
        assert (letter.reason, letter.detail, letter.delivery.event_id, letter.app_version) == (
            "rejected",
            "below zero",
            "bad",
            "1.0",
        )
        assert await call(kind="replay", dead=[key, "nothing"]) == {"done": [key], "missing": ["nothing"]}
        await until(lambda: node.status().ledger.dead == 2)
        await until(lambda: outside.scan("dead"))
        assert len((await call(kind="drop", all=True))["done"]) == 1
        assert outside.scan("dead") == []

        await until(lambda: outside.scan("fact", "statur", 1) and node.status().ledger.waiting == 0)
        assert node.status().imbalance == ""
        outside.close()


@in_real_time
async def test_the_status_of_a_running_node_is_in_the_file(tmp_path: Path) -> None:
    app, _ = shop()
    store = tmp_path / "shop.db"
    async with app.running(store=str(store)) as node:
        await node.send(Job("a", 1))
        outside = Outside(store)
        await until(lambda: dict(outside.scan("fact")).get("status"))
        found = msgspec.msgpack.decode(dict(outside.scan("fact"))["status"])
        assert (found["app"], found["pid"]) == ("shop", os.getpid())
        outside.close()


# --- time -----------------------------------------------------------------------------------------------------------


@in_real_time
async def test_timers_schedules_and_retries_run_in_real_time_and_across_a_restart(tmp_path: Path) -> None:
    app, ticks = App("clock"), 0

    @app.component(single=True, state=Log, retry=Retry(attempts=3, base_s=0.02))
    class Clock:
        @on(Job)
        async def set(self, job: Job, log: Log, ctx: Context) -> None:
            if ctx.attempt < 3:
                raise ConnectionError
            for n in range(3):
                ctx.after(0.05 * n, Alarm(n=n))
            ctx.after(0.3, Alarm(n=9))

        @on(Alarm)
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(alarm.n)

        @every(0.1)
        async def tick(self, log: Log, ctx: Context) -> None:
            nonlocal ticks
            ticks += 1

    store = str(tmp_path / "clock.db")
    async with app.running(store=store) as node:
        await node.send(Job())
        await until(lambda: ticks >= 2 and node.status().ledger.timer - ticks >= 3)
    async with app.running(store=store) as node:
        await until(lambda: node.status().ledger.timer - ticks >= 4 and node.status().ledger.waiting == 0)
        await until(lambda: ticks >= 4)
        await node._ready().barrier()
        assert (await node.state(Clock)).seen == [0, 1, 2, 9]
        assert node.status().ledger.retries == 2
