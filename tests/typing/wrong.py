"""What a user writes wrong must be seen by the checkers: each line below has an error, and an unused ignore is one."""

from collections.abc import Sequence

import genesis
from genesis import App, Item, Message, Policy, Request, State

app = App("shop")


class OrderPlaced(Message, type="shop.order.placed"):
    order_id: str


class GetLevel(Request[int], type="shop.stock.level"):
    sku: str


class Stock(State):
    left: int = 0


def wrong() -> None:
    print(genesis.Setings)  # type: ignore[attr-defined]
    OrderPlaced(7)  # type: ignore[arg-type]
    OrderPlaced()  # type: ignore[call-arg]
    Stock(left="a")  # type: ignore[arg-type]


@app.resource  # type: ignore[type-var]
async def no_generator() -> int:
    return 7


@app.sink(OrderPlaced)  # type: ignore[arg-type]
async def of_another(items: Sequence[Item[GetLevel]]) -> None:
    print(items)


app.include(app)  # type: ignore[arg-type]


async def wrong_answer() -> None:
    async with app.running() as node:
        level: str = await node.ask(GetLevel("tea"))  # type: ignore[arg-type]
        print(level)


pricing = Policy("pricing")


@pricing.protect(idempotent=True)
async def price(sku: str) -> float:
    return 9.5


async def wrong_calls() -> None:
    await price(7)  # type: ignore[arg-type]
    await price("tea", "coffee")  # type: ignore[call-arg]
    cents: str = await price("tea")  # type: ignore[assignment]
    await pricing.call(price)  # type: ignore[call-overload]
    whole: int = await pricing.guard(price("tea"))  # type: ignore[arg-type]
    await pricing.guard(7)  # type: ignore[arg-type]
    pricing.protect(idempotnt=True)  # type: ignore[call-arg]
    print(cents, whole)
