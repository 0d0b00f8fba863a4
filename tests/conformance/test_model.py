"""Every engine against a naive model: random batches, random deaths, and always the same contents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from genesis.core.errors import StoreFailedError
from genesis.core.event import Delivery, Kind, Pending, Priority, Reason, Timer
from genesis.core.ports import TABLES, Answer, Batch, CrashPoint
from tests.conformance.stores import NAMES, Owner, Store, contents, delivery, make_stores, timer

T = TypeVar("T")
PARTITIONS = (0, 1)
ADDRESSES = ("", "stock/a", "stock/ä%", "till")
KEYS = ("a", "_", "\U0010ffff")
SOME_TABLES = TABLES[:3]
DUES = (0.0, 5.5, 16.0, 40.25, 99.0)
BODIES = st.binary(max_size=40)
PlainDelivery = tuple[object, ...]


class Model:
    """A partition as plain dictionaries."""

    def __init__(self) -> None:
        self.commit_id = 0
        self.lanes: dict[int, PlainDelivery] = {}
        self.pending: dict[int, tuple[PlainDelivery, int, str, float | None]] = {}
        self.state: dict[str, tuple[int, bytes]] = {}
        self.timers: dict[tuple[str, str], Timer] = {}
        self.tables: dict[str, dict[str, bytes]] = {table: {} for table in TABLES}
        self.next_sequence = 1

    def apply(self, batch: Batch) -> None:
        self.commit_id += 1
        self.lanes.update((d.id, d.stored()) for d in batch.append)
        for p in batch.pend:
            self.lanes.pop(p.delivery.id, None)
            self.pending[p.delivery.id] = (p.delivery.stored(), p.delivery.attempt, p.reason, p.due)
        for id in batch.done:
            self.lanes.pop(id, None)
        for id in batch.unpend:
            self.pending.pop(id, None)
        self.state.update(batch.state)
        for timer_key, new in batch.timers.items():
            self.timers.pop(timer_key, None)
            if new is not None:
                self.timers[timer_key] = new
        for table, rows in batch.tables.items():
            for key, body in rows.items():
                self.tables[table].pop(key, None)
                if body is not None:
                    self.tables[table][key] = body

    def contents(self) -> dict[str, object]:
        """The same as `stores.contents` of an engine."""
        found: dict[str, object] = {
            "lanes": sorted(self.lanes.items()),
            "pending": [(id, *row) for id, row in sorted(self.pending.items())],
            "state": sorted(self.state.items()),
            "timers": sorted(self.timers.values(), key=lambda t: (t.due, t.address, t.name)),
        }
        return found | {table: sorted(rows.items()) for table, rows in self.tables.items()}


@st.composite
def batches(draw: st.DrawFn, model: Model, partition: int) -> Batch:
    """A batch that the runtime might make of what is stored."""
    batch = Batch()
    for _ in range(draw(st.integers(0, 4))):
        row = delivery(
            model.next_sequence,
            draw(st.sampled_from(Priority)),
            draw(st.sampled_from(Kind)),
            partition=partition,
            address=draw(st.sampled_from(ADDRESSES)),
            payload=draw(BODIES),
            headers=draw(st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
        )
        model.next_sequence += draw(st.sampled_from([1, 1, 1, 2, 1000]))
        batch.append.append(row)
    waiting = [*model.lanes, *(row.id for row in batch.append)]
    batch.done = draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
    alive = [id for id in {*waiting, *model.pending} if id not in batch.done]
    for id in draw(st.lists(st.sampled_from(sorted(alive)), max_size=3)) if alive else []:
        due = draw(st.none() | st.sampled_from(DUES))
        batch.pend.append(Pending(rebuilt(id, model, batch), draw(st.sampled_from(Reason)), due))
    batch.unpend = draw(st.lists(st.sampled_from(sorted(model.pending)), unique=True)) if model.pending else []
    batch.state = draw(st.dictionaries(st.sampled_from(ADDRESSES[1:]), st.tuples(st.integers(1, 3), BODIES)))
    for address, name in draw(st.lists(st.tuples(st.sampled_from(ADDRESSES[1:]), st.sampled_from(KEYS)), max_size=3)):
        new = draw(st.none() | st.builds(timer, st.just(name), st.sampled_from(DUES), st.just(address)))
        batch.timers[address, name] = new
    for table, key in draw(st.lists(st.tuples(st.sampled_from(SOME_TABLES), st.sampled_from(KEYS)), max_size=4)):
        batch.put(table, key, draw(st.none() | BODIES))
    return batch


def rebuilt(id: int, model: Model, batch: Batch) -> Delivery:
    """The delivery of a row, with one more attempt."""
    for row in batch.append:
        if row.id == id:
            return row
    stored = model.lanes[id] if id in model.lanes else model.pending[id][0]
    row = Delivery(*stored)  # type: ignore[arg-type]
    row.id, row.attempt = id, 1 + (model.pending[id][1] if id in model.pending else 0)
    return row


class EngineMachine(RuleBasedStateMachine):
    """Two partitions of one store, each with its owner."""

    make: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.make()
        self.models = {partition: Model() for partition in PARTITIONS}
        self.engine = self.store.engine()
        self.owners: dict[int, Owner] = {}
        self.epochs = dict.fromkeys(PARTITIONS, 0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        for partition in PARTITIONS:
            self.claim(partition)

    def claim(self, partition: int) -> None:
        owner = self.run(Owner.claim(self.engine, partition))
        self.epochs[partition] += 1
        assert owner.head.epoch == self.epochs[partition]
        assert owner.head.commit_id == self.models[partition].commit_id
        self.owners[partition] = owner

    @rule(data=st.data(), partition=st.sampled_from(PARTITIONS), times=st.integers(1, 4))
    def commit(self, data: st.DataObject, partition: int, times: int) -> None:
        for _ in range(times):
            batch = data.draw(batches(self.models[partition], partition))
            self.models[partition].apply(batch)
            assert self.run(self.owners[partition].commit(batch)) is Answer.COMMITTED
            self.same()

    @rule(data=st.data(), partition=st.sampled_from(PARTITIONS), point=st.sampled_from(["execute", "commit"]))
    def die(self, data: st.DataObject, partition: int, point: str) -> None:
        """The process is killed in a commit; another one takes over."""
        batch = data.draw(batches(self.models[partition], partition))
        if point == "commit":
            self.models[partition].apply(batch)
        self.run(self.owners[partition].die(self.store, CrashPoint(point), batch))
        self.engine = self.store.engine()
        self.begin()

    @rule(data=st.data(), partition=st.sampled_from(PARTITIONS), point=st.sampled_from(["execute", "commit"]))
    def fail(self, data: st.DataObject, partition: int, point: str) -> None:
        """The disk fails in a commit; the same process goes on."""
        batch = data.draw(batches(self.models[partition], partition))
        if point == "commit":
            self.models[partition].apply(batch)
        self.store.trap.set[CrashPoint(point)] = StoreFailedError("the disk failed")
        assert self.run(self.owners[partition].commit(batch)) is Answer.UNKNOWN
        self.begin()

    @rule(data=st.data(), partition=st.sampled_from(PARTITIONS))
    def be_late(self, data: st.DataObject, partition: int) -> None:
        """A former owner still commits."""
        old = self.owners[partition]
        self.claim(partition)
        batch = data.draw(batches(self.models[partition], partition))
        assert self.run(old.commit(batch)) is Answer.FENCED

    @rule()
    def restart(self) -> None:
        """An orderly end and a new beginning."""
        for owner in self.owners.values():
            self.run(owner.close())
        self.engine = self.store.engine()
        self.begin()
        assert all(owner.head.clean for owner in self.owners.values())

    @rule(
        partition=st.sampled_from(PARTITIONS),
        before=st.sampled_from([0.0, 10.0, 16.0, 99.0, inf]),
        limit=st.integers(1, 4),
    )
    def look(self, partition: int, before: float, limit: int) -> None:
        """Reads that depend on time, on an address, or on a page."""
        model, engine = self.models[partition], self.engine
        due = sorted((row[3], id) for id, row in model.pending.items() if row[3] is not None and row[3] <= before)
        for start in range(len(due) + 1):
            after = due[start - 1] if start else (-inf, 0)
            page = self.run(engine.due_pending(partition, before, after, limit))
            assert [(row.due, row.delivery.id) for row in page] == due[start : start + limit]
        timers = sorted((t.due, t.address, t.name) for t in model.timers.values() if t.due <= before)
        found = self.run(engine.due_timers(partition, before, limit))
        assert [(t.due, t.address, t.name) for t in found] == timers[:limit]
        for address in ADDRESSES:
            held = [id for id, row in model.pending.items() if row[2] == Reason.HELD and row[0][1] == address]
            first = self.run(engine.behind(partition, address))
            assert (None if first is None else first.delivery.id) == min(held, default=None)

    @invariant()
    def same(self) -> None:
        for partition in self.owners:
            assert self.run(contents(self.engine, partition)) == self.models[partition].contents()

    def teardown(self) -> None:
        for owner in self.owners.values():
            self.run(owner.close())
        self.runner.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_does_what_plain_dictionaries_do(name: str, tmp_path: Path) -> None:
    make_store = make_stores(tmp_path)[name]

    class Machine(EngineMachine):
        make = staticmethod(make_store)

    run_state_machine_as_test(
        Machine,
        settings=settings(stateful_step_count=20, max_examples=settings().max_examples // 2),
    )
