"""Requests and answers of HTTP, between ASGI and what a route works with.

In: ASGI's `scope` and `receive`. Out: headers as a dictionary, a body within its limits, and an `Answer` that `respond` sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from genesis.core.event import Receipt

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


class Accepted(msgspec.Struct):
    """The answer to a batch."""

    accepted: int
    duplicates: int
    events: list[Receipt]


async def respond(send: Send, answer: Answer) -> None:
    """Send an answer."""
    headers = [(b"content-type", answer.type), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def headers_of(raw: Iterable[Header]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Headers by lower-case name, and the names of those that were given more than once."""
    headers: dict[bytes, bytes] = {}
    twice: set[bytes] = set()
    for name, value in raw:
        if name in headers:
            twice.add(name)
        headers[name] = value
    return headers, twice
