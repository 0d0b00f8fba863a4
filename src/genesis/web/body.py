"""The body of a request, within its limits of size and time."""

from __future__ import annotations

import asyncio

from genesis.web.problems import Problem
from genesis.web.wire import Receive

BODY_BYTES = 1 << 20
"""Largest body: what the strictest engine takes in one atomic step, so that no larger event could be accepted anyway."""
BODY_S = 10.0
"""Time in which a body must have come: a megabyte at 1 Mbit/s. A client that takes longer holds a connection for nothing."""
PASSED_OVER_BYTES = 8 << 20
"""A body that is too large is read up to this and dropped: a client that is cut off while it sends never sees why."""


class GoneError(Exception):
    """The client left before its request was whole: nobody waits for an answer."""


def check_head(headers: dict[bytes, bytes]) -> None:
    """Refuse a body by what its head says of it.

    Raises:
        Problem: it is compressed, or so large that it is not worth waiting for its end.
    """
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        detail = f"a body in {coding.decode('latin-1')[:40]!r} is not unpacked: send it as it is"
        raise Problem("wrong-content-type", detail, headers=[(b"accept-encoding", b"identity")])
    text = headers.get(b"content-length", b"0")
    length = int(text) if text.isdigit() and len(text) < 20 else 0
    if length > BODY_BYTES and (length > PASSED_OVER_BYTES or headers.get(b"expect", b"").lower() == b"100-continue"):
        raise too_large(length)


async def read_body(receive: Receive) -> bytes:
    """The whole body, from ASGI.

    Raises:
        Problem: it is too large, or too slow.
        GoneError: the client left.
    """
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(receive)
    except TimeoutError:
        raise too_slow() from None


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise GoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > PASSED_OVER_BYTES:
            raise too_large(size)
        if size <= BODY_BYTES:
            parts.append(part)
    if size > BODY_BYTES:
        raise too_large(size)
    return b"".join(parts)


def too_large(size: int) -> Problem:
    """A body of `size` bytes, or more."""
    detail = f"a body of {size} bytes or more: at most {BODY_BYTES}; send the place of large data instead"
    return Problem("too-large", detail, close=True, limit_bytes=BODY_BYTES)


def too_slow() -> Problem:
    """A body that did not come in time."""
    detail = f"the body did not come in {BODY_S:.0f} s: send it at once"
    return Problem("body-too-slow", detail, close=True, limit_s=BODY_S)
