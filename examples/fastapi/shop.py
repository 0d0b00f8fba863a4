"""The shop: what becomes of its orders, whoever sends them. It knows nothing of HTTP."""

from typing import Annotated

import msgspec

from genesis import App, Context, Message, Reject, Request, State, on

app = App("shop")

Quantity = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class OrderPlaced(Message, type="shop.order.placed"):
    sku: str
    qty: Quantity = 1


class Reserve(Request[int], type="shop.stock.reserve"):
    """Take some, and say how many are left."""

    sku: str
    qty: Quantity = 1


class CountLeft(Request[int], type="shop.stock.left"):
    sku: str


class Stock(State, version=1):
    left: int = 100
    backorders: int = 0


@app.component(key="sku", state=Stock)
class Inventory:
    @on(OrderPlaced)
    async def place(self, order: OrderPlaced, stock: Stock, ctx: Context) -> None:
        sent = min(order.qty, stock.left)
        stock.left -= sent
        stock.backorders += order.qty - sent

    @on(Reserve)
    async def reserve(self, wish: Reserve, stock: Stock, ctx: Context) -> int:
        if wish.qty > stock.left:
            raise Reject(f"{stock.left} of {wish.sku} are left")
        stock.left -= wish.qty
        return stock.left

    @on(CountLeft)  # not read_only: it waits its turn behind the orders of its sku, and so counts them
    async def count(self, question: CountLeft, stock: Stock, ctx: Context) -> int:
        return stock.left
