"""Resources: opened in order before intake, closed in reverse after the drain, given by type, replaced in tests."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, NewType

import pytest

from genesis import App, Context, DefinitionError, Message, Module, NotAcceptedError, ResourceError, State, StoreError, on
from genesis.core.ports import CrashPoint
from genesis.runtime.resource import CLOSE_S
from tests.unit.runtime.support import Disk, Done, Job, Log


class Prices:
    """Stands for a client of a service."""

    def __init__(self, price: int = 7) -> None:
        self.price = price

    async def quote(self) -> int:
        await asyncio.sleep(0.1)
        return self.price


class Pool:
    """Stands for a pool of connections."""


class Shop:
    """An application with a client that needs a pool, and what was opened and closed, in order."""

    def __init__(self) -> None:
        self.app = app = App("shop")
        self.told: list[str] = []
        self.close: Callable[[], Any] = lambda: None

        @app.resource
        async def prices(pool: Pool) -> AsyncIterator[Prices]:
            async for client in self.opened("prices", Prices()):
                yield client

        @app.resource
        async def pool() -> AsyncIterator[Pool]:
            async for found in self.opened("pool", Pool()):
                yield found

        @app.component(key="key", state=Log)
        class Quoting:
            def __init__(self, prices: Prices, tries: int = 3) -> None:
                self.prices, self.tries = prices, tries

            @on(Job)
            async def quote(self, job: Job, log: Log, ctx: Context) -> None:
                log.seen.append(await self.prices.quote() * self.tries)

        self.component = Quoting

    async def opened(self, name: str, what: Any) -> AsyncIterator[Any]:
        self.told.append(f"open {name}")
        yield what
        self.told.append(f"close {name}")
        if name == "prices":
            self.close()


async def test_a_component_is_given_what_its_init_asks_for_and_keeps_its_defaults() -> None:
    shop = Shop()
    async with shop.app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
        assert sim.state(shop.component, "a").seen == [21]


async def test_resources_are_opened_behind_those_they_ask_for_and_closed_in_reverse_after_the_drain() -> None:
    shop, disk = Shop(), Disk()
    async with disk.node(shop.app) as node:
        assert shop.told == ["open pool", "open prices"]
        await node.send(Job())
        shop.close = lambda: shop.told.append(f"{disk.storage.partitions[0].head.ledger.done} done")
    assert shop.told == ["open pool", "open prices", "close prices", "1 done", "close pool"]


async def test_a_store_that_is_opened_again_keeps_the_resources() -> None:
    shop, disk = Shop(), Disk()
    async with disk.node(shop.app) as node:
        disk.fail_at(CrashPoint.EXECUTE)
        with pytest.raises(NotAcceptedError):
            await node.send(Job())
        await asyncio.sleep(1)
        await node.send(Job())
    assert shop.told == ["open pool", "open prices", "close prices", "close pool"]


async def test_resources_are_closed_when_the_store_cannot_be_opened_and_when_the_block_fails() -> None:
    shop, disk = Shop(), Disk()
    disk.fail_at(CrashPoint.EXECUTE)
    with pytest.raises(StoreError):
        async with disk.node(shop.app):
            raise AssertionError
    assert shop.told == ["open pool", "open prices", "close prices", "close pool"]
    with pytest.raises(RuntimeError, match="the block fails"):
        async with disk.node(shop.app):
            raise RuntimeError("the block fails")
    assert shop.told[4:] == ["open pool", "open prices", "close prices", "close pool"]


async def test_of_a_resource_that_fails_to_open_the_node_says_which_and_where_and_closes_the_others() -> None:
    shop = Shop()

    @shop.app.resource
    async def sms(prices: Prices) -> AsyncIterator[Done]:
        raise ConnectionRefusedError("port 25")
        yield Done()

    with pytest.raises(
        ResourceError, match=r"resource sms \(.*test_resources.py:\d+\) could not be opened: .*: port 25"
    ) as found:
        async with Disk().node(shop.app):
            raise AssertionError
    assert shop.told == ["open pool", "open prices", "close prices", "close pool"]
    assert (found.value.name, type(found.value.__cause__)) == ("sms", ConnectionRefusedError)
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value), "a worker of `genesis simulate` raises it too"


async def test_a_resource_that_yields_nothing_was_not_opened() -> None:
    app = Shop().app

    @app.resource
    async def empty() -> AsyncIterator[Done]:
        if not app:
            yield Done()

    with pytest.raises(ResourceError, match=r"empty .* could not be opened: it ended without a yield"):
        async with Disk().node(app):
            raise AssertionError


async def test_what_fails_at_a_close_is_logged_and_the_others_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()

    def fail() -> None:
        raise OSError("the line is dead")

    shop.close = fail
    with caplog.at_level(logging.ERROR, logger="genesis"):
        async with Disk().node(shop.app):
            pass
    assert "resource prices failed to close: OSError: the line is dead" in caplog.text
    assert shop.told[-1] == "close pool"


async def test_a_resource_that_hangs_at_its_close_is_given_up_and_the_others_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop, loop = Shop(), asyncio.get_running_loop()

    @shop.app.resource
    async def slow(pool: Pool) -> AsyncIterator[Done]:
        yield Done()
        await asyncio.sleep(3600)

    async with Disk().node(shop.app):
        begin = loop.time()
    assert CLOSE_S <= loop.time() - begin < CLOSE_S + 1
    assert "resource slow failed to close: TimeoutError" in caplog.text
    assert shop.told[-2:] == ["close prices", "close pool"]


async def test_a_second_yield_is_said_to_be_wrong(caplog: pytest.LogCaptureFixture) -> None:
    app = Shop().app

    @app.resource
    async def twice() -> AsyncIterator[Done]:
        yield Done()
        yield Done()

    async with Disk().node(app):
        pass
    assert "resource twice yields twice" in caplog.text


async def test_whoever_is_interrupted_while_resources_close_closes_them_all_the_same() -> None:
    shop, closing = Shop(), asyncio.Event()

    @shop.app.resource
    async def slow(pool: Pool) -> AsyncIterator[Done]:
        yield Done()
        closing.set()
        await asyncio.sleep(3600)

    async def serve() -> None:
        async with Disk().node(shop.app):
            pass

    serving = asyncio.get_running_loop().create_task(serve())
    await closing.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert shop.told[-2:] == ["close prices", "close pool"]


# --- in simulations and tests ---------------------------------------------------------------------------------------


async def test_resources_open_in_virtual_time_for_each_process_of_a_simulation() -> None:
    app, opened = App("slow"), list[float]()

    @app.resource
    async def prices() -> AsyncIterator[Prices]:
        await asyncio.sleep(3.0)
        opened.append(asyncio.get_running_loop().time() // 1)
        yield Prices()

    @app.component
    class Quoting:
        def __init__(self, prices: Prices) -> None:
            self.prices = prices

        @on(Job)
        async def quote(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=self.prices.price))

    async with app.simulate() as sim:
        await sim.send(Job())
        await sim.crash()
        await sim.settle()
        assert [done.n for done in sim.emitted(Done)] == [7]
    assert opened == [3.0, 6.0]


async def test_an_instance_takes_the_place_of_a_resource_and_of_what_only_that_one_asked_for() -> None:
    shop = Shop()
    async with shop.app.simulate(resources={Prices: Prices(100)}) as sim:
        await sim.send(Job())
        await sim.settle()
        assert sim.state(shop.component, "a").seen == [300]
    assert shop.told == []


async def test_a_generator_function_takes_the_place_of_a_resource_anew_in_each_world() -> None:
    shop, made = Shop(), list[Prices]()

    class Cheap(Prices):
        pass

    async def cheap() -> AsyncIterator[Cheap]:
        made.append(cheapest := Cheap(1))
        yield cheapest

    async def scenario(sim: Any) -> None:
        await sim.send(Job())

    await shop.app.explore(scenario, runs=2, faults=0, resources={Prices: cheap})
    assert len(made) >= 2
    assert shop.told == []


async def test_what_nobody_provides_can_be_handed_in() -> None:
    app = App("host")

    @app.component
    class Quoting:
        def __init__(self, *, prices: Prices) -> None:
            self.prices = prices

        @on(Job)
        async def quote(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=self.prices.price))

    async with app.simulate(resources={Prices: Prices(9)}) as sim:
        await sim.send(Job())
        await sim.settle()
        assert [done.n for done in sim.emitted(Done)] == [9]


async def test_a_resource_that_cannot_be_opened_ends_a_simulation_with_its_error() -> None:
    shop = Shop()

    async def broken() -> AsyncIterator[Prices]:
        raise OSError("no network here")
        yield Prices()

    with pytest.raises(ResourceError, match="no network here"):
        async with shop.app.simulate(resources={Prices: broken}):
            raise AssertionError


def test_what_nobody_asks_for_cannot_be_given() -> None:
    class Price:
        pass

    with pytest.raises(DefinitionError, match=r"nobody asks for Price, which was given; did you mean Prices\?"):
        Shop().app.simulate(resources={Price: Price()})


# --- what is written wrong ------------------------------------------------------------------------------------------

Spare = NewType("Spare", Prices)


async def test_a_second_one_of_a_type_is_told_apart_by_a_new_type_and_a_dataclass_asks_by_its_fields() -> None:
    shop = Shop()

    @shop.app.resource
    async def spare() -> AsyncIterator[Spare]:
        yield Spare(Prices(1))

    @shop.app.component
    @dataclass
    class Both:
        prices: Prices
        spare: Spare

        @on(Job)
        async def quote(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=self.prices.price - self.spare.price))

    async with shop.app.simulate() as sim:
        await sim.send(Job())
        await sim.settle()
        assert [done.n for done in sim.emitted(Done)] == [6]


def asking(kind: str) -> App:
    """An application with a component that asks for a type of this name."""
    app = Shop().app
    made: dict[str, Any] = {"app": app, "Prices": Prices, "Any": Any}
    source = f"""
