"""The promises of the commit path, one small test each, on a real file. `tests/mutants` shows that each test can fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from genesis import App, Context, Message, NotAcceptedError, RefusedError, Reject, Retry, UnavailableError, on
from genesis.core.errors import FencedError, StoreFailedError
from genesis.core.ports import CrashPoint
from tests.torture.heart import Disk, Hit, Next, Seen, Snapshots, head, numbers, rest, row, run, running, until

SOON = Retry(attempts=5, base_s=1e-6, cap_s=1e-6)
DONE, IN_PENDING = 8, 12
"""Places in the stored ledger."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "heart.db"


def plain() -> App:
    """Notes what it is told."""
    app = App("plain")

    @app.component(key="key", state=Seen)
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            state.numbers.append(hit.n)

    return app


# --- the yes --------------------------------------------------------------------------------------------------------


def test_the_connection_that_commits_waits_for_the_disk(store: Path) -> None:
    async def work() -> None:
        async with running(plain(), store) as (_, engine):
            assert engine._file is not None
            for name, wanted in (("synchronous", 2), ("journal_mode", "wal")):
                assert engine._file.write.execute(f"PRAGMA {name}").fetchone()[0] == wanted

    run(work)


def test_no_yes_before_the_commit_not_even_to_a_duplicate(store: Path) -> None:
    async def work() -> None:
        disk = Disk()
        async with running(plain(), store, disk=disk) as (node, engine):
            disk.stop_at(engine, lambda batch: batch.append)
            first = [asyncio.create_task(node.send(Hit(n=n), id=str(n))) for n in range(3)]
            again = asyncio.create_task(node.send(Hit(n=0), id="0"))
            await disk.reached()
            assert not any(task.done() for task in (*first, again))
            disk.go()
            assert [(await task).duplicate for task in (*first, again)] == [False, False, False, True]
            await rest(node)

    run(work)
    assert numbers(store, "notes/a") == [0, 1, 2]
    assert row(store, "SELECT count(*) FROM event") == 0


def test_a_commit_that_failed_is_no_yes_and_leaves_nothing(store: Path) -> None:
    fail = False

    def crash(point: CrashPoint) -> None:
        nonlocal fail
        if fail and point is CrashPoint.EXECUTE:
            fail = False
            raise StoreFailedError("the disk failed")

    async def work() -> None:
        nonlocal fail
        async with running(plain(), store, crash=crash) as (node, _):
            await node.send(Hit(n=0))
            await rest(node)
            fail = True
            with pytest.raises(NotAcceptedError):
                await node.send(Hit(n=1), id="1")
            while True:
                try:
                    assert not (await node.send(Hit(n=1), id="1")).duplicate
                    break
                except RefusedError:  # it is being opened again
                    await asyncio.sleep(0.001)
            await rest(node)

    run(work)
    assert numbers(store, "notes/a") == [0, 1]


def test_a_commit_of_a_handler_that_failed_is_undone_as_a_whole(store: Path) -> None:
    attempts = 0
    fail = False

    def crash(point: CrashPoint) -> None:
        nonlocal fail
        if fail and point is CrashPoint.EXECUTE:
            fail = False
            raise StoreFailedError("the disk failed")

    app = App("undone")

    @app.component(key="key", state=Seen)
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            nonlocal attempts, fail
            attempts += 1
            fail = attempts == 1  # the commit that would store this
            state.numbers.append(hit.n)

    async def work() -> None:
        async with running(app, store, crash=crash) as (node, _):
            await node.send(Hit(n=1))
            await until(lambda: attempts == 2)
            await rest(node)

    run(work)
    assert (attempts, numbers(store, "notes/a")) == (2, [1])


def test_a_stale_owner_stores_nothing_and_stops(store: Path) -> None:
    async def work() -> None:
        async with running(plain(), store) as (node, _):
            await node.send(Hit(n=1))
            await rest(node)
            with closing(sqlite3.connect(store, isolation_level=None)) as db:
                db.execute("UPDATE head SET epoch = epoch + 1")
            with pytest.raises(RefusedError):
                await node.send(Hit(n=2))
            await asyncio.Event().wait()  # the node ends this block

    with pytest.raises(FencedError):
        run(work)
    assert numbers(store, "notes/a") == [1]
    assert row(store, "SELECT count(*) FROM event") == 0


