"""The public API as a user writes it. Never run: mypy and basedpyright read it in `./dev lint`."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, assert_type

import msgspec

from genesis import (
    App,
    CircuitState,
    Context,
    IntakeFullError,
    Item,
    Message,
    Module,
    Policy,
    Priority,
    Receipt,
    Reject,
    Request,
    Retry,
    State,
    UnavailableError,
    every,
    migrate,
    on,
)

app = App("shop", version="1.4.0")


class OrderPlaced(Message, type="shop.order.placed", priority=Priority.HIGH):
    order_id: str
    sku: str
    qty: int = 1


class Reserved(Message, type="shop.order.reserved"):
    order_id: str
    price: float


class GetLevel(Request[int], type="shop.stock.level"):
    sku: str


class Stock(State, version=2):
    left: int = 100

    @staticmethod
    @migrate(from_version=1)
    def from_1(old: dict[str, Any]) -> dict[str, Any]:
        return {"left": old["remaining"]}


@app.sink(OrderPlaced, batch=500, per_second=50.0, timeout=10.0, retry=Retry(attempts=3), name="warehouse")
async def to_warehouse(items: Sequence[Item[OrderPlaced]], prices: dict[str, float], *, limit: int) -> None:
    for item in items:
        assert_type(item.message, OrderPlaced)
        assert_type(item.number, int)


@app.component(key="sku", state=Stock, essential=True, retry=Retry(attempts=3), order="park")
class Inventory:
    @on(OrderPlaced, timeout=2.0)
    async def reserve(self, order: OrderPlaced, stock: Stock, ctx: Context) -> None:
        if order.qty > stock.left:
            raise Reject("sold out")
        price = await ctx.once("quote", quote, type=float)
        assert_type(price, float)
        stock.left -= order.qty
        ctx.emit(Reserved(order.order_id, price), priority=Priority.CRITICAL)
        name = ctx.after(900, OrderPlaced("a", sku=order.sku), name=f"again-{order.order_id}")
        ctx.cancel(name)
        level = await ctx.ask(GetLevel(order.sku), deadline=0.5)
        assert_type(level, int)

    @on(GetLevel, read_only=True)
    async def level(self, query: GetLevel, stock: Stock, ctx: Context) -> int:
        return stock.left


@app.component
class Notifier:
    @on(Reserved, key=None)
    def notify(self, reserved: Reserved, ctx: Context) -> None:
        raise UnavailableError("sms", retry_after_s=5.0)

    @every(60)
    async def tidy(self, ctx: Context) -> None: ...


@app.source
async def orders(position: int | None) -> AsyncIterator[tuple[int, Message]]:
    yield 1, OrderPlaced("a", "tea")


@app.source(name="more-orders")
async def more(position: str | None) -> AsyncIterator[tuple[str, Message]]:
    yield "x", OrderPlaced("b", "tea", 2)


class HttpClient:
    async def get(self, path: str) -> bytes:
        return b""


@app.settings
class Shop(msgspec.Struct, frozen=True):
    url: str = "http://localhost"
    limit: Annotated[int, msgspec.Meta(ge=1)] = 10


billing = Module("billing")
app.include(billing)


@billing.resource
async def http(shop: Shop) -> AsyncIterator[HttpClient]:
    assert_type(shop.url, str)
    yield HttpClient()


@billing.component(key="order_id")
class Biller:
    def __init__(self, http: HttpClient, shop: Shop) -> None:
        self.http, self.limit = http, shop.limit

    @on(Reserved)
    async def bill(self, reserved: Reserved, ctx: Context) -> None:
        assert_type(await self.http.get("/"), bytes)


assert_type(http(Shop()), AsyncIterator[HttpClient])
assert_type(Biller(HttpClient(), Shop()).limit, int)


async def quote(key: str) -> float:
    return 9.5


async def use() -> None:
    async with app.running(store="shop.db") as node:
        try:
            receipt = await node.send(OrderPlaced("a", "tea"), id="1", priority=Priority.LOW)
            assert_type(receipt, Receipt)
        except IntakeFullError as full:
            assert_type(full.retry_after_s, float)
        assert_type(await node.send_many([OrderPlaced("a", "tea")]), list[Receipt])
        assert_type(await node.ask(GetLevel("tea"), deadline=1.0), int)
        print(node.status().ledger.imbalance())
    async with app.running(resources={HttpClient: HttpClient(), Shop: Shop(limit=1)}):
        pass
    async with app.simulate(seed=7, resources={HttpClient: http}) as sim:
        assert_type(await sim.send(OrderPlaced("a", "tea")), Receipt)
        await sim.settle()
        assert_type(sim.emitted(Reserved), list[Reserved])
        assert_type(await sim.ask(GetLevel("tea")), int)


pricing = Policy("pricing", attempts=5, failure_on=OSError, initial=CircuitState.CLOSED)
once_only = pricing.protect(name="once")


@pricing
async def price(sku: str, *, day: int = 0) -> float:
    return 9.5


def nobody(sku: str) -> list[str]:
    return []


def host_of(sku: str) -> str:
    return sku[:1]


def is_mine(error: BaseException) -> bool:
    return "mine" in str(error)


@pricing.protect(idempotent=True, fallback=nobody, deadline=2.0, shard=host_of, retry_on=(OSError, is_mine))
async def sellers(sku: str) -> list[str]:
    return [sku]


@pricing
def parse(text: bytes) -> int:
    return len(text)


@pricing.protect(idempotent=True)
async def changes(sku: str) -> AsyncIterator[float]:
    yield 9.5


class Prices:
    @pricing.protect(idempotent=True)
    async def get(self, sku: str, retries: int = 0) -> float:
        return 9.5

    @pricing
    def cached(self, sku: str) -> float:
        return 9.5


async def protected() -> None:
    assert_type(await price("tea", day=1), float)
    assert_type(await sellers("tea"), list[str])
    assert_type(parse(b"7"), int)
    async for found in changes("tea"):
        assert_type(found, float)
    assert_type(await Prices().get("tea", retries=1), float)
    assert_type(Prices().cached("tea"), float)
    assert_type(await pricing.call(price, "tea", day=2), float)
    assert_type(await once_only.call(sellers, "tea"), list[str])
    assert_type(await pricing.call(parse, b"7"), int)
    assert_type(await pricing.guard(price("tea")), float)
    async with pricing.attempt() as attempt:
        assert_type(attempt.deadline, float)
    assert_type(pricing.state, CircuitState)
    assert_type(pricing.explain(), str)
