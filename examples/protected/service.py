"""The service: `uvicorn examples.protected.service:api`, from the project's folder. No `App`, no store: one policy."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Header
from pydantic import BaseModel

from genesis import Policy
from genesis.web.asgi import AdmissionMiddleware, DeadlineMiddleware
from genesis.web.httpx import PolicyTransport

URL = os.environ.get("PRICES_URL", "http://127.0.0.1:8001")
LIST_CENTS = 500
"""What is asked for a thing whose price was never seen."""

pricing = Policy(
    "pricing", timeout_s=0.5, recovery_timeout_s=1.0, recovery_max_s=2.0
)  # prices are back seconds after a restart
seen: dict[str, int] = {}


def last_seen(request: httpx.Request) -> httpx.Response:
    """The fallback: no fresh price is better than no sale."""
    sku = request.url.path.rpartition("/")[2]
    return httpx.Response(200, json={"sku": sku, "cents": seen.get(sku, LIST_CENTS), "fresh": False})


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for name, fallback in (("prices", last_seen), ("orders", None)):  # two clients, one dependency: one policy
            http = httpx.AsyncClient(transport=PolicyTransport(pricing, fallback=fallback), base_url=URL)
            setattr(api.state, name, await stack.enter_async_context(http))
        yield


api = FastAPI(title="Sales", lifespan=lifespan)
api.add_middleware(AdmissionMiddleware, concurrency=64, queue=64, queue_s=0.5)  # more: 503 with Retry-After, at once
api.add_middleware(DeadlineMiddleware, default_s=2.0)  # outermost: who waits for a place waits until the deadline at most


class Order(BaseModel):
    sku: str


@api.get("/prices/{sku}")
async def price(sku: str) -> dict[str, Any]:
    """Always answers: with the price of now, or the last one that was seen."""
    found: dict[str, Any] = (await api.state.prices.get(f"/prices/{sku}")).json()
    if found["fresh"]:
        seen[sku] = found["cents"]
    return found


@api.post("/orders", status_code=201)
async def order(order: Order, key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> dict[str, Any]:
    """Nothing stands in for an order: while the dependency is down this is 503 with Retry-After, without a line here."""
    headers = {"Idempotency-Key": key} if key else {}  # with it the order may be sent twice; without, only if nothing was sent
    reply: httpx.Response = await api.state.orders.post("/orders", json=order.model_dump(), headers=headers)
    reply.raise_for_status()
    return dict(reply.json())


@api.get("/pricing")
async def state() -> dict[str, Any]:
    """How the dependency is."""
    return {"state": pricing.state.name, **pricing.view()}
