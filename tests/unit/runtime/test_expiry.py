"""Events with a life: what was not begun in time ends as expired."""

from __future__ import annotations

import asyncio

from genesis import App, Context, Message, Node, Settings, on
from tests.unit.runtime.support import Disk, Job, inside, until


class Quote(Message, type="quote", expires_after=10.0):
    key: str = "a"
    n: int = 0


async def test_an_event_that_was_not_begun_in_its_life_ends_as_expired() -> None:
    app, made, release = App("shop"), list[int](), asyncio.Event()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            if quote.n == 0:
                await release.wait()

    async with app.simulate() as sim:
        await sim.send(Quote("a", 0))
        await sim.send(Quote("a", 1))
        await sim.advance(5)
        await sim.send(Quote("a", 2))
        await sim.advance(7)
        release.set()
        await sim.settle()
        assert made == [0, 2]
        assert (sim.ledger.expired, sim.ledger.done, sim.ledger.dead) == (1, 2, 0)
        assert sim.ledger.imbalance() == ""
        assert (await inside(sim, _status)).ended["NORMAL"] == 3


async def test_what_expired_in_the_store_is_counted_without_being_read() -> None:
    app, made, release = App("shop"), list[int](), asyncio.Event()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            if quote.n == 0:
                await release.wait()

    async with app.simulate(settings=Settings(window_bytes=1000, slots=1)) as sim:
        for n in range(500):
            await sim.send(Quote(str(n), n))
        await sim.advance(60)
        release.set()
        await sim.send(Quote("x", 500))
        await sim.settle()
        assert made == [0, 500]
        assert (sim.ledger.expired, sim.ledger.done) == (499, 2)
        assert sim.ledger.imbalance() == ""


async def test_what_expired_while_the_node_was_away_ends_as_expired() -> None:
    app, made = App("shop"), list[int]()

    @app.component(key="key")
    class Till:
        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            made.append(quote.n)
            await asyncio.sleep(1000)

    disk = Disk()
    async with disk.node(app, slots=1, drain_s=0.1) as node:
        await node.send_many([Quote(n=n) for n in range(5)])
        await until(lambda: made)
    await asyncio.sleep(20)
    made.clear()
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.expired == 5)
        assert made == []
        assert node.status().imbalance == ""


async def _status(node: Node) -> object:
    return node.status()


async def test_a_message_of_a_timer_lives_as_long_as_its_class_says() -> None:
    app, served, release = App("shop"), list[int](), asyncio.Event()

    @app.component(key="key")
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, ctx: Context) -> None:
            ctx.after(1, Quote(n=1))

        @on(Quote, timeout=None)
        async def make(self, quote: Quote, ctx: Context) -> None:
            served.append(quote.n)
            await release.wait()

    async with app.simulate() as sim:
        await sim.send(Quote(n=0))
        await sim.advance(1)
        await sim.send(Job("b"))
        await sim.advance(60)
        release.set()
        await sim.settle()
        assert served == [0]
        assert sim.ledger.expired == 1
