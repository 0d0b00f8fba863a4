"""What the tests of the HTTP door share: a shop, and a client that calls the ASGI application without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from genesis import App, Context, Message, Node, Priority, Reject, Request, State, UnavailableError, on
from genesis.web.ingest import Door
from tests.unit.runtime.support import Disk

JSON = "application/json"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/till", "ce-type": "placed", "content-type": JSON}


class Placed(Message, type="placed", priority=Priority.NORMAL):
    sku: str
    qty: int = 1


class Ping(Message, type="ping"):
    pass


class Odd(Message, type="odd"):
    pass


class Take(Request[int], type="take"):
    sku: str
    slow_s: float = 0.0


class Level(Request[int], type="level"):
    sku: str


class Stock(State, version=1):
    left: int = 100


def shop() -> App:
    app = App("shop")

    @app.component(key="sku", state=Stock)
    class Inventory:
        seen: list[tuple[Any, ...]] = []  # noqa: RUF012 - of the class that this call made

        @on(Placed)
        async def placed(self, order: Placed, stock: Stock, ctx: Context) -> None:
            self.seen.append((order.sku, ctx.event_id, ctx.source, ctx.priority, ctx.headers))
            if order.sku == "down":
                raise UnavailableError("warehouse", 1000.0)
            stock.left -= order.qty

        @on(Odd, key=lambda odd: str(1 // 0))
        async def odd(self, odd: Odd, stock: Stock, ctx: Context) -> None:
            pass

        @on(Take)
        async def take(self, take: Take, stock: Stock, ctx: Context) -> int:
            if take.sku == "bad":
                raise Reject("no such sku")
            await asyncio.sleep(take.slow_s)
            stock.left -= 1
            return stock.left

        @on(Level, read_only=True)
        async def level(self, level: Level, stock: Stock, ctx: Context) -> int:
            if level.sku == "broken":
                raise ValueError("broken")
            return stock.left

    @app.component
    class Pings:
        @on(Ping)
        async def ping(self, ping: Ping, ctx: Context) -> None:
            Inventory.seen.append(("ping",))

    app.seen = Inventory.seen  # type: ignore[attr-defined]
    return app


class Reply:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status, self.body = status, body
        self.headers = {name.decode(): value.decode() for name, value in headers}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """Of a problem, which is checked to be a whole one."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        found = self.json
        assert found["status"] == self.status
        assert found["title"]
        assert found["detail"]
        return str(found["type"].removeprefix("/problems/"))


class Client:
    def __init__(self, door: Door) -> None:
        self.door = door

    async def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | list[tuple[bytes, bytes]] | None = None,
        body: bytes | list[bytes] = b"",
        *,
        pause_s: float = 0.0,
        leave: bool = False,
        **scope: Any,
    ) -> Reply:
        """Send a request in one part, or in several with a pause before each; `leave` before the last."""
        if not isinstance(headers, list):
            headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        parts = body if isinstance(body, list) else [body]
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages[-1]["more_body"] = False
        if leave:
            messages[-1] = {"type": "http.disconnect"}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(pause_s)
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(dict(message))

        path, _, query = path.partition("?")
        whole = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers, **scope}
        await self.door(whole, receive, send)
        if not sent:
            return Reply(0, [], b"")
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        return Reply(sent[0]["status"], sent[0]["headers"], sent[1]["body"])

    async def event(self, data: Any = None, **attributes: str) -> Reply:
        """An event in binary mode; `attributes` are headers, with _ for -."""
        headers = {**EVENT, **{name.replace("_", "-"): value for name, value in attributes.items()}}
        body = data if isinstance(data, bytes) else json.dumps(data or {"sku": "tea"}).encode()
        return await self.request("POST", "/events", headers, body)

    async def structured(self, *events: dict[str, Any], batch: bool = False) -> Reply:
        media = "application/cloudevents-batch+json" if batch else "application/cloudevents+json"
        body = json.dumps(events if batch else events[0]).encode()
        return await self.request("POST", "/events", {"content-type": media}, body)

    async def ask(self, kind: str, fields: Any, **headers: str) -> Reply:
        named = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self.request("POST", f"/ask/{kind}", named, json.dumps(fields).encode())


def envelope(id: str = "1", **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/till", "type": "placed", "data": {"sku": "tea"}, **more}


@asynccontextmanager
async def opened(
    *, disk: Disk | None = None, trust: bool = False, **settings: Any
) -> AsyncIterator[tuple[Client, Node, list[Any]]]:
    """A door in front of a shop, in the time of the running loop; and what its handlers saw."""
    app = shop()
    async with (disk or Disk()).node(app, **settings) as node:
        yield Client(Door(node, trust_priority=trust, rng=Random(0))), node, app.seen  # type: ignore[attr-defined]
