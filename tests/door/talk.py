"""A client that sends any bytes over a real socket, and reads what comes back as HTTP.

An answer is written as `202`, or with the kind of its problem as `400 malformed-json`; a connection that was closed without
a word is `cut`. Whatever is no HTTP, or a problem that RFC 9457 would not know, is an `OddAnswerError`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

BEAT_S = 0.25
"""How often a slow client sends something."""
LIMIT_S = 45.0
"""Longer than any limit of the door."""
CUT = "cut"


class OddAnswerError(Exception):
    """What came back cannot be."""


@dataclass(frozen=True)
class Case:
    """What a client sends."""

    parts: tuple[bytes, ...]
    """One after the other, each in a call of its own."""
    end: bool = False
    """Then it says that it has sent all, and reads on."""
    drip: bytes = b""
    """Then it sends this again and again, slowly, until it is cut off."""
    reset: bool = False
    """Then it is gone, and reads nothing."""

    @property
    def method(self) -> bytes:
        return self.parts[0].partition(b" ")[0]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def told(self) -> str:
        """In short; its problem is checked to be a whole one."""
        if self.status < 400 or not self.body:
            return str(self.status)
        if self.headers.get("content-type") != "application/problem+json":
            raise OddAnswerError(f"{self.status} is no problem: {self.body[:200]!r}")
        found = self.json
        kind = found["type"].removeprefix("/problems/")
        if not (found["status"] == self.status and found["title"] and found["detail"] and kind):
            raise OddAnswerError(f"half a problem: {self.body[:200]!r}")
        return f"{self.status} {kind}"


async def talk(place: tuple[str, int], case: Case) -> list[Reply]:
    """Send, and read until the door closes. Raises OddAnswerError, and TimeoutError when it does not."""
    loop = asyncio.get_running_loop()
    with socket.socket() as link:
        link.setblocking(False)
        async with asyncio.timeout(LIMIT_S):
            await loop.sock_connect(link, place)
            if case.reset:
                await _send(link, case)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return []
            reading = loop.create_task(_read(link))
            try:
                await _send(link, case)
                while case.drip and not reading.done():
                    await asyncio.wait({reading}, timeout=BEAT_S)
                    with suppress(OSError):
                        await loop.sock_sendall(link, case.drip)
                return replies(await reading, case.method)
            finally:
                reading.cancel()
                await asyncio.wait({reading})


async def _send(link: socket.socket, case: Case) -> None:
    with suppress(OSError):  # it was cut off: what it was told is still there to read
        for part in case.parts:
            await asyncio.get_running_loop().sock_sendall(link, part)
        if case.end:
            link.shutdown(socket.SHUT_WR)


async def _read(link: socket.socket) -> bytes:
    found = bytearray()
    with suppress(OSError):
        while some := await asyncio.get_running_loop().sock_recv(link, 1 << 16):
            found += some
    return bytes(found)


def replies(raw: bytes, method: bytes = b"") -> list[Reply]:
    """The answers in what came back; those that only say to go on (1xx) are left out."""
    found = []
    while raw:
        head, ended, raw = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not ended or version != "HTTP/1.1" or not rest[:3].isdigit():
            raise OddAnswerError(f"no HTTP: {head[:200]!r}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = 0 if method == b"HEAD" else int(headers.get("content-length", "0"))
        if len(raw) < length:
            raise OddAnswerError(f"{lines[0]}: {len(raw)} bytes of {length}")
        body, raw = raw[:length], raw[length:]
        if rest[0] != "1":
            found.append(Reply(int(rest[:3]), headers, body))
    return found


def accepted(reply: Reply) -> int:
    """How many events an answer says yes to; duplicates are none."""
    if reply.status != 202:
        return 0
    told = reply.json
    return int(told["accepted"]) if "accepted" in told else int(not told["duplicate"])
