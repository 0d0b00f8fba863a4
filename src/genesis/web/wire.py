"""Requests and answers of HTTP, between ASGI and what a route works with.

In: ASGI's `scope` and `receive`. Out: headers as a dictionary, a body within its limits, and an `Answer` that `respond` sends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """What a route answers."""

    status: int
    body: bytes = b""
    type: bytes = b"application/json"
    headers: tuple[Header, ...] = ()


class Whole(Protocol):
    """A request whose parts need not be passed one by one: what our own connections offer beside `receive` and `send`."""

    def body(self) -> bytes | None:
        """The body, when all of it is there."""
        ...

    def answer(self, answer: Answer) -> bool:
        """Send an answer in one piece. False: not now, `send` it."""
        ...


WHOLE = "genesis.whole"
"""The extension of ASGI by which a `Whole` is found in a scope."""


def whole_of(scope: Scope) -> Whole | None:
    """The request in one piece, if its server offers that."""
    found: Whole | None = scope["extensions"].get(WHOLE) if "extensions" in scope else None
    return found


async def respond(scope: Scope, send: Send, answer: Answer) -> None:
    """Send an answer."""
    whole = whole_of(scope)
    if whole is not None and whole.answer(answer):
        return
    headers = [(b"content-type", answer.type), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def headers_of(raw: Sequence[Header]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Headers by lower-case name, and the names of those that were given more than once."""
    headers = dict(raw)
    if len(headers) == len(raw):
        return headers, set()
    return headers, {name for name, count in Counter(name for name, _ in raw).items() if count > 1}
