"""Several events in one atomic step: all are accepted, or none."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, IntakeFullError, InvalidEventError, Message, NotAcceptedError, Priority, UnknownTypeError, on
from genesis.core.errors import BatchLimitError, GenesisError, MalformedEventError
from genesis.core.event import Incoming
from genesis.core.ports import CrashPoint
from genesis.layers.prevention.admission import AdmissionSettings
from tests.unit.runtime.support import Disk, Done, Job, Log, until


class Blob(Message, type="blob"):
    data: bytes


def diary() -> tuple[App, type]:
    app = App("diary")

    @app.component(key="key", state=Log)
    class Diary:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

        @on(Blob, key=lambda blob: "blob")
        async def keep(self, blob: Blob, log: Log, ctx: Context) -> None:
            pass

    return app, Diary


def jobs(*numbers: int) -> list[Incoming]:
    return [Incoming(Job(n=n), id=str(n), source="till") for n in numbers]


async def test_all_are_accepted_in_order_and_duplicates_are_told() -> None:
    app, diary_class = diary()
    async with Disk().node(app) as node:
        first = await node.send_batch(jobs(1, 2))
        again = await node.send_batch([*jobs(2, 3, 3), Incoming(Job(n=4), priority=Priority.LOW, headers={"a": "b"})])
        assert [receipt.duplicate for receipt in first] == [False, False]
        assert [receipt.duplicate for receipt in again] == [True, False, True, False]
        await until(lambda: node.status().ledger.done == 4)
        assert (await node.state(diary_class, "a")).seen == [1, 2, 3, 4]
        ledger = node.status().ledger
        assert (ledger.offered, ledger.accepted, ledger.duplicate) == (6, 4, 2)


@pytest.mark.parametrize(
    ("wrong", "error", "index"),
    [
        (Incoming(Done(n=1)), UnknownTypeError, 2),
        (Incoming(Job(n="x")), InvalidEventError, 2),  # type: ignore[arg-type]
        (Incoming(Job(n=1), id=""), InvalidEventError, 2),
        (Incoming(Job(n=1), headers={"a": "\ud800"}), InvalidEventError, 2),
        (Incoming(Blob(bytes(1 << 20)), id="9"), BatchLimitError, 2),
        (Incoming(Blob(bytes((1 << 20) - 16)), id="9"), BatchLimitError, None),
    ],
)
async def test_one_that_does_not_fit_refuses_all_and_its_index_is_told(
    wrong: Incoming, error: type[GenesisError], index: int | None
) -> None:
    app, _ = diary()
    async with Disk().node(app) as node:
        with pytest.raises(error) as found:
            await node.send_batch([*jobs(1, 2), wrong, *jobs(3)])
        assert found.value.index == index
        ledger = node.status().ledger
        assert (ledger.offered, ledger.refused, ledger.imbalance()) == (4, 4, "")
        assert not any(receipt.duplicate for receipt in await node.send_batch(jobs(1, 2, 3))), "they may come again"


async def test_more_deliveries_than_one_step_takes_are_refused() -> None:
    app, _ = diary()
    async with Disk().node(app) as node:
        await node.send_batch(jobs(*range(900)))
        with pytest.raises(BatchLimitError, match="901 deliveries"):
            await node.send_batch(jobs(*range(1000, 1901)))
        assert node.status().ledger.accepted == 900


async def test_a_duplicate_waits_for_the_commit_of_the_first() -> None:
    app, _ = diary()
    disk = Disk()
    async with disk.node(app, delay=lambda: 1.0) as node:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(node.send(Job(n=1), id="1", source="till"))
            await asyncio.sleep(0.1)
            batch = group.create_task(node.send_batch(jobs(1)))
            await asyncio.sleep(0.1)
            assert not batch.done()
        assert not one.result().duplicate
        assert batch.result()[0].duplicate


async def test_when_the_commit_fails_none_is_accepted() -> None:
    app, _ = diary()
    disk = Disk()
    async with disk.node(app) as node:
        disk.fail_at(CrashPoint.EXECUTE)
        with pytest.raises(NotAcceptedError):
            await node.send_batch(jobs(1, 2))
        await until(lambda: not node.readiness().store)
        assert [r.duplicate for r in await node.send_batch(jobs(1, 2))] == [False, False]


async def test_on_an_engine_that_never_waits() -> None:
    app, _ = diary()
    async with Disk().node(app, immediate=True) as node:
        await node.send(Job(n=0))
        assert [r.duplicate for r in await node.send_batch(jobs(1, 1))] == [False, True]
        assert await node.send_batch([]) == []
        await until(lambda: node.status().ledger.done == 2)


async def test_readiness_says_why_not() -> None:
    app, _ = diary()
    async with Disk().node(app, admission=AdmissionSettings(backlog_max=1)) as node:
        assert node.readiness().intake == ""
        await node.send_batch(jobs(1, 2))
        with pytest.raises(IntakeFullError):
            await node.send(Job(n=3))
        assert "the limit is 1" in node.readiness().intake
    assert "stopped" in node.readiness().store


async def test_a_message_is_made_of_json() -> None:
    app, _ = diary()
    async with Disk().node(app) as node:
        assert node.message("job", b'{"n": 3}') == Job(n=3)
        wrong = [
            ("job", b'{"n": "x"}', InvalidEventError),
            ("job", b'{"n"', MalformedEventError),
            ("job", b'{"key": "\xff"}', MalformedEventError),
            ("job", b"[" * 100_000, GenesisError),
            ("jop", b"{}", UnknownTypeError),
        ]
        for kind, body, error in wrong:
            with pytest.raises(error):
                node.message(kind, body)
        assert node.status().ledger.refused == len(wrong)
