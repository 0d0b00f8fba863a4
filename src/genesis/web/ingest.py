"""The door: an ASGI application that takes events in for a running node, asks it, and says how it is.

It stands alone in `genesis run --http`, or is mounted in any ASGI application: ``Mount("/genesis", Door(node))``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from random import Random, SystemRandom
from typing import Any

import msgspec

from genesis.core.errors import DrainingError, GenesisError, IntakeFullError
from genesis.core.event import Incoming, Priority
from genesis.core.message import Message, priority_of
from genesis.runtime.log import log
from genesis.runtime.node import Node
from genesis.web.ask import ask
from genesis.web.body import GoneError, check_head, read_body
from genesis.web.cloudevents import Event, events_of
from genesis.web.health import livez, readyz
from genesis.web.metrics import METRICS_TYPE, DoorFigures, exposition
from genesis.web.openapi import described
from genesis.web.problems import Problem, problem_of
from genesis.web.wire import Accepted, Answer, Call, Receive, Scope, Send, Storing, headers_of, respond

METHODS = {
    "/events": ("POST",),
    "/ask": ("POST",),
    "/livez": ("GET", "HEAD"),
    "/readyz": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
    "/openapi.json": ("GET", "HEAD"),
}
"""What is there, and how it is used; `/ask` stands for `/ask/TYPE`."""
LOOKS = tuple(path for path, methods in METHODS.items() if "GET" in methods)
ELSEWHERE = "other"
"""Route of what is not there, in metrics: a client cannot make labels up."""
DUPLICATE = ((b"genesis-duplicate", b"true"),)
_encode = msgspec.json.Encoder().encode


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
        self._described: dict[str, bytes] = {}

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
        """Answer one request that comes through ASGI."""
        if scope["type"] != "http":
            raise ValueError(f"this door speaks HTTP, not {scope['type']}")
        headers, twice = headers_of([*scope["headers"]])
        root: str = scope.get("root_path", "")
        path: str = scope["path"].removeprefix(root)
        call = Call(scope["method"], path, scope.get("query_string", b""), headers, twice, root)
        try:
            check_head(headers)
            body = await read_body(receive) if call.method == "POST" else b""
        except GoneError:
            return
        except Problem as problem:
            await respond(send, self.refusal(call, problem))
            return
        begun = self.begin(call, body)
        if isinstance(begun, Storing):
            await asyncio.wait([begun.stored])
            begun = self.ended(begun)
        await respond(send, begun if isinstance(begun, Answer) else await begun)

    def begin(self, call: Call, body: bytes) -> Answer | Storing | Coroutine[Any, Any, Answer]:
        """Begin to answer a request.

        Returns the answer; or what is to be done when the event is stored, with `ended`: an event costs no task; or what
        is to be awaited.
        """
        route = _route_of(call.path)
        try:
            begun = self._begin(route, call, body)
        except Exception as error:
            return self.refusal(call, error)
        if isinstance(begun, Answer):
            return self._counted(route, begun)
        self._under_way += 1
        return begun if isinstance(begun, Storing) else self._awaited(call, begun)

    def ended(self, storing: Storing) -> Answer:
        """The answer for an event that is stored, or failed to be."""
        self._left()
        error = storing.stored.exception()
        if error is not None:
            return self._counted("/events", self._problem(error).answer(self._rng))
        return self._counted("/events", storing.answer)

    async def _awaited(self, call: Call, work: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return self._counted(_route_of(call.path), await work)
        except Exception as error:
            return self.refusal(call, error)
        finally:
            self._left()

    def refusal(self, call: Call, error: Exception) -> Answer:
        """The answer for a request that failed."""
        return self._counted(_route_of(call.path), self._problem(error, call).answer(self._rng))

    def _problem(self, error: BaseException, call: Call | None = None) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, GenesisError):
            return problem_of(error)
        log.error("%s failed", f"{call.method} {_route_of(call.path)}" if call else "POST /events", exc_info=error)
        return Problem("internal", "the log says what happened: please report it")

    def _counted(self, route: str, answer: Answer) -> Answer:
        self._answered[route, answer.status] += 1
        return answer

    def _left(self) -> None:
        self._under_way -= 1
        if self._draining and not self._under_way:
            self._quiet.set()

    def _begin(self, route: str, call: Call, body: bytes) -> Answer | Storing | Coroutine[Any, Any, Answer]:
        methods = METHODS.get(route)
        if methods is None:
            raise Problem("not-found", f"{call.path[:80]!r} is not here: POST /events, POST /ask/TYPE, {', '.join(LOOKS)}")
        if call.method not in methods:
            allow = ", ".join(methods)
            raise Problem("wrong-method", f"{route} takes {allow}", headers=[(b"allow", allow.encode())])
        if route == "/events":
            return self._take(self._entered(), call, body)
        if route == "/ask":
            return ask(self._entered(), call.path.removeprefix("/ask/"), call, body)
        if route == "/livez":
            return livez()
        if route == "/readyz":
            return readyz(self._node, draining=self._draining, query=call.query)
        if route == "/metrics":
            return Answer(200, exposition(self._node, DoorFigures(self._answered, self._under_way)), METRICS_TYPE)
        return self._description(call.root)

    def _description(self, root: str) -> Answer:
        if self._node is None:
            raise _opening()
        if root not in self._described:
            self._described[root] = _encode(described(self._node.definition, root))
        return Answer(200, self._described[root])

    def _entered(self) -> Node:
        if self._draining:
            raise DrainingError("the node is draining: send to another, or again after the restart")
        if self._node is None:
            raise _opening()
        return self._node

    # --- events -----------------------------------------------------------------------------------------------------

    def _take(self, node: Node, call: Call, body: bytes) -> Answer | Storing | Coroutine[Any, Any, Answer]:
        events, batch = events_of(call.headers, call.twice, body)
        if batch:
            return self._take_all(node, events)
        event = events[0]
        message = node.message(event.type, event.data)
        receipt, stored = node.begin(message, event.id, event.source, self._level(message, event), event.headers)
        answer = Answer(202, _encode(receipt), headers=DUPLICATE if receipt.duplicate else ())
        return answer if stored is None else Storing(stored, answer)

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
        return Answer(202, _encode(Accepted(len(receipts) - duplicates, duplicates, receipts)))

    def _level(self, message: Message, event: Event) -> Priority | None:
        """The priority that the event gets: what is asked for, when it is not above its class's or the client is trusted."""
        wanted = event.priority
        if wanted is None or (not self._trust and wanted < priority_of(type(message))):
            return None
        return wanted


def _route_of(path: str) -> str:
    if path.startswith("/ask/"):
        return "/ask"
    return path if path in METHODS and path != "/ask" else ELSEWHERE


def _opening() -> IntakeFullError:
    return IntakeFullError("the store is being opened", 0.5)
