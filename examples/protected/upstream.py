"""What the service depends on: `uvicorn examples.protected.upstream:api --port 8001`. It is flaky, and can be killed."""

from itertools import count
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from genesis.runtime.scope import remaining_s
from genesis.web.asgi import DeadlineMiddleware

FAILS_EVERY = 7
api = FastAPI(title="Prices")
api.add_middleware(DeadlineMiddleware)
asked = count(1)


class Order(BaseModel):
    sku: str


@api.get("/prices/{sku}")
async def price(sku: str) -> dict[str, Any]:
    """A price, and how long the answer is of use to who asked."""
    if next(asked) % FAILS_EVERY == 0:
        raise HTTPException(503, "flaky")
    return {"sku": sku, "cents": 450, "fresh": True, "left_s": remaining_s()}


@api.post("/orders", status_code=201)
async def order(order: Order) -> dict[str, Any]:
    return {"sku": order.sku, "cents": 450}