# --- all or nothing -------------------------------------------------------------------------------------------------


def relay() -> tuple[App, list[int]]:
    """Emits what it is told, at attempt number n; the other component notes it. And a list of what the other has begun."""
    app, begun = App("relay"), list[int]()

    @app.component(key="key", state=Seen, retry=SOON)
    class First:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            state.numbers.append(hit.n)
            ctx.emit(Next(hit.key, hit.n))
            if ctx.attempt < hit.n:
                raise ValueError("not yet")

    @app.component(key="key", state=Seen)
    class Second:
        @on(Next)
        async def next(self, following: Next, state: Seen, ctx: Context) -> None:
            begun.append(following.n)
            state.numbers.append(following.n)

    return app, begun


def test_an_emitted_event_waits_for_the_commit_of_its_parent(store: Path) -> None:
    app, begun = relay()

    async def work() -> None:
        disk = Disk()
        async with running(app, store, disk=disk) as (node, engine):
            disk.stop_at(engine, lambda batch: any(delivery.type == "next" for delivery in batch.append))
            await node.send(Hit(n=1))
            await disk.reached()
            assert not begun
            disk.go()
            await rest(node)

    run(work)
    assert (begun, numbers(store, "second/a")) == ([1], [1])


def test_nothing_of_a_failed_attempt_stays(store: Path) -> None:
    app, begun = relay()

    async def work() -> None:
        async with running(app, store) as (node, _):
            await node.send(Hit(n=4))
            await rest(node)

    run(work)
    assert (numbers(store, "first/a"), numbers(store, "second/a"), begun) == ([4], [4], [4])


def test_each_commit_holds_the_states_of_the_deliveries_that_it_ends(store: Path) -> None:
    snapshots = Snapshots(store, CrashPoint.APPEND)

    async def work() -> None:
        async with running(plain(), store, crash=snapshots) as (node, _):
            for n in range(10):
                await node.send(Hit(n=n))
            await rest(node)

    run(work)
    assert len(snapshots.taken) > 10
    for taken in snapshots.taken:
        assert numbers(taken, "notes/a") == list(range(head(taken)["ledger"][DONE]))


def test_work_that_was_pending_ends_once(store: Path) -> None:
    app, begun = relay()

    async def work(hits: list[int]) -> None:
        async with running(app, store) as (node, _):
            for n in hits:
                await node.send(Hit(n=n))
            await rest(node)

    run(lambda: work([3, 1]))
    run(lambda: work([2]))
    assert row(store, "SELECT count(*) FROM pending") == 0
    assert head(store)["ledger"][IN_PENDING] == 0
    assert (numbers(store, "first/a"), sorted(begun)) == ([3, 1, 2], [1, 2, 3])


# --- after a restart ------------------------------------------------------------------------------------------------


