"""What an engine promises of reads: which rows, in which order, page by page."""

from math import inf

import pytest

from genesis.core.event import Delivery, Kind, Priority, Reason, lane_of, lane_start
from genesis.core.ports import TABLES, Batch
from tests.conformance.stores import Owner, Store, contents, delivery, lane_row, pended, pending_row, run, timer


def ids(rows: list[Delivery | int]) -> list[int]:
    return [row if isinstance(row, int) else row.id for row in rows]


def test_a_lane_is_read_in_order_after_an_id(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        rows = [delivery(n, headers={"trace": "x"}) for n in range(1, 8)]
        noise = [delivery(n, Priority.HIGH) for n in range(1, 8)] + [delivery(n, kind=Kind.TIMER) for n in range(1, 8)]
        await owner.commit(Batch(append=[*noise, *rows]))
        await owner.commit(Batch(done=[rows[2].id, rows[3].id]))

        lane = lane_of(Priority.NORMAL, Kind.EXTERNAL)
        read = owner.engine.read
        left = [rows[0].id, rows[1].id, rows[4].id, rows[5].id, rows[6].id]
        assert ids(await read(0, lane, 0, 100, 0.0)) == left
        assert ids(await read(0, lane, lane_start(0, lane), 3, 0.0)) == left[:3]
        assert ids(await read(0, lane, rows[1].id, 2, 0.0)) == left[2:4]
        assert ids(await read(0, lane, rows[3].id, 2, 0.0)) == left[2:4]
        assert await read(0, lane, rows[6].id, 2, 0.0) == []
        assert lane_row((await read(0, lane, rows[5].id, 2, 0.0))[0]) == lane_row(rows[6])
        assert len(await read(0, lane_of(Priority.NORMAL, Kind.TIMER), 0, 100, 0.0)) == 7
        assert await read(0, lane_of(Priority.CRITICAL, Kind.EXTERNAL), 0, 100, 0.0) == []
        await owner.close()

    run(work())


def test_an_expired_delivery_comes_as_its_id(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        rows = [delivery(1), delivery(2, expires_at=10.0), delivery(3, expires_at=20.0), delivery(4, expires_at=30.0)]
        await owner.commit(Batch(append=rows))
        found = await owner.engine.read(0, 5, 0, 9, wall=20.0)
        assert found[1] == rows[1].id
        assert [row.expires_at for row in found if isinstance(row, Delivery)] == [None, 20.0, 30.0]
        assert ids(found) == ids([*rows])
        await owner.close()

    run(work())


def test_many_wait_and_a_few_stay_behind(store: Store) -> None:
    """Stragglers at the front do not make what is behind them unreadable, or reappear."""

    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        count, stay = 6_000, (1, 1024, 1025, 2500, 5000)
        for start in range(1, count, 1000):
            await owner.commit(Batch(append=[delivery(start + n) for n in range(1000)]))
        for start in range(1, count, 1000):
            gone = [delivery(start + n).id for n in range(1000) if start + n not in stay]
            await owner.commit(Batch(done=gone))
        assert ids(await owner.engine.read(0, 5, 0, 9, 0.0)) == [delivery(n).id for n in stay]
        assert ids(await owner.engine.read(0, 5, delivery(1024).id, 1, 0.0)) == [delivery(1025).id]
        await owner.close()

    run(work())


def test_pending_work_moves_out_of_its_lane_and_is_kept_with_its_attempts(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        engine = owner.engine
        rows = [delivery(n, headers={"n": str(n)}) for n in range(1, 5)]
        await owner.commit(Batch(append=rows))
        await owner.commit(Batch(pend=[pended(rows[1], Reason.RETRY, 50.0, 2), pended(rows[2], Reason.HELD, None, 0)]))
        assert ids(await engine.read(0, 5, 0, 9, 0.0)) == [rows[0].id, rows[3].id]
        first, second = await engine.scan_pending(0, 0, 9)
        assert pending_row(first) == (rows[1].id, rows[1].stored(), 2, Reason.RETRY, 50.0)
        assert pending_row(second) == (rows[2].id, rows[2].stored(), 0, Reason.HELD, None)

        first.delivery.attempt = 9  # the reader's copy
        assert (await engine.scan_pending(0, 0, 1))[0].delivery.attempt == 2
        await owner.commit(Batch(pend=[pended(rows[1], Reason.PARKED, None, 3)]))
        assert pending_row((await engine.scan_pending(0, 0, 1))[0])[2:] == (3, Reason.PARKED, None)
        assert await engine.due_pending(0, 1e9, (-inf, 0), 9) == []

        await owner.commit(Batch(unpend=[rows[1].id]))
        assert [row.delivery.id for row in await engine.scan_pending(0, 0, 9)] == [rows[2].id]
        assert await engine.scan_pending(0, rows[2].id, 9) == []
        await owner.close()

    run(work())


def test_the_last_word_on_a_pending_row_counts(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        row = delivery(1)
        await owner.commit(Batch(append=[row], pend=[pended(row, Reason.SLOW, None), pended(row, Reason.RETRY, 40.0)]))
        assert await owner.engine.read(0, 5, 0, 9, 0.0) == []
        assert [r.due for r in await owner.engine.due_pending(0, 99.0, (-inf, 0), 9)] == [40.0]
        await owner.commit(Batch(pend=[pended(row, Reason.RETRY, 41.0)], unpend=[row.id]))
        assert await owner.engine.scan_pending(0, 0, 9) == []
        await owner.close()

    run(work())


def test_held_work_comes_back_by_priority_then_age(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        low, late, early = delivery(1, Priority.LOW), delivery(9), delivery(3)
        other = delivery(2, Priority.CRITICAL, address="stock/b")
        parked = delivery(1, Priority.CRITICAL)
        rows = [low, late, early, other, parked]
        await owner.commit(Batch(append=rows))
        pend = [pended(row, Reason.HELD) for row in rows[:4]] + [pended(parked, Reason.PARKED)]
        await owner.commit(Batch(pend=pend))

        for expected in (early, late, low):
            found = await owner.engine.behind(0, "stock/a")
            assert found is not None
            assert pending_row(found)[:2] == (expected.id, expected.stored())
            await owner.commit(Batch(unpend=[expected.id]))
        assert await owner.engine.behind(0, "stock/a") is None
        assert await owner.engine.behind(0, "stock/unknown") is None
        await owner.commit(Batch(pend=[pended(other, Reason.RETRY, 1.0)]))
        assert await owner.engine.behind(0, "stock/b") is None
        await owner.close()

    run(work())


def test_due_work_is_paged_by_time_then_id(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        dues = [30.0, 10.0, 20.0, 10.0, 70.0, 1000.25, None, 20.0]
        pend = [pended(delivery(n + 1), due=due) for n, due in enumerate(dues)]
        await owner.commit(Batch(pend=pend))
        order = [(10.0, 2), (10.0, 4), (20.0, 3), (20.0, 8), (30.0, 1), (70.0, 5)]
        found: list[tuple[float, int]] = []
        after = (-inf, 0)
        while rows := await owner.engine.due_pending(0, 70.0, after, 2):
            assert len(rows) <= 2
            for row in rows:
                assert row.due is not None
                after = (row.due, row.delivery.id)
                found.append((row.due, row.delivery.id - lane_start(0, 5)))
        assert found == order
        assert await owner.engine.due_pending(0, 9.9, (-inf, 0), 9) == []
        await owner.close()

    run(work())


def test_timers_are_set_replaced_and_removed_by_name(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        first = [timer("a", 30.0), timer("b", 10.0), timer("b", 500.0, "stock/b"), timer("c", 10.0)]
        for t in reversed(first):
            await owner.commit(Batch(timers={(t.address, t.name): t}))
        due = owner.engine.due_timers
        assert await due(0, 30.0, 9) == [first[1], first[3], first[0]]
        assert await due(0, 1000.0, 2) == [first[1], first[3]]
        assert await due(0, 9.0, 9) == []

        moved = timer("b", 40.0)
        changes = {("stock/a", "b"): moved, ("stock/a", "c"): None, ("stock/a", "never"): None}
        await owner.commit(Batch(timers=changes))
        assert await due(0, 1000.0, 9) == [first[0], moved, first[2]]
        await owner.close()

    run(work())


@pytest.mark.parametrize("table", TABLES)
def test_named_tables_are_scanned_in_key_order(store: Store, table: str) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        keys = ["b", "a", "a b", "ä", "Z", "_", "%", "10", "9", "\U0001f600", "\uffff", "ab"]
        await owner.commit(Batch(tables={table: {key: key.encode() for key in keys}}))
        ordered = sorted(keys)
        scan = owner.engine.scan
        assert [key for key, _ in await scan(0, table, "", 99)] == ordered
        assert await scan(0, table, ordered[4], 3) == [(key, key.encode()) for key in ordered[5:8]]
        assert await scan(0, table, "aa", 1) == [("ab", b"ab")]

        await owner.commit(Batch(tables={table: {"a": None, "never": None}}))
        assert [key for key, _ in await scan(0, table, "", 99)] == [key for key in ordered if key != "a"]
        await owner.commit(Batch(tables={table: {"b": b"", "c": b"new"}}))
        assert await owner.engine.load(0, table, ["a", "b", "c", "never", "ä"]) == {
            "b": b"",
            "c": b"new",
            "ä": "ä".encode(),
        }
        assert [key for key, _ in await scan(0, table, "", 99)] == sorted({*keys, "c"} - {"a"})
        for other in TABLES:
            assert bool(await scan(0, other, "", 9)) is (other == table)
        await owner.close()

    run(work())


def test_states_are_found_by_the_start_of_their_address(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        names = ["", "%", "_", "a%b", "a_b", "ä", "é", "\u00ff", "\ud7ff", "\ue000", "\uffff", "\U0010ffff", "z z", "Ω/1"]
        addresses = [f"stock/{name}" for name in names] + ["stoc", "stock", "stocks/1", "stock0", "other/1", "stocj\uffff"]
        await owner.commit(Batch(state={address: (3, address.encode()) for address in addresses}))
        ordered = sorted(address for address in addresses if address.startswith("stock/"))
        scan = owner.engine.scan_state
        assert [a for a, _ in await scan(0, "stock/", "", 99)] == ordered
        assert await scan(0, "stock/", ordered[2], 2) == [(a, (3, a.encode())) for a in ordered[3:5]]
        assert await scan(0, "stock/", "stock/\U0010ffff", 9) == []
        assert [a for a, _ in await scan(0, "stock/", "aaa", 2)] == ordered[:2]
        assert [a for a, _ in await scan(0, "stock/%", "", 99)] == ["stock/%"]
        assert [a for a, _ in await scan(0, "stock/\U0010ffff", "", 99)] == ["stock/\U0010ffff"]
        assert [a for a, _ in await scan(0, "", "", 99)] == sorted(addresses)
        assert [a for a, _ in await scan(0, "stock", "stock", 2)] == ["stock/", "stock/%"]
        assert await scan(0, "nothing/", "", 99) == []
        assert await owner.engine.load_state(0, ["stock/a%b", "stock/never"]) == {"stock/a%b": (3, b"stock/a%b")}

        await owner.commit(Batch(state={"stock/%": (4, b"next"), "stock/%%": (1, b"")}))
        assert await scan(0, "stock/%", "", 99) == [("stock/%", (4, b"next")), ("stock/%%", (1, b""))]
        await owner.close()

    run(work())


def test_reopened_it_holds_the_same(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        rows = [delivery(n, headers={"a": "ü"}, payload=bytes(range(256))) for n in range(1, 9)]
        batch = Batch(append=rows, state={"stock/a": (1, bytes(range(256)))}, timers={("stock/a", "t"): timer("t", 9.0)})
        batch.pend = [pended(rows[3], Reason.HELD), pended(rows[4], Reason.RETRY, 7.5, 3)]
        for table in TABLES:
            batch.put(table, "key", bytes(range(256)))
        await owner.commit(batch)
        before = await contents(owner.engine)
        await owner.close()

        again = await Owner.claim(store.engine(risky=False))
        assert await contents(again.engine) == before
        owner.head.last_epoch, owner.head.epoch = owner.head.epoch, owner.head.epoch + 1
        assert again.head == owner.head
        assert again.head.clean
        await again.close()

    run(work())
