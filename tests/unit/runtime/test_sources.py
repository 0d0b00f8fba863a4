"""Sources: what they give is stored once, in order, with the position from which they go on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from genesis import App, Context, DefinitionError, Message, Node, Settings, on
from genesis.runtime.log import silence
from tests.unit.runtime.support import CRASH_POINTS, Disk, Job, Log, inside, until

Give = Callable[[int | None], AsyncIterator[tuple[int, Message]]]


def river(source: Give) -> tuple[App, type]:
    """An application that notes what a source gives."""
    app = App("river")

    @app.component(key="key", state=Log)
    class Bank:
        @on(Job)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    app.source(name="spring")(source)
    return app, Bank


async def source_of(node: Node) -> dict[str, str]:
    return node.status().sources["spring"]


async def test_what_a_source_gives_is_handled_in_order_and_its_end_is_seen() -> None:
    begun: list[int | None] = []

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        begun.append(position)
        for n in range(100):
            yield n, Job("a", n)

    app, bank = river(spring)
    async with app.simulate() as sim:
        await sim.settle()
        await sim.advance(1)
        assert sim.state(bank, "a").seen == list(range(100))
        assert await inside(sim, source_of) == {"state": "ended", "error": ""}
        assert begun == [None]
        await sim.crash()  # started again, it is told where it was
        await sim.advance(1)
        assert begun == [None, 99]


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_source_goes_on_from_its_committed_position_without_loss_or_doubling(point: str, after: int) -> None:
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, 60):
            yield n, Job("a", n)
            if n % 7 == 0:
                await asyncio.sleep(0.01)

    app, bank = river(spring)
    async with app.simulate() as sim:
        for _ in range(3):
            sim.crash_at(point, after=after)
            await sim.advance(0.03)
        await sim.advance(10)
        await sim.settle()
        assert sim.crashes >= 1
        assert sim.state(bank, "a").seen == list(range(60))
        assert (sim.ledger.accepted, sim.ledger.done, sim.ledger.refused) == (60, 60, 0)
        assert sim.ledger.imbalance() == ""


async def test_a_position_may_be_any_value_that_can_be_stored() -> None:
    begun: list[object] = []

    async def spring(position: dict[str, list[int]] | None) -> AsyncIterator[tuple[dict[str, list[int]], Message]]:
        begun.append(position)
        yield {"offsets": [1, 2]}, Job("a", 1)

    app, _ = river(spring)
    async with app.simulate() as sim:
        await sim.advance(1)
        await sim.crash()
        await sim.advance(1)
        assert begun == [None, {"offsets": [1, 2]}]


async def test_a_source_that_fails_is_started_again_after_growing_waits() -> None:
    tries: list[float] = []

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 12:
            raise ConnectionError("dry")
        yield 1, Job("a", 1)

    app, bank = river(spring)
    async with app.simulate() as sim:
        await sim.advance(0.01)
        assert await inside(sim, source_of) == {"state": "failed", "error": "ConnectionError: dry"}
        await sim.advance(600)
        assert sim.state(bank, "a").seen == [1]
        waits = [after - before for before, after in itertools.pairwise(tries)]
        limits = [min(30.0, 0.5 * 2**n) for n in range(11)]
        assert all(wait <= limit + 0.01 for wait, limit in zip(waits, limits, strict=True))
        assert sum(waits[6:]) > sum(waits[:6])
        assert await inside(sim, source_of) == {"state": "ended", "error": ""}


async def test_a_source_that_fails_after_it_gave_something_goes_on_from_there_soon() -> None:
    begun: list[tuple[int | None, float]] = []

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        begun.append((position, asyncio.get_running_loop().time()))
        at = 0 if position is None else position + 1
        yield at, Job("a", at)
        if at < 20:
            raise ConnectionError("hiccup")

    app, bank = river(spring)
    async with app.simulate() as sim:
        await sim.advance(60)
        assert sim.state(bank, "a").seen == list(range(21))
        assert [position for position, _ in begun] == [None, *range(20)]
        assert begun[-1][1] - begun[0][1] < 20 * 0.55


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [UnspeakableError(), ConnectionError("dry \udcff")])
async def test_a_source_may_fail_with_what_cannot_be_said_or_stored(error: Exception) -> None:
    tries = list[int]()

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        tries.append(1)
        if len(tries) < 10:
            raise error
        yield 1, Job("a", 1)

    app, _ = river(spring)
    with silence():  # such words cannot be sent from one process of a test run to another
        async with Disk().node(app) as node:
            await until(lambda: node.status().sources["spring"]["error"].startswith(type(error).__name__))
            await until(lambda: node.status().ledger.done == 1, limit_s=600)


@pytest.mark.parametrize(
    "bad",
    [Job("", 1), Job("a", "x"), "no message"],
    ids=["no key", "wrong type", "no message"],  # type: ignore[arg-type]
)
async def test_a_source_that_gives_what_does_not_fit_fails_in_sight_and_skips_nothing(bad: Message) -> None:
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, 3):
            yield n, bad if n == 1 else Job("a", n)

    app, bank = river(spring)
    async with app.simulate() as sim:
        await sim.advance(300)
        assert sim.state(bank, "a").seen == [0]
        seen = await inside(sim, source_of)
        assert seen["state"] == "failed"
        assert seen["error"]
        assert sim.ledger.imbalance() == ""


async def test_a_source_is_slowed_down_and_never_refused_while_intake_is_full() -> None:
    release, given = asyncio.Event(), 0

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        nonlocal given
        for n in range(0 if position is None else position + 1, 3000):
            yield n, Job(str(n), n)
            given += 1

    app = App("river")

    @app.component(key="key", state=Log)
    class Bank:
        @on(Job, timeout=None)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            await release.wait()

    app.source(name="spring")(spring)
    async with app.simulate(settings=Settings(backlog_max=10)) as sim:
        await sim.advance(600)
        assert sim.ledger.accepted <= 10 + 512, "what was under way when the limit was reached"
        assert given == sim.ledger.accepted
        assert (await inside(sim, source_of))["state"] == "waiting"
        release.set()
        await sim.advance(600)
        await sim.settle()
        assert (sim.ledger.done, sim.ledger.refused, sim.ledger.offered) == (3000, 0, 3000)


async def test_an_endless_source_does_not_run_ahead_of_the_disk() -> None:
    given = 0

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        nonlocal given
        while True:
            given += 1
            yield given, Job(str(given % 50), given)

    app, _ = river(spring)
    disk = Disk()
    async with disk.node(app, delay=lambda: 1.0) as node:
        await asyncio.sleep(3.5)
        assert given - node.status().ledger.accepted <= 1024


async def test_a_source_is_closed_in_order_at_the_end() -> None:
    ended: list[str] = []

    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        at = 0 if position is None else position
        try:
            while True:
                at += 1
                yield at, Job("a", at)
                await asyncio.sleep(1)
        finally:
            ended.append("closed")

    app, bank = river(spring)
    disk = Disk()
    async with disk.node(app):
        await asyncio.sleep(4.5)
    assert ended == ["closed"]
    async with disk.node(app) as node:
        await asyncio.sleep(2.5)
        assert (await node.state(bank, "a")).seen == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_two_sources_have_two_positions() -> None:
    app = App("river")

    @app.component(key="key", state=Log)
    class Bank:
        @on(Job)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    @app.source
    async def left_spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, 30):
            yield n, Job("left", n)
            await asyncio.sleep(0.1)

    @app.source
    async def right_spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, 30):
            yield n, Job("right", n)
            await asyncio.sleep(0.07)

    async with app.simulate() as sim:
        for _ in range(4):
            await sim.advance(0.8)
            await sim.crash()
        await sim.advance(5)
        assert sim.state(Bank, "left").seen == sim.state(Bank, "right").seen == list(range(30))
        assert sorted(await inside(sim, _names)) == ["left-spring", "right-spring"]


async def test_an_application_goes_on_while_its_source_is_down() -> None:
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        if position is None:
            raise ConnectionError("dry")
        yield 1, Job()

    app, bank = river(spring)
    async with app.simulate() as sim:
        await sim.send(Job("a", 5))
        await sim.settle()
        assert sim.state(bank, "a").seen == [5]


async def test_the_store_may_fail_under_a_source_and_nothing_is_lost_or_doubled() -> None:
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(0 if position is None else position + 1, 200):
            yield n, Job("a", n)
            await asyncio.sleep(0.01)

    app, bank = river(spring)
    disk = Disk()
    async with disk.node(app) as node:
        for point in ("execute", "commit") * 3:
            disk.fail_at(point, after=3)
            await until(lambda: disk.failed)
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)
        assert (await node.state(bank, "a")).seen == list(range(200))


def test_what_is_no_source_is_told_so_with_the_line_to_write() -> None:
    app = App("river")
    with pytest.raises(DefinitionError, match="plain is no async generator"):

        @app.source
        async def plain(position: int | None) -> list[int]:
            return []

    with pytest.raises(DefinitionError, match="takes one argument, the last committed position"):

        @app.source
        async def lost() -> AsyncIterator[tuple[int, Message]]:
            yield 1, Job()


async def _names(node: Node) -> list[str]:
    return list(node.status().sources)