from genesis import Context, on
from tests.unit.runtime.support import Job
class Lonely: ...
class Price: ...
@app.component
class Asking:
    def __init__(self, it{kind}) -> None: ...
    @on(Job)
    async def job(self, job: Job, ctx: Context) -> None: ...
"""
    exec(compile(source, "asking.py", "exec"), made)
    return app


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            ": Lonely",
            "asking.py:8: Asking.__init__ asks for it: Lonely, and nobody provides one\n    write: @app.resource\n"
            "           async def it() -> AsyncIterator[Lonely]:",
        ),
        (
            ": Price",
            "asking.py:8: Asking.__init__ asks for it: Price, and nobody provides one; did you mean Prices?"
            "\n    write: it: Prices",
        ),
        (": object", "did you mean Prices?"),
        ("", "asking.py:8: Asking.__init__ takes it, which has no type"),
        (": Any", "takes it, which has the type Any"),
        (": Prices | None", "which has the type"),
        (": 'Prise'", "asking.py:8: Asking.__init__ names a type that is not known here: name 'Prise' is not defined"),
    ],
)
def test_what_nobody_can_give_is_said_with_its_line_and_what_to_write(kind: str, said: str) -> None:
    with pytest.raises(DefinitionError) as found:
        asking(kind).definition()
    assert said in str(found.value)


def test_two_resources_of_one_type_name_each_other() -> None:
    shop = Shop()

    @shop.app.resource
    async def other() -> AsyncIterator[Prices]:
        yield Prices()

    with pytest.raises(DefinitionError, match=r"test_resources.py:\d+: other provides Prices, and so does prices at .*:\d+"):
        shop.app.definition()


def test_a_cycle_is_told_as_a_way() -> None:
    app = asking(" = 1")

    @app.resource
    async def one(two: Job) -> AsyncIterator[Message]:
        yield Job()

    @app.resource
    async def two(one: Message) -> AsyncIterator[Job]:
        yield Job()

    @app.resource
    async def three(one: Message) -> AsyncIterator[State]:
        yield State()

    with pytest.raises(DefinitionError, match="resources that ask for each other cannot be opened: one -> two -> one"):
        app.definition()


def test_a_cycle_that_nobody_else_asks_for_is_found_too() -> None:
    app = asking(" = 1")

    @app.resource
    async def one(one: Job) -> AsyncIterator[Job]:
        yield Job()

    with pytest.raises(DefinitionError, match="cannot be opened: one -> one"):
        app.definition()


async def plain() -> Prices:
    return Prices()


async def silent():  # type: ignore[no-untyped-def]
    yield Prices()


async def unclear() -> AsyncIterator[Prices | None]:
    yield None


async def single() -> Prices:  # type: ignore[misc]
    yield Prices()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (plain, r"test_resources.py:\d+: plain is no async generator"),
        (
            silent,
            r"test_resources.py:\d+: silent does not say what it yields\n    write: async def silent\(\) -> AsyncIterator",
        ),
        (unclear, r"unclear yields .*: one type that it is asked for by"),
        (single, r"single yields Prices: one type"),
        (Prices, "Prices is no async generator"),
    ],
)
def test_a_resource_that_is_none_is_refused_where_it_is_written(function: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        App("shop").resource(function)


def test_a_module_has_resources_for_the_whole_application() -> None:
    shop, module = Shop(), Module("extra")

    @module.resource
    async def other() -> AsyncIterator[Done]:
        yield Done()

    @shop.app.component
    class Asking:
        def __init__(self, done: Done) -> None: ...

        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="nobody provides one"):
        shop.app.definition()
    shop.app.include(module)
    shop.app.definition()