def test_a_source_goes_on_at_its_position(store: Path) -> None:
    app, last = plain(), 5

    @app.source
    async def steps(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range((position or 0) + 1, last + 1):
            yield n, Hit(n=n)

    async def work() -> None:
        async with running(app, store) as (node, _):
            await until(lambda: node.status().sources["steps"]["state"] == "ended")
            await rest(node)

    run(work)
    last = 8
    run(work)
    assert numbers(store, "notes/a") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_ids_are_remembered(store: Path) -> None:
    async def work() -> bool:
        async with running(plain(), store) as (node, _):
            receipt = await node.send(Hit(n=1), id="1")
            await rest(node)
        return receipt.duplicate

    assert [run(work), run(work)] == [False, True]
    assert numbers(store, "notes/a") == [1]


def test_the_number_of_a_delivery_is_never_used_again(store: Path) -> None:
    app = App("rejects")

    @app.component
    class Rejects:
        @on(Hit)
        async def hit(self, hit: Hit, ctx: Context) -> None:
            raise Reject("as always")

    async def work() -> None:
        async with running(app, store) as (node, _):
            await node.send(Hit(n=1))
            await rest(node)

    run(work)
    run(work)
    assert row(store, "SELECT count(*) FROM dead") == 2, "dead letters are kept by number"


def test_a_timer_fires_once(store: Path) -> None:
    app = App("timers")
    snapshots = Snapshots(store, CrashPoint.ANSWER)

    @app.component(key="key", state=Seen)
    class Clock:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            ctx.after(0.001, Next(hit.key, hit.n))

        @on(Next)
        async def next(self, following: Next, state: Seen, ctx: Context) -> None:
            state.numbers.append(following.n)

    async def work(path: Path, *hits: int) -> None:
        async with running(app, path, crash=snapshots if path is store else None) as (node, _):
            for n in hits:
                await node.send(Hit(n=n))
            await until(lambda: node.status().ledger.timer)  # of this life or the one before
            await rest(node)

    run(lambda: work(store, 1))
    for taken in snapshots.taken[2:]:  # accepted, and perhaps more: the rest of the way is gone anew
        run(lambda taken=taken: work(taken))
        assert (numbers(taken, "clock/a"), row(taken, "SELECT count(*) FROM timer")) == ([1], 0)


def test_a_result_of_the_outside_is_committed_before_it_is_used(store: Path) -> None:
    app, calls, used = App("once"), list[str](), list[str]()

    @app.component(key="key", state=Seen, retry=SOON)
    class Pays:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            used.append(await ctx.once("pay", self.pay))
            if ctx.attempt < 3:
                raise ValueError("after the call")

        async def pay(self, key: str) -> str:
            calls.append(key)
            return "paid"

    async def work() -> None:
        disk = Disk()
        async with running(app, store, disk=disk) as (node, engine):
            disk.stop_at(engine, lambda batch: "once" in batch.tables)
            await node.send(Hit(n=1))
            await disk.reached()
            assert not used
            disk.go()
            await rest(node)

    run(work)
    assert (len(calls), used) == (1, ["paid"] * 3)


def test_what_ran_when_the_process_died_has_one_attempt_less(store: Path) -> None:
    app, attempts, over = App("deadly"), list[int](), asyncio.Event()

    @app.component(key="key", state=Seen, retry=Retry(attempts=2))
    class Deadly:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            attempts.append(ctx.attempt)
            await over.wait()

    async def work(path: Path) -> Path:
        """Have it run, and kill the process meanwhile."""
        nonlocal over
        over, snapshots = asyncio.Event(), Snapshots(path)
        async with running(app, path) as (node, _):
            if path is store:
                await node.send(Hit(n=1))
            await until(lambda: attempts)
            await node.send(Hit(key="b"))  # its commit notes what runs
            taken = snapshots.take()
            over.set()
        return taken

    once = run(lambda: work(store))
    assert set(attempts) == {1}
    attempts.clear()
    twice = run(lambda: work(once))
    assert attempts[0] == 2
    attempts.clear()

    async def third() -> None:
        async with running(app, twice) as (node, _):
            await rest(node)

    run(third)
    letter = msgspec.msgpack.decode(row(twice, "SELECT body FROM dead"))
    assert (letter["reason"], letter["attempts"]) == ("crashed", 2)


def test_a_key_waits_for_its_first_event_across_a_restart(store: Path) -> None:
    app, down = App("waits"), True

    @app.component(key="key", state=Seen)
    class Waits:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            if down and hit.n == 1:
                raise UnavailableError("the other side", 0.5)
            state.numbers.append(hit.n)

    async def first() -> None:
        async with running(app, store) as (node, _):
            await node.send(Hit(n=1))
            await node.send(Hit(n=2))
            await until(lambda: node.status().ledger.in_pending == 2)

    async def second() -> None:
        nonlocal down
        async with running(app, store) as (node, _):
            await node.send(Hit(n=3))
            for _ in range(50):
                await asyncio.sleep(0)
            down = False
            await rest(node)

    run(first)
    run(second)
    assert numbers(store, "waits/a") == [1, 2, 3]
