"""The service: `uvicorn examples.fastapi.api:api`, from the project's folder."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import SystemRandom
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel

from examples.fastapi.shop import CountLeft, Inventory, OrderPlaced, Reserve, app
from genesis import GenesisError, Node
from genesis.web.ingest import Door
from genesis.web.problems import problem_of

door = Door()
chance = SystemRandom()


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    sys.setswitchinterval(1e-4)  # as `genesis run` does: a busy loop gives the thread that commits its turn
    async with app.running() as node:  # settings as everywhere: GENESIS_STORE, genesis.toml, else shop.db
        api.state.node = node
        door.open(node)
        yield  # uvicorn answers what is under way before it comes back; then the node drains


api = FastAPI(title="Shop", lifespan=lifespan)
api.mount("/genesis", door)  # POST /genesis/events takes CloudEvents; /genesis/readyz, /genesis/metrics


@api.exception_handler(GenesisError)
async def problem(request: Request, error: GenesisError) -> Response:
    """All errors of Genesis, from every endpoint, as the door answers them: RFC 9457, with Retry-After where it helps."""
    status, body, media_type, headers = problem_of(error).answer(chance)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers}, media_type.decode())


async def running_node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


Running = Annotated[Node, Depends(running_node)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=1024)]


class Order(BaseModel):
    sku: str
    qty: int = 1


@api.post("/orders", status_code=202)
async def send(order: Order, node: Running, key: Key = None) -> dict[str, Any]:
    """Send: 202 means durable. Sent again with its key, it is a duplicate and counts once."""
    receipt = await node.send(OrderPlaced(order.sku, order.qty), id=key, source="/orders")
    return {"id": receipt.id, "duplicate": receipt.duplicate}


@api.post("/orders/now")
async def send_and_answer(order: Order, node: Running, key: Key = None) -> dict[str, Any]:
    """Send, and answer with what is committed behind it: the question stands after the order in the line of its sku."""
    receipt = await node.send(OrderPlaced(order.sku, order.qty), id=key, source="/orders")
    left = await node.ask(CountLeft(order.sku), deadline=5.0)
    return {"id": receipt.id, "duplicate": receipt.duplicate, "left": left}


@api.post("/reservations")
async def ask(order: Order, node: Running, key: Key = None) -> dict[str, Any]:
    """Ask: the answer comes after the commit of what was done for it. Asked again with its key, it is the same answer."""
    return {"left": await node.ask(Reserve(order.sku, order.qty), id=key, source="/reservations", deadline=5.0)}


@api.get("/stock/{sku}")
async def read(sku: str, node: Running) -> dict[str, int]:
    """Read the committed state, which costs no event."""
    stock = await node.state(Inventory, sku)
    return {"left": stock.left, "backorders": stock.backorders}
