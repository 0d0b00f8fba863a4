"""Many events at once: in order, in atomic steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from genesis import App, Context, IntakeFullError, InvalidEventError, Message, on
from genesis.core.errors import StoreFailedError
from genesis.layers.prevention.admission import AdmissionSettings
from tests.unit.runtime.support import Alarm, Disk, Job, Log, until


class Big(Message, type="big"):
    data: bytes


def diary() -> tuple[App, type]:
    app = App("diary")

    @app.component(key="key", state=Log)
    class Diary:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

        @on(Alarm)
        async def shout(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            log.seen.append(alarm.n)

    @app.component
    class Files:
        @on(Big)
        async def file(self, big: Big, ctx: Context) -> None:
            pass

    return app, Diary


@pytest.mark.parametrize("count", [0, 1, 449, 450, 451, 3000])
async def test_all_are_accepted_in_order(count: int) -> None:
    app, diary_class = diary()
    disk = Disk()
    async with disk.node(app) as node:
        receipts = await node.send_many([Job("a", n) for n in range(count)], source="till")
        assert len(receipts) == len({receipt.id for receipt in receipts}) == count
        assert all(receipt.source == "till" and not receipt.duplicate and receipt.deliveries == 1 for receipt in receipts)
        assert node.status().ledger.accepted == count
        await until(lambda: node.status().ledger.done == count)
        await asyncio.sleep(0.1)
        assert (await node.state(diary_class, "a")).seen == list(range(count))
        assert node.status().imbalance == ""


async def test_they_are_durable_when_it_returns() -> None:
    app, diary_class = diary()
    disk = Disk()
    with pytest.raises(StoreFailedError):  # noqa: PT012
        async with disk.node(app) as node:
            await node.send_many(Job("a", n) for n in range(1000))
            disk.engine.cut()  # the process dies here
    async with disk.node(app) as node:
        assert node.status().ledger.accepted == 1000
        await until(lambda: node.status().ledger.done == 1000)
        await asyncio.sleep(0.1)
        assert (await node.state(diary_class, "a")).seen == list(range(1000))


async def test_events_of_all_kinds_keep_their_priorities() -> None:
    app, diary_class = diary()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send_many([Job("a", 1), Alarm("a", 0), Job("a", 2)])
        await until(lambda: node.status().ledger.done == 3)
        await asyncio.sleep(0.1)
        assert (await node.state(diary_class, "a")).seen == [0, 1, 2]


async def test_one_that_does_not_fit_ends_it_and_takes_no_other_of_its_step_with_it_half_way() -> None:
    app, diary_class = diary()

    def messages() -> Iterator[Message]:
        for n in range(1000):
            yield Job("a", n) if n != 700 else Job("", n)

    disk = Disk()
    async with disk.node(app) as node:
        with pytest.raises(InvalidEventError):
            await node.send_many(messages())
        await asyncio.sleep(1)
        seen = (await node.state(diary_class, "a")).seen
        assert seen == list(range(450)), "the step before it, and nothing of its own"
        assert (node.status().ledger.accepted, node.status().ledger.refused) == (450, 1)
        assert node.status().imbalance == ""


async def test_when_intake_is_full_the_steps_before_are_accepted() -> None:
    app, _diary_class = diary()
    disk = Disk()
    async with disk.node(app, admission=AdmissionSettings(backlog_max=600), delay=lambda: 0.05) as node:
        with pytest.raises(IntakeFullError):  # noqa: PT012
            for _ in range(20):
                await node.send_many([Job("a", n) for n in range(450)])
                await node.send_many([Job("a", n) for n in range(450)])
        await until(lambda: node.status().ledger.waiting == 0)
        ledger = node.status().ledger
        assert ledger.accepted % 450 == 0
        assert ledger.done == ledger.accepted > 0
        assert node.status().imbalance == ""


async def test_big_events_are_cut_into_steps_that_a_commit_can_hold() -> None:
    app, _ = diary()
    disk = Disk()
    async with disk.node(app) as node:
        await node.send_many([Big(bytes(400_000)) for _ in range(20)])
        await until(lambda: node.status().ledger.done == 20)


async def test_what_the_iterable_raises_comes_out() -> None:
    app, _ = diary()

    def messages() -> Iterator[Message]:
        yield Job("a", 1)
        raise ZeroDivisionError

    async with Disk().node(app) as node:
        with pytest.raises(ZeroDivisionError):
            await node.send_many(messages())
        assert node.status().imbalance == ""
