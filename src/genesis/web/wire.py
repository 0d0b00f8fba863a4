"""Requests and answers of HTTP, as the door works with them, whichever server they come through."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from genesis.core.event import Receipt

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Call(NamedTuple):
    """A request without its body."""

    method: str
    path: str
    """Decoded, below the path that the door is mounted at."""
    query: bytes
    headers: dict[bytes, bytes]
    """By lower-case name."""
    twice: set[bytes]
    """Names of headers that were given more than once."""
    root: str = ""
    """The path that the door is mounted at."""


class Answer(NamedTuple):
    """What a route answers."""

    status: int
    body: bytes = b""
    type: bytes = b"application/json"
    headers: tuple[Header, ...] = ()


class Storing(NamedTuple):
    """An event on its way to the store, and what is answered when it is there."""

    stored: asyncio.Future[None]
    answer: Answer


class Accepted(msgspec.Struct):
    """The answer to a batch."""

    accepted: int
    duplicates: int
    events: list[Receipt]


def written(answer: Answer, date: bytes, *, body: bool = True) -> bytes:
    """An answer as HTTP/1.1 has it; `date` is a line of its head."""
    more = b"".join([b"%b: %b\r\n" % header for header in answer.headers]) if answer.headers else b""
    return b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        _STATUS[answer.status],
        date,
        answer.type,
        len(answer.body),
        more,
        answer.body if body else b"",
    )


async def respond(send: Send, answer: Answer) -> None:
    """Send an answer through ASGI."""
    headers = [(b"content-type", answer.type), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def headers_of(raw: Sequence[Header]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Headers by lower-case name, and the names of those that were given more than once."""
    headers = dict(raw)
    if len(headers) == len(raw):
        return headers, set()
    return headers, {name for name, count in Counter(name for name, _ in raw).items() if count > 1}
