"""What an engine promises of commits, owners and epochs."""

import asyncio

import pytest

from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.event import Kind, Priority, Reason
from genesis.core.ports import Answer, Batch, CrashPoint, Head
from tests.conformance.stores import Owner, Store, contents, delivery, pended, run, timer


def full_batch(start: int = 1, partition: int = 0) -> Batch:
    """A batch with something of everything."""
    batch = Batch(
        append=[delivery(start + n, partition=partition) for n in range(4)],
        pend=[pended(delivery(start + 1, partition=partition), Reason.HELD)],
        done=[delivery(start, partition=partition).id],
        state={"stock/a": (1, b"one"), "stock/b": (2, b"two")},
        timers={("stock/a", "expire"): timer("expire", 12.0)},
    )
    batch.put("dead", f"key-{start}", b"letter")
    batch.put("dedupe", f"{start:016x}", b"x" * 20_000)
    return batch


def test_a_new_partition_begins_empty_under_its_first_epoch(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        expected = Head.fresh()
        expected.epoch = 1
        assert owner.head == expected
        assert await contents(owner.engine) == await contents(owner.engine, partition=7)
        await owner.close()

    run(work())


def test_all_parts_of_a_batch_are_stored_and_seen_at_once(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        assert await owner.commit(full_batch()) is Answer.COMMITTED
        found = await contents(owner.engine)
        assert [row[0] for row in found["lanes"]] == [delivery(3).id, delivery(4).id]  # type: ignore[attr-defined]
        assert [row[0] for row in found["pending"]] == [delivery(2).id]  # type: ignore[attr-defined]
        assert found["state"] == [("stock/a", (1, b"one")), ("stock/b", (2, b"two"))]
        assert found["timers"] == [timer("expire", 12.0)]
        assert found["dead"] == [("key-1", b"letter")]
        assert found["dedupe"] == [(f"{1:016x}", b"x" * 20_000)]
        await owner.close()

    run(work())


@pytest.mark.parametrize(("point", "stored"), [(CrashPoint.EXECUTE, False), (CrashPoint.COMMIT, True)])
def test_a_process_killed_in_a_commit_leaves_all_of_it_or_nothing(store: Store, point: CrashPoint, stored: bool) -> None:
    async def work() -> None:
        first = await Owner.claim(store.engine())
        assert await first.commit(full_batch(1)) is Answer.COMMITTED
        before = await contents(first.engine)
        await first.die(store, point, full_batch(10))

        second = await Owner.claim(store.engine())
        assert (second.head.epoch, second.head.commit_id) == (2, 2 if stored else 1)
        assert not second.head.clean
        assert (await contents(second.engine) == before) is not stored
        if stored:
            await second.commit(Batch())
            assert len((await contents(second.engine))["lanes"]) == 4  # type: ignore[arg-type]
        await second.close()

    run(work())


@pytest.mark.parametrize(("point", "stored"), [(CrashPoint.EXECUTE, False), (CrashPoint.COMMIT, True)])
def test_a_failing_disk_answers_unknown_and_the_next_claim_tells(store: Store, point: CrashPoint, stored: bool) -> None:
    async def work() -> None:
        engine = store.engine()
        owner = await Owner.claim(engine)
        await owner.commit(full_batch(1))
        store.trap.set[point] = StoreFailedError("the disk failed")
        assert await owner.commit(full_batch(10)) is Answer.UNKNOWN
        assert await owner.commit(full_batch(20)) is Answer.UNKNOWN  # nothing more is taken before a claim
        with pytest.raises(StoreError):
            await engine.scan(0, "dead", "", 10)

        again = await Owner.claim(engine)
        assert again.head.epoch == 2
        assert again.head.commit_id == (2 if stored else 1)
        keys = [key for key, _ in await engine.scan(0, "dead", "", 10)]
        assert keys == (["key-1", "key-10"] if stored else ["key-1"])
        assert await again.commit(full_batch(20)) is Answer.COMMITTED
        assert await owner.commit(full_batch(30)) is Answer.FENCED
        await again.close()

    run(work())


def test_a_claim_returns_the_head_of_the_last_commit(store: Store) -> None:
    async def work() -> None:
        engine = store.engine()
        owner = await Owner.claim(engine)
        head = owner.head
        head.next_sequence[3], head.ledger.external, head.ledger.in_lanes = 77, 5, 5
        head.running, head.waiting_by_lane[5], head.born_by_priority[2] = [delivery(1).id], 5, 5
        await owner.commit(full_batch(1))
        head.ledger.external, head.next_sequence[3], head.running = 9, 99, []  # counted on, and lost with its process
        await owner.die(store, CrashPoint.EXECUTE)

        owner = await Owner.claim(store.engine())
        again = owner.head
        assert (again.epoch, again.commit_id, again.clean) == (2, 1, False)
        assert (again.next_sequence[3], again.ledger.external, again.ledger.in_lanes) == (77, 5, 5)
        assert (again.running, again.waiting_by_lane[5], again.born_by_priority[2]) == ([delivery(1).id], 5, 5)
        assert again.ledger.imbalance() == ""
        await owner.close()

    run(work())


def test_a_close_stores_the_head_too(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        await owner.commit()
        owner.head.ledger.done = 3
        await owner.close()
        again = await Owner.claim(store.engine(risky=False))
        assert (again.head.clean, again.head.commit_id, again.head.ledger.done) == (True, 1, 3)
        await again.close()

    run(work())


def test_what_the_owner_counts_during_a_commit_is_not_in_it(store: Store) -> None:
    async def work() -> None:
        engine = store.engine()
        owner = await Owner.claim(engine)
        commit = asyncio.create_task(owner.commit(full_batch()))
        await asyncio.sleep(0)
        owner.head.ledger.duplicate = 8
        assert await commit is Answer.COMMITTED
        assert (await engine.claim(0, "test")).ledger.duplicate == 0
        await engine.close(0, await engine.claim(0, "test"))

    run(work())


def test_a_stale_epoch_is_refused_and_nothing_of_it_is_stored(store: Store) -> None:
    async def work() -> None:
        engine = store.engine(risky=False)
        old = await Owner.claim(engine)
        await old.commit(full_batch(1))
        new = await Owner.claim(engine)
        before = await contents(engine)
        assert await old.commit(full_batch(10)) is Answer.FENCED
        assert await contents(engine) == before
        await old.close()  # gives up what it does not own any more

        assert await new.commit(full_batch(20)) is Answer.COMMITTED
        assert new.head.commit_id == 2
        last = await Owner.claim(engine)
        assert (last.head.epoch, last.head.commit_id, last.head.clean) == (3, 2, False)
        await last.close()

    run(work())


def test_who_never_claimed_is_refused(store: Store) -> None:
    async def work() -> None:
        engine = store.engine(risky=False)
        owner = await Owner.claim(engine)
        assert await Owner(engine, Head.fresh(), 1).commit(full_batch(partition=1)) is Answer.FENCED
        await owner.close()

    run(work())


def test_partitions_are_independent(store: Store) -> None:
    async def work() -> None:
        engine = store.engine(risky=False)
        owners = [await Owner.claim(engine, partition) for partition in range(3)]
        answers = await asyncio.gather(*(o.commit(full_batch(partition=o.partition)) for o in owners))
        assert answers == [Answer.COMMITTED] * 3
        assert await engine.load_state(0, ["stock/a"]) == await engine.load_state(2, ["stock/a"])

        await Owner.claim(engine, 1)
        assert await owners[1].commit(full_batch(30, partition=1)) is Answer.FENCED
        batch = Batch(state={"stock/a": (1, b"changed")}, timers={("stock/a", "expire"): None})
        batch.put("dead", "key-1", None)
        batch.done = [delivery(3).id]
        assert await owners[0].commit(batch) is Answer.COMMITTED
        assert await owners[2].commit() is Answer.COMMITTED
        assert await engine.load_state(0, ["stock/a"]) == {"stock/a": (1, b"changed")}
        assert await engine.load_state(1, ["stock/a"]) == {"stock/a": (1, b"one")}
        assert [await engine.due_timers(p, 99.0, 9) for p in (0, 1)] == [[], [timer("expire", 12.0)]]
        assert [len(await engine.scan(p, "dead", "", 9)) for p in range(3)] == [0, 1, 1]
        assert [len(await engine.read(p, 5, 0, 9, 0.0)) for p in range(3)] == [1, 2, 2]
        assert [len(await engine.scan_pending(p, 0, 9)) for p in range(3)] == [1, 1, 1]
        for partition in range(3):
            await (await Owner.claim(engine, partition)).close()

    run(work())


def test_two_commits_of_one_partition_at_a_time_are_a_programming_error(store: Store) -> None:
    async def work() -> None:
        engine = store.engine(risky=False)
        if engine.traits.immediate:
            return  # there is no time between its beginning and its end
        owner = await Owner.claim(engine)
        first = asyncio.create_task(owner.commit())
        await asyncio.sleep(0)
        if not first.done():
            with pytest.raises(AssertionError, match="under way"):
                await owner.commit()
        assert await first is Answer.COMMITTED
        await owner.close()

    run(work())


def test_an_immediate_engine_commits_without_an_event_loop(store: Store) -> None:
    engine = store.engine(risky=False)
    if not engine.traits.immediate:
        return
    claim, head = engine.claim(0, "test"), Head()
    try:
        claim.send(None)
    except StopIteration as end:
        head = end.value
    for number in range(1, 4):
        head.commit_id = number
        with pytest.raises(StopIteration) as end_of_commit:
            engine.commit(0, head, full_batch(10 * number)).send(None)
        assert end_of_commit.value.value is Answer.COMMITTED


def test_a_big_batch_is_one_step(store: Store) -> None:
    count = 5_000

    def big(start: int) -> Batch:
        batch = Batch(append=[delivery(start + n, payload=b"p" * 500) for n in range(count)])
        batch.append += [delivery(start + n, Priority.HIGH, Kind.EMITTED) for n in range(count)]
        batch.state = {f"stock/{n:06d}": (1, b"%d" % start * 20) for n in range(count)}
        batch.timers = {("stock/a", f"{n}"): timer(f"{n}", float(n)) for n in range(500)}
        for n in range(count):
            batch.put("reply", f"{n:06d}", b"r" * 50)
        return batch

    async def work() -> None:
        owner = await Owner.claim(store.engine())
        assert await owner.commit(big(1)) is Answer.COMMITTED
        await owner.die(store, CrashPoint.EXECUTE, big(count + 1))

        owner = await Owner.claim(store.engine())
        engine = owner.engine
        rows = await engine.read(0, 5, 0, 2 * count, 0.0)
        assert [row if isinstance(row, int) else row.id for row in rows] == [delivery(1 + n).id for n in range(count)]
        keys = [f"stock/{n:06d}" for n in range(count + 3)]
        assert await engine.load_state(0, keys) == dict.fromkeys(keys[:count], (1, b"1" * 20))
        assert len(await engine.load(0, "reply", [f"{n:06d}" for n in range(count)])) == count
        assert [t.name for t in await engine.due_timers(0, 1e9, 501)] == [f"{n}" for n in range(500)]
        batch = Batch(done=[delivery(1 + n).id for n in range(count) if n % 7])
        batch.pend = [pended(delivery(1 + n), due=float(n)) for n in range(0, count, 7)]
        assert await owner.commit(batch) is Answer.COMMITTED
        assert await engine.read(0, 5, 0, 9, 0.0) == []
        assert len(await engine.scan_pending(0, 0, count)) == len(batch.pend)
        batch = Batch(unpend=[row.delivery.id for row in batch.pend])
        batch.tables["reply"] = {f"{n:06d}": None for n in range(count)}
        assert await owner.commit(batch) is Answer.COMMITTED
        assert await engine.scan_pending(0, 0, 9) == []
        assert await engine.scan(0, "reply", "", 9) == []
        assert len(await engine.read(0, 2, 0, 2 * count, 0.0)) == count
        await owner.close()

    run(work())


def test_usage_grows_and_says_what_is_left(store: Store) -> None:
    async def work() -> None:
        owner = await Owner.claim(store.engine(risky=False))
        before = owner.engine.usage()
        batch = Batch(append=[delivery(n, payload=b"p" * 1000) for n in range(1, 1001)])
        await owner.commit(batch)
        after = owner.engine.usage()
        assert after.used_bytes >= before.used_bytes + 1_000_000
        assert before.free_bytes > 0
        assert after.free_bytes > 0
        await owner.close()

    run(work())
