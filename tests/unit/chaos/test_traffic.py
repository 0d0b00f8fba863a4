"""Messages that nobody wrote: of every type that msgspec knows, within the limits that their classes name."""

import asyncio
import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from msgspec import Meta

from genesis import App, Context, Message, Priority, Request, State, on
from genesis.chaos.explore import PromiseBrokenError
from genesis.chaos.traffic import NoExampleError, example, traffic
from genesis.core.message import encode


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Line(msgspec.Struct, tag=True):
    sku: str
    qty: Annotated[int, Meta(ge=1, le=5)]


class Remark(msgspec.Struct, tag=True):
    text: str
    after: int = 0


class Pair(msgspec.Struct, array_like=True, tag=True):
    left: str
    right: int = 0


class Tree(msgspec.Struct):
    left: "Tree | None" = None
    branches: list["Tree"] = []


class Endless(msgspec.Struct):
    inner: "Endless"


@dataclass
class Place:
    street: str
    number: int = 1


class Box(TypedDict):
    width: int


class Point(NamedTuple):
    x: float
    y: float


class Even(Message, type="even"):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


class Order(Message, type="order"):
    sku: str
    qty: int = 1


class Level(Request[int], type="level"):
    sku: str


class Stock(State):
    left: int = 100


TYPES = [
    bool,
    None,
    Any,
    str,
    Annotated[str, Meta(min_length=3, max_length=3)],
    Annotated[str, Meta(max_length=0)],
    bytes,
    int,
    Annotated[int, Meta(gt=3, lt=7, multiple_of=2)],
    Annotated[int, Meta(lt=-3)],
    Annotated[int, Meta(ge=10, le=10)],
    Annotated[int, Meta(description="pieces", extra={"unit": "1"})],
    float,
    Annotated[float, Meta(gt=0, lt=0.1)],
    Annotated[float, Meta(ge=0.5, multiple_of=0.5)],
    Annotated[float, Meta(le=-1)],
    decimal.Decimal,
    uuid.UUID,
    datetime.datetime,
    Annotated[datetime.datetime, Meta(tz=True)],
    Annotated[datetime.datetime, Meta(tz=False)],
    datetime.date,
    datetime.time,
    Annotated[datetime.time, Meta(tz=False)],
    datetime.timedelta,
    Colour,
    Priority,
    Literal["a", 1],
    int | None,
    Line | Remark,
    Pair,
    list[Line],
    Annotated[list[int], Meta(min_length=2, max_length=3)],
    set[int],
    frozenset[str],
    tuple[int, ...],
    tuple[int, str],
    dict[str, int],
    dict[int, list[str]],
    Place,
    Box,
    Point,
    Tree,
]


def app_of(*messages: type[Message]) -> App:
    app = App("made-up")
    for number, message in enumerate(messages):

        class Component:
            @on(message)
            async def handle(self, given: message, ctx: Context) -> Any:  # type: ignore[valid-type]
                return 0 if isinstance(given, Request) else None

        Component.handle.__annotations__["given"] = message
        app.component(name=f"component-{number}")(Component)
    return app


def routes_of(message: type[Message]) -> Any:
    (routes,) = app_of(message).definition().by_type.values()
    return routes


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_value_is_made_for_every_type(kind: Any) -> None:
    cls = type("Made", (Message,), {"__annotations__": {"field": kind}, "__module__": __name__}, type="made")
    routes = routes_of(cls)
    made = [example(routes, Random(seed)) for seed in range(50)]
    for message in made:
        assert msgspec.msgpack.decode(encode(message), type=cls) == message
    if kind in (str, int, float, uuid.UUID):
        assert 2 <= len({message.field for message in made}) <= 4, "so few that keys collide"


def test_what_a_class_checks_by_itself_is_drawn_until_it_fits() -> None:
    assert all(example(routes_of(Even), Random(seed)).number % 2 == 0 for seed in range(50))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Annotated[str, Meta(pattern="^[0-9]{4}$")], "no Made (made) can be made up: nobody can know a value for field, which"),
        (tuple[int, Annotated[str, Meta(pattern="^x$")]], "for field[], which has the pattern '^x$'"),
        (Endless, "field.inner.inner.inner.inner.inner.inner.inner is in itself without end"),
        (Annotated[int, Meta(gt=1, lt=2)], "no Made (made) can be made up: Made (made): Expected `int`"),
    ],
)
def test_what_nobody_can_know_is_named(kind: Any, said: str) -> None:
    bases: dict[str, Any] = {"__annotations__": {"field": kind}, "__module__": __name__}
    with pytest.raises(NoExampleError) as found:
        traffic(app_of(type("Made", (Message,), bases, type="made")).definition())
    assert said in str(found.value)


def test_an_app_that_only_answers_is_not_sent_anything() -> None:
    with pytest.raises(NoExampleError, match="made-up handles no messages that could be sent"):
        traffic(app_of(Level).definition())


def shop(reaches_out: bool = False) -> tuple[App, type]:
    app = App("shop")

    @app.component(key="sku", state=Stock)
    class Inventory:
        @on(Order)
        async def order(self, order: Order, stock: Stock, ctx: Context) -> None:
            if reaches_out:
                await asyncio.open_connection("127.0.0.1", 1)
            stock.left -= 1

        @on(Even, key=lambda even: str(even.number))
        async def even(self, even: Even, stock: Stock, ctx: Context) -> None:
            stock.left -= 1

        @on(Level)
        async def level(self, level: Level, stock: Stock, ctx: Context) -> int:
            return stock.left

    return app, Inventory


async def test_every_message_takes_effect_once_in_every_world() -> None:
    app, inventory = shop()
    scenario = traffic(app.definition())

    async def checked(sim: Any) -> None:
        await scenario(sim)
        await sim.settle()
        rows = [sim.state(inventory, key).left for key in ("a", "b", "c", "d", "0", "2")]
        assert sum(100 - left for left in rows) == 96

    found = await app.explore(checked, runs=5, nodes=2)
    assert found.kills > 5
    assert (found.deliveries, found.dead) == (5 * 96, 0)


async def test_a_handler_that_reaches_for_the_world_outside_is_told_and_not_counted_as_a_dead_letter() -> None:
    app, _ = shop(reaches_out=True)
    with pytest.raises(PromiseBrokenError, match="OutsideWorldError"):
        await app.explore(traffic(app.definition()), runs=1, faults=0)
