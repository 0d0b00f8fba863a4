"""What stands behind a request on its connection, or behind its head: the rest of a body, trailers, nonsense, an end."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.test_http_clients import BODY, DEADLINE_S, LIVEZ, POST, WHOLE, impatient, open_door, real, said

__all__ = ["impatient"]
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
QUESTION = b'{"sku": "tea", "slow_s": 0.1}'
TAKE = b"POST /ask/take HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(QUESTION), QUESTION)


@pytest.mark.parametrize("behind", [b"\x00nonsense\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n", POST + b"content-length: x\r\n\r\n"])
@real
async def test_a_good_request_is_answered_although_nonsense_comes_behind(behind: bytes) -> None:
    async with open_door() as place:
        for good in (WHOLE, TAKE, WHOLE + TAKE):
            answers = await said(place, good + behind)
            statuses = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
            assert statuses == [202 if good.startswith(WHOLE) else 200, *([200] if good == WHOLE + TAKE else []), 400]
            assert b"connection: close" in answers


@real
async def test_a_good_request_is_answered_although_the_next_one_is_cut() -> None:
    async with open_door() as place:
        for cut in (WHOLE[:-3], POST, b"\r\n"):
            answers = await said(place, TAKE + cut, end=True)
            assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("broken", [b"zz\r\n", b"e\r\n" + BODY + b"x\r\n0\r\n\r\n"])
@real
async def test_a_body_that_breaks_is_told(broken: bytes) -> None:
    async with open_door() as place:
        assert (await said(place, POST + b"transfer-encoding: chunked\r\n\r\n" + broken)).startswith(b"HTTP/1.1 400 ")
        whole = POST.replace(b"/events", b"/nope") + b"transfer-encoding: chunked\r\n\r\n"
        assert (await said(place, whole, broken)).count(b"HTTP/1.1 ") == 1, "one answer a request"


@real
async def test_trailers_are_no_headers() -> None:
    late = POST.replace(b"ce-id: 1\r\n", b"") + CHUNKED
    async with open_door() as place:
        for parts in ((late + b"ce-id: 7\r\n\r\n",), (late, b"ce-id: 7\r\n\r\n")):
            assert b"headers are missing: ce-id" in await said(place, *parts, end=True)


@pytest.mark.parametrize("bomb", [b"a: b\r\n" * 20_000, b"a: " + b"b" * (1 << 20)])
@real
async def test_a_bomb_of_trailers_is_refused(bomb: bytes) -> None:
    async with open_door() as place:
        answer = await said(place, POST + CHUNKED, *(bomb[i : i + 8192] for i in range(0, len(bomb), 8192)))
        assert answer[:13] in (b"", b"HTTP/1.1 431 "), answer[:200]
        assert b"200 OK" in await said(place, LIVEZ)


@pytest.mark.parametrize("other", [b"h2c", b"websocket", b"TLS/1.0"])
@real
async def test_a_client_that_asks_for_another_protocol_keeps_its_body(other: bytes) -> None:
    """As those that would speak HTTP/2 do, the HTTP client of Java and `curl --http2` among them."""
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AAMAAABk\r\n" % other
    async with open_door() as place:
        for number, frame in enumerate((b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY), CHUNKED + b"\r\n")):
            whole = POST.replace(b"ce-id: 1", b"ce-id: %d" % number) + upgrade + frame
            for at in (len(whole), len(whole) - 4, len(whole) - len(frame)):
                answers = await said(place, whole[:at], whole[at:] + LIVEZ)
                assert answers.startswith(b"HTTP/1.1 202 ")
                assert answers.endswith(b"ok\n"), "and what comes behind it is read"
        livez = LIVEZ.replace(b"connection: close\r\n", b"")
        answers = await said(place, livez.replace(b"\r\n\r\n", b"\r\n" + upgrade + b"\r\n") + livez + LIVEZ)
        assert answers.count(b"200 OK") == 3


@pytest.mark.parametrize("hosts", [b"", b"host: x\r\nHost: y\r\n", b"host:\r\nhost:\r\n"])
@real
async def test_a_request_has_one_host(hosts: bytes) -> None:
    async with open_door() as place:
        answer = await said(place, WHOLE.replace(b"host: x\r\n", hosts))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Host" in answer
        old = WHOLE.replace(b"host: x\r\n", b"").replace(b"HTTP/1.1", b"HTTP/1.0")
        assert (await said(place, old)).startswith(b"HTTP/1.1 202 ")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("rest", [(), (b"x",)])
@real
async def test_the_rest_of_a_body_is_not_awaited_for_ever(rest: tuple[bytes, ...]) -> None:
    async with open_door() as place:
        answer = await said(place, b"POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", *rest)
        assert answer.startswith(b"HTTP/1.1 408 ")
        told = await said(place, b"POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n", *rest)
        assert told.startswith(b"HTTP/1.1 413 "), "what is known from the head is told at once"
        assert told.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.usefixtures("impatient")
@real
async def test_an_empty_line_behind_a_request_keeps_no_connection() -> None:
    async with open_door() as place, asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(WHOLE)
        assert (await reader.readline()).startswith(b"HTTP/1.1 202 ")
        await reader.readuntil(b"}")
        writer.write(b"\r\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
