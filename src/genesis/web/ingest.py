"""The door: an ASGI application that takes events in for a running node, asks it, and says how it is.

It stands alone in `genesis run --http`, or is mounted in any ASGI application: ``Mount("/genesis", Door(node))``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random, SystemRandom

import msgspec

from genesis.core.errors import DrainingError, GenesisError, IntakeFullError
from genesis.core.event import Incoming, Priority, Receipt
from genesis.core.message import Message, priority_of
from genesis.runtime.log import log
from genesis.runtime.node import Node
from genesis.web.ask import ask
from genesis.web.body import GoneError, read_body
from genesis.web.cloudevents import Event, events_of
from genesis.web.health import livez, readyz
from genesis.web.metrics import METRICS_TYPE, DoorFigures, exposition
from genesis.web.problems import Problem, problem_of
from genesis.web.wire import Answer, Receive, Scope, Send, headers_of, respond

METHODS = {
    "/events": ("POST",),
    "/ask": ("POST",),
    "/livez": ("GET", "HEAD"),
    "/readyz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}
"""What is there, and how it is used; `/ask` stands for `/ask/TYPE`."""
ELSEWHERE = "other"
"""Route of what is not there, in metrics: a client cannot make labels up."""
DUPLICATE = ((b"genesis-duplicate", b"true"),)
_receipts = msgspec.json.Encoder().encode


class Door:
    """An ASGI application in front of a node.

    `trust_priority` lets clients raise the priority of an event above that of its class; else they may only lower it.
    """

    def __init__(self, node: Node | None = None, *, trust_priority: bool = False, rng: Random | None = None) -> None:
        self._node, self._trust, self._rng = node, trust_priority, rng or SystemRandom()
        self._draining = False
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._answered: Counter[tuple[str, int]] = Counter()

    def open(self, node: Node) -> None:
        """The node runs: from now on its events are taken in. Until then all is answered with 503.

        A door that was drained is open again: a server may live through its lifespan more than once, as in tests.
        """
        self._node, self._draining, self._quiet = node, False, asyncio.Event()

    async def drain(self, limit_s: float) -> int:
        """Refuse what comes from now on, and wait `limit_s` seconds at most for what is under way.

        Returns how many requests are not answered yet.
        """
        self._draining = True
        try:
            async with asyncio.timeout(limit_s):
                while self._under_way:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            log.warning("%d requests over HTTP were not answered in %s s", self._under_way, limit_s)
        return self._under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"this door speaks HTTP, not {scope['type']}")
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        route = "/ask" if path.startswith("/ask/") else path if path in METHODS and path != "/ask" else ELSEWHERE
        try:
            answer = await self._route(route, path, scope, receive)
        except GoneError:
            return
        except Problem as problem:
            answer = problem.answer(self._rng)
        except GenesisError as error:
            answer = problem_of(error).answer(self._rng)
        except Exception:
            log.exception("%s %s failed", scope["method"], route)
            answer = Problem("internal", "the log says what happened: please report it").answer(self._rng)
        self._answered[route, answer.status] += 1
        await respond(send, answer)

    async def _route(self, route: str, path: str, scope: Scope, receive: Receive) -> Answer:
        methods = METHODS.get(route)
        if methods is None:
            raise Problem("not-found", f"{path[:80]!r} is not here: POST /events, POST /ask/TYPE, /livez, /readyz, /metrics")
        if scope["method"] not in methods:
            allow = ", ".join(methods)
            raise Problem("wrong-method", f"{route} takes {allow}", headers=[(b"allow", allow.encode())])
        if route == "/livez":
            return livez()
        if route == "/readyz":
            return readyz(self._node, draining=self._draining, query=scope.get("query_string", b""))
        if route == "/metrics":
            figures = DoorFigures(self._answered, self._under_way)
            return Answer(200, exposition(self._node, figures), METRICS_TYPE)
        self._under_way += 1
        try:
            node = self._entered()
            headers, twice = headers_of(scope["headers"])
            if route == "/ask":
                return await ask(node, path.removeprefix("/ask/"), headers, await read_body(headers, receive))
            return await self._take(node, headers, twice, await read_body(headers, receive))
        finally:
            self._under_way -= 1
            if self._draining and not self._under_way:
                self._quiet.set()

    def _entered(self) -> Node:
        if self._draining:
            raise DrainingError("the node is draining: send to another, or again after the restart")
        if self._node is None:
            raise IntakeFullError("the store is being opened", 0.5)
        return self._node

    # --- events -----------------------------------------------------------------------------------------------------

    async def _take(self, node: Node, headers: dict[bytes, bytes], twice: set[bytes], body: bytes) -> Answer:
        events, batch = events_of(headers, twice, body)
        if batch:
            return await self._take_all(node, events)
        event = events[0]
        message = node.message(event.type, event.data)
        priority = self._level(message, event)
        receipt = await node.send(message, id=event.id, source=event.source, priority=priority, headers=event.headers)
        return Answer(202, _receipts(receipt), headers=DUPLICATE if receipt.duplicate else ())

    async def _take_all(self, node: Node, events: list[Event]) -> Answer:
        incoming: list[Incoming] = []
        for index, event in enumerate(events):
            try:
                message = node.message(event.type, event.data)
            except GenesisError as error:
                error.index = index
                raise
            incoming.append(Incoming(message, event.id, event.source, self._level(message, event), event.headers))
        receipts = await node.send_batch(incoming)
        duplicates = sum(receipt.duplicate for receipt in receipts)
        return Answer(202, _receipts(_Accepted(len(receipts) - duplicates, duplicates, receipts)))

    def _level(self, message: Message, event: Event) -> Priority | None:
        """The priority that the event gets: what is asked for, when it is not above its class's or the client is trusted."""
        wanted = event.priority
        if wanted is None or (not self._trust and wanted < priority_of(type(message))):
            return None
        return wanted


class _Accepted(msgspec.Struct):
    """The answer to a batch."""

    accepted: int
    duplicates: int
    events: list[Receipt]
