"""Clients that are slow, loud, many or mad, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genesis import Settings
from genesis.web import connection, server
from genesis.web.server import serving
from tests.unit.web.support import shop
from tests.unit.web.test_malformed import requests

DEADLINE_S = 20.0
EVENT = b"ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /till\r\nce-type: placed\r\ncontent-type: application/json\r\n"
BODY = b'{"sku": "tea"}'
POST = b"POST /events HTTP/1.1\r\nhost: x\r\n" + EVENT
WHOLE = POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def open_door(**more: Any) -> AsyncIterator[tuple[str, int]]:
    """A shop in memory behind its door; nothing is left of it afterwards."""
    settings = Settings(http=0, **more)
    before = asyncio.all_tasks()
    async with serving(settings) as served, shop().running("memory:", settings=settings) as node:
        served.door.open(node)
        place = urlsplit(served.url)
        yield str(place.hostname), int(place.port or 0)
        assert not node.status().imbalance
    assert asyncio.all_tasks() == before


def real(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))
        gc.collect()  # what was left open says so now

    return run


async def said(place: tuple[str, int], *parts: bytes, end: bool = False) -> bytes:
    """All that the door says to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection(*place)
    try:
        async with asyncio.timeout(DEADLINE_S):
            for part in parts:
                writer.write(part)
                await writer.drain()
            if end:
                writer.write_eof()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time, a hundredth of what they are."""
    monkeypatch.setattr(connection, "CLIENT_S", 0.1)
    monkeypatch.setattr(connection, "TURNED_AWAY_S", 0.1)
    monkeypatch.setattr(server, "LOOK_S", 0.01)
    monkeypatch.setattr("genesis.web.body.BODY_S", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("begun", [b"", b"P", POST, WHOLE + b"GET /livez HT", b"\r\n"])
@real
async def test_a_head_that_does_not_come_is_cut_off(begun: bytes) -> None:
    async with open_door() as place:
        answer = await said(place, begun)
        assert answer.count(b"HTTP/1.1") == (1 if begun.startswith(WHOLE) else 0)
        assert b"200 OK" in await said(place, LIVEZ)


@pytest.mark.usefixtures("impatient")
@real
async def test_a_connection_that_asks_nothing_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.2)
    async with open_door() as place:
        answer = await said(place, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" not in answer


@pytest.mark.usefixtures("impatient")
@real
async def test_a_body_that_does_not_come_is_told_and_cut_off() -> None:
    async with open_door() as place:
        answer = await said(place, POST + b"content-length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer
        assert b"/problems/body-too-slow" in answer


@pytest.mark.usefixtures("impatient")
@real
async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "AHEAD_MAX", 1_000_000)  # else this one would be for another reason
    async with open_door() as place:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, place)
        _, writer = await asyncio.open_connection(sock=small, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        many = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 20

        async def ask_on() -> None:
            while True:
                writer.write(many)
                await writer.drain()

        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ConnectionError):
                await ask_on()
        writer.transport.abort()
        assert b"200 OK" in await said(place, LIVEZ)


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\na: " + b"b" * (1 << 20),
        b"GET /livez HTTP/1.1\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"x" * (1 << 20),
        b"GET /livez?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
@real
async def test_a_bomb_of_headers_is_refused(bomb: bytes) -> None:
    async with open_door() as place:
        answer = await said(place, *(bomb[i : i + 8192] for i in range(0, len(bomb), 8192)))
        assert answer[:13] in (b"", b"HTTP/1.1 431 ", b"HTTP/1.1 400 "), answer[:200]
        assert b"200 OK" in await said(place, LIVEZ)


@real
async def test_a_client_that_has_sent_all_still_gets_its_answer() -> None:
    async with open_door() as place:
        answer = await said(place, WHOLE, end=True)
        assert answer.startswith(b"HTTP/1.1 202 ")
        body = b'{"sku": "tea", "slow_s": 0.1}'
        ask = b"POST /ask/take HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        answer = await said(place, ask + body, end=True)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer


@real
async def test_a_client_that_ends_in_its_body_gets_none() -> None:
    async with open_door() as place:
        assert await said(place, WHOLE[:-3], end=True) == b""
        assert b"200 OK" in await said(place, LIVEZ)


@real
async def test_one_request_behind_the_other() -> None:
    async with open_door() as place:
        answer = await said(place, WHOLE * 3 + LIVEZ)
        assert answer.count(b"HTTP/1.1 202 ") == 3
        assert answer.count(b"genesis-duplicate: true") == 2
        assert answer.endswith(b"ok\n")


@real
async def test_a_client_that_sends_far_ahead_of_its_answers_is_cut_off() -> None:
    async with open_door() as place:
        body = b'{"sku": "tea", "slow_s": 0.1}'
        slow = b"POST /ask/take HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        ahead = LIVEZ.replace(b"connection: close\r\n", b"") * 50
        assert (await said(place, slow + ahead, end=True)).count(b"200 OK") == 51
        told = await said(place, slow + ahead * 3, end=True)
        assert told.count(b"200 OK") == 1 + connection.AHEAD_MAX
        assert told.count(b"HTTP/1.1 400 ") == 1
        told = await said(place, ahead * 3, end=True)
        assert told.count(b"200 OK") == connection.TURN + connection.AHEAD_MAX, "others have their turn meanwhile"


@real
async def test_what_comes_behind_the_last_request_is_dropped() -> None:
    async with open_door() as place:
        last = WHOLE.replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")
        more = WHOLE.replace(b"ce-id: 1", b"ce-id: 2")
        for first in (LIVEZ, last):
            answer = await said(place, first + more)
            assert answer.count(b"HTTP/1.1 ") == 1
        assert b"genesis-duplicate" not in await said(place, more + LIVEZ)
        assert b"200 OK" in await said(place, LIVEZ)


@real
async def test_above_the_limit_of_connections_clients_are_told_or_cut_off() -> None:
    async with open_door(http_connections=2) as place:
        held = [await asyncio.open_connection(*place) for _ in range(2)]
        for reader, writer in held:
            writer.write(WHOLE)
            assert (await reader.readline()).startswith(b"HTTP/1.1 202")
        answer = await said(place, WHOLE)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"/problems/too-many-connections" in answer
        assert b"retry-after: " in answer
        more = [await asyncio.open_connection(*place) for _ in range(2)]
        assert await said(place, WHOLE) == b""
        for _, writer in held + more:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(DEADLINE_S):
            while not (await said(place, LIVEZ)).startswith(b"HTTP/1.1 200"):
                pass


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff\xfe\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET http://x/livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET //livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        POST + b"transfer-encoding: nonsense\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        WHOLE.replace(b"ce-id: 1", b"ce-id: \xff") + LIVEZ,
        WHOLE.replace(b"ce-id: 1", b"ce-id: \x00"),
        WHOLE.replace(b"ce-id: 1", b"ce id: 1"),
    ],
)
@real
async def test_nonsense_is_never_an_error_of_the_server(nonsense: bytes) -> None:
    async with open_door() as place:
        answer = await said(place, nonsense, end=True)
        assert b"HTTP/1.1 5" not in answer
        assert b"Traceback" not in answer
        assert b"200 OK" in await said(place, LIVEZ)


def as_bytes(request: tuple[str, str, list[tuple[bytes, bytes]], bytes]) -> bytes:
    method, path, headers, body = request
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n".encode("utf-8", "surrogatepass")
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers if name not in (b"content-length", b"expect"))
    return head + lines + b"content-length: %d\r\n\r\n" % len(body) + body


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(requests(), st.integers(0, 400), st.binary(max_size=3)), min_size=8, max_size=12))
def test_malformed_requests_over_sockets(drawn: list[Any]) -> None:
    """Requests that are wrong as events, and some of whose bytes were replaced on the way."""

    async def send() -> None:
        async with open_door() as place:
            for request, at, replaced in drawn:
                raw = as_bytes(request)
                if at % 3 == 0:
                    raw = raw[:at] + replaced + raw[at + len(replaced) :]
                answer = await said(place, raw, end=True)
                assert b"HTTP/1.1 5" not in answer, answer
            assert b"200 OK" in await said(place, LIVEZ)

    asyncio.run(send())
    gc.collect()
