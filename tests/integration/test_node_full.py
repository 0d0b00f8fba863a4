"""A store with a quota: intake stops before it is full, and the work that was begun goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from genesis import (
    App,
    Context,
    IntakeFullError,
    Message,
    NotAcceptedError,
    Reject,
    Retry,
    Settings,
    on,
)
from tests.unit.runtime.support import in_real_time, until


class Box(Message, type="box"):
    n: int = 0
    data: bytes = b""


@in_real_time
async def test_a_full_store_stops_intake_and_not_the_work_that_was_begun(tmp_path: Path) -> None:
    app, release, handled = App("shop"), asyncio.Event(), list[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Store:
        @on(Box, timeout=None)
        async def put(self, box: Box, ctx: Context) -> None:
            await release.wait()
            handled.append(box.n)
            if box.n % 5 == 0:
                raise Reject("kept whole")

    settings = Settings(store=str(tmp_path / "shop.db"), quota_bytes=2 << 20)
    async with app.running(settings=settings) as node:
        for n in range(160):  # 1.5 MiB of payload; the limit is at 1.4
            await node.send(Box(n, bytes(10_000)))
        await until(lambda: node._ready().admission.limit == 0)  # the room is looked at once a second
        with pytest.raises(IntakeFullError, match="of its quota of 2 MiB") as full:
            await node.send(Box(160, bytes(10_000)))
        assert full.value.retry_after_s > 0
        release.set()
        await until(lambda: node.status().ledger.waiting == 0)
        assert sorted(handled) == list(range(160))
        assert node.status().ledger.dead == len(range(0, 160, 5))
        assert node.status().imbalance == ""
        await until(lambda: node._ready().admission.limit > 0)
        await node.send(Box(1, b""))  # it has drained: there is room again


@in_real_time
async def test_a_node_with_a_full_store_stops_in_order_and_the_next_goes_on(tmp_path: Path) -> None:
    app, release, handled = App("shop"), asyncio.Event(), list[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Store:
        @on(Box, timeout=None)
        async def put(self, box: Box, ctx: Context) -> None:
            await release.wait()
            handled.append(box.n)

    settings = Settings(store=str(tmp_path / "shop.db"), quota_bytes=2 << 20)
    async with app.running(settings=settings) as node:
        for n in range(160):
            await node.send(Box(n, bytes(10_000)))
        await until(lambda: node._ready().admission.limit == 0)
        release.set()
    assert len(handled) >= 64, "those that ran may end"
    async with app.running(settings=settings) as node:
        await until(lambda: node.status().ledger.waiting == 0)
        assert sorted(handled) == list(range(160))
        assert node.status().imbalance == ""


@in_real_time
async def test_a_store_filled_faster_than_it_is_looked_at_recovers_by_itself(tmp_path: Path) -> None:
    app, release, handled = App("shop"), asyncio.Event(), set[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Store:
        @on(Box, timeout=None)
        async def put(self, box: Box, ctx: Context) -> None:
            await release.wait()
            handled.add(box.n)

    settings = Settings(store=str(tmp_path / "shop.db"), quota_bytes=2 << 20)
    accepted = set[int]()
    async with app.running(settings=settings) as node:
        for n in range(500):
            try:
                await node.send(Box(n, bytes(10_000)), id=str(n))
                accepted.add(n)
            except (IntakeFullError, NotAcceptedError):
                await asyncio.sleep(0.001)
        assert len(accepted) > 50
        release.set()
        await until(lambda: node._life.pipeline and node.status().ledger.waiting == 0)
        assert handled >= accepted
        assert node.status().imbalance == ""
