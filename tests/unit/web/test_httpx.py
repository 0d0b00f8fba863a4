"""The transport for httpx, in virtual time, in front of a server that is a function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import httpx
import pytest

from genesis.core.errors import (
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    DefinitionError,
    UnavailableError,
)
from genesis.core.signals import Step
from genesis.runtime.policy import Policy
from genesis.runtime.scope import deadline, remaining_s
from genesis.web.asgi import DeadlineMiddleware
from genesis.web.httpx import KEPT_BYTES, PolicyTransport, retry_after_s
from genesis.web.wire import Answer as Reply
from genesis.web.wire import Receive, Scope, Send, respond

URL = "http://prices.example/tea"
_names = count()
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Body(httpx.AsyncByteStream):
    """A body in parts, that knows whether it was closed."""

    def __init__(self, parts: list[bytes], pause_s: float = 0.0) -> None:
        self.parts, self.pause_s, self.closed, self.taken = parts, pause_s, False, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await asyncio.sleep(self.pause_s)
            self.taken += 1
            yield part

    async def aclose(self) -> None:
        self.closed = True


class Server(httpx.AsyncBaseTransport):
    """Gives each request the next of these: a status, a response, an error, seconds to be silent, or a function's answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.seen, self.at = list(answers), [], []  # type: ignore[var-annotated]
        self.bodies: list[Body] = []
        self.open_before: list[int] = []
        self.cancelled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.open_before.append(sum(not body.closed for body in self.bodies))
        self.seen.append(request)
        self.at.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        assert isinstance(request.stream, httpx.AsyncByteStream)
        if isinstance(answer, Exception):
            raise answer
        async for _ in request.stream:
            pass
        if isinstance(answer, float):
            try:
                await asyncio.sleep(answer)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            answer = 200
        if isinstance(answer, httpx.Response):
            return answer
        self.bodies.append(Body([str(answer).encode()]))
        return httpx.Response(answer, stream=self.bodies[-1])


def policy(**settings: Any) -> Policy:
    return Policy(f"prices-{next(_names)}", **{"backoff_s": 0.001, "backoff_max_s": 0.001, "budget_floor": 100, **settings})


def client(server: Server, of: Policy | None = None, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=PolicyTransport(of or policy(), server, **options))


# --- what is repeated -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_failure_is_tried_again_and_its_body_is_closed_before(status: int) -> None:
    server = Server(status, status, 200)
    async with client(server) as http:
        reply = await http.get(URL)
    assert (reply.status_code, reply.text) == (200, "200")
    assert server.open_before == [0, 0, 0]


@pytest.mark.parametrize("status", [200, 301, 400, 404, 409, 501])
async def test_other_statuses_are_answers(status: int) -> None:
    server, prices = Server(status), policy(failure_threshold=1)
    async with client(server, prices) as http:
        for _ in range(3):
            assert (await http.get(URL)).status_code == status
    assert len(server.seen) == 3
    assert prices.state.name == "CLOSED"


async def test_after_the_last_try_the_caller_gets_the_response_with_its_body() -> None:
    server = Server(503)
    async with client(server) as http:
        reply = await http.get(URL)
        assert (reply.status_code, reply.text, reply.is_closed) == (503, "503", True)
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            reply.raise_for_status()
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("method", "headers", "tries"),
    [
        ("HEAD", {}, 3),
        ("OPTIONS", {}, 3),
        ("PUT", {}, 3),
        ("DELETE", {}, 3),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"Idempotency-Key": "order-17"}, 3),
        ("POST", {"Idempotency-Key": ""}, 1),
    ],
)
async def test_what_would_do_harm_twice_is_not_repeated(method: str, headers: dict[str, str], tries: int) -> None:
    server = Server(503)
    async with client(server) as http:
        assert (await http.request(method, URL, headers=headers)).status_code == 503
    assert len(server.seen) == tries


async def test_which_methods_are_idempotent_may_be_said() -> None:
    server = Server(503)
    async with client(server, idempotent_methods=("post",)) as http:
        assert [(await http.request(method, URL)).status_code for method in ("POST", "GET")] == [503, 503]
    assert [request.method for request in server.seen] == ["POST", "POST", "POST", "GET"]


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full"), 429]
)
async def test_what_was_not_processed_is_repeated_for_every_method(failure: Any) -> None:
    server = Server(failure, 200)
    async with client(server) as http:
        assert (await http.post(URL, json={"sku": "tea"})).status_code == 200
    assert [request.method for request in server.seen] == ["POST", "POST"]
    assert server.seen[0] is not server.seen[1]


@pytest.mark.parametrize("failure", [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")])
async def test_what_may_have_been_processed_is_not(failure: Exception) -> None:
    server = Server(failure, 200)
    async with client(server) as http:
        with pytest.raises(type(failure)):
            await http.post(URL, json={"sku": "tea"})
        assert (await http.put(URL, json={"sku": "tea"})).status_code == 200


@pytest.mark.parametrize("failure", [503, 429, httpx.ConnectError("refused")])
async def test_a_body_that_is_a_stream_is_sent_once(failure: Any) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"

    server = Server(failure, 200)
    async with client(server) as http:
        if isinstance(failure, int):
            assert (await http.put(URL, content=parts())).status_code == failure
        else:
            with pytest.raises(httpx.ConnectError):
                await http.put(URL, content=parts())
    assert len(server.seen) == 1


async def test_a_wrong_request_is_no_failure_of_the_server() -> None:
    server, prices = Server(httpx.UnsupportedProtocol("gopher")), policy(failure_threshold=1)
    async with client(server, prices) as http:
        for _ in range(3):
            with pytest.raises(httpx.UnsupportedProtocol):
                await http.get(URL)
    assert (len(server.seen), prices.state.name) == (3, "CLOSED")


async def test_a_wrong_request_is_no_proof_that_the_server_is_well() -> None:
    server, prices = Server(httpx.LocalProtocolError("a header")), policy(recovery_timeout_s=1.0, success_threshold=1)
    prices.force_open(1.0)
    await asyncio.sleep(1.0)
    async with client(server, prices) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(URL)
    assert (len(server.seen), prices.state.name) == (1, "HALF_OPEN")


# --- waits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Tue, 24 Nov 2026 16:00:07 GMT", "date": "Tue, 24 Nov 2026 16:00:00 GMT"}, 7.0),
        ({"retry-after": "Tuesday, 24-Nov-26 16:00:07 GMT", "date": "Tue Nov 24 16:00:00 2026"}, 7.0),
        ({"retry-after": "Tue, 24 Nov 2026 16:00:07 GMT", "date": "Tue, 24 Nov 2026 17:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": ""}, 0.0),
        ({}, 0.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_the_least_wait(headers: dict[str, str], wait_s: float, status: int) -> None:
    server = Server(httpx.Response(status, headers=headers), 200)
    async with client(server) as http:
        assert (await http.get(URL)).status_code == 200
    assert server.at[1] - server.at[0] == pytest.approx(wait_s, abs=0.01)


@pytest.mark.parametrize(
    "value",
    [
        "\u0667",
        "7.5",
        "1e3",
        "Tue, 99 Nov 2026 16:00:07 GMT",
        "Tue, 24 Nov 99999999999 16:00:07 GMT",
        "x" * 10_000,
        "24 Nov",
        ":::",
        "0 0 0 0 0",
        "Tue, 24 Nov 2026 99:99:99 +9999999999999999999999",
    ],
)
async def test_a_wait_that_is_none_is_passed_over(value: str) -> None:
    found = retry_after_s(httpx.Headers({"retry-after": value.encode()}))
    assert found is None or found >= 0


async def test_a_date_is_as_far_as_our_clock_says_if_the_server_has_none() -> None:
    assert retry_after_s(httpx.Headers({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})) == 0.0
    far = retry_after_s(httpx.Headers({"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"}))
    assert far is not None
    assert far > 1e9


async def test_a_wait_that_is_longer_than_the_deadline_is_the_answer() -> None:
    server = Server(httpx.Response(429, headers={"retry-after": "60"}, text="slow down"))
    async with client(server) as http:
        with deadline(5.0):
            reply = await http.get(URL)
    assert (reply.status_code, reply.text, len(server.seen)) == (429, "slow down", 1)


# --- circuit, fallback, shards ---------------------------------------------------------------------------------------------


async def test_the_circuit_opens_refuses_and_closes_again() -> None:
    server, prices = Server(500), policy(failure_threshold=3, attempts=1, recovery_timeout_s=5.0, success_threshold=1)
    async with client(server, prices) as http:
        assert [(await http.get(URL)).status_code for _ in range(2)] == [500, 500]
        with pytest.raises(CircuitOpenError) as opened:
            await http.get(URL)
        assert isinstance(opened.value.__cause__, httpx.HTTPStatusError)
        assert opened.value.__cause__.response.status_code == 500
        with pytest.raises(CircuitOpenError):
            await http.get(URL)
        assert len(server.seen) == 3, "the fourth was not sent"
        server.answers = [200]
        await asyncio.sleep(12.0)
        assert [(await http.get(URL)).status_code for _ in range(3)] == [200, 200, 200]
        assert prices.state.name == "CLOSED"


async def test_with_raise_original_the_caller_always_gets_the_response() -> None:
    server = Server(500)
    prices = Policy(f"prices-{next(_names)}", failure_threshold=1, attempts=1, raise_original=True)
    async with client(server, prices) as http:
        assert (await http.get(URL)).status_code == 500
        with pytest.raises(UnavailableError):
            await http.get(URL)


async def test_a_fallback_stands_in() -> None:
    server = Server(httpx.ConnectError("refused"))
    async with client(server, fallback=lambda request: httpx.Response(200, json={"from": request.url.path})) as http:
        assert (await http.get(URL)).json() == {"from": "/tea"}


async def test_each_host_has_its_own_circuit() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if request.url.host == "down" else 200)

    prices = policy(failure_threshold=1, attempts=1)
    transport = PolicyTransport(prices, httpx.MockTransport(answer), shard="host")
    async with httpx.AsyncClient(transport=transport) as http:
        for _ in range(2):
            with pytest.raises(CircuitOpenError):
                await http.get("http://down/")
        assert (await http.get("http://up/")).status_code == 200
        assert (await http.get("http://up:8080/")).status_code == 200
    shards = prices.view()["shards"]
    assert isinstance(shards, dict)
    assert set(shards) == {"down", "up", "up:8080"}


# --- time -----------------------------------------------------------------------------------------------------------------


async def test_the_server_is_told_how_long_the_answer_is_of_use() -> None:
    server = Server(200)
    async with client(server) as http:
        await http.get(URL)
        with deadline(2.0):
            await http.get(URL)
            await http.get(URL, headers={"grpc-timeout": "3S"})
    assert [request.headers.get("grpc-timeout") for request in server.seen] == [None, "2000000u", "3S"]


async def test_a_second_try_is_told_what_is_left() -> None:
    server = Server(httpx.Response(503, headers={"retry-after": "1"}), 200)
    async with client(server) as http:
        with deadline(3.0):
            await http.get(URL)
    first, second = (int(request.headers["grpc-timeout"].removesuffix("u")) for request in server.seen)
    assert (first, second) == (3_000_000, pytest.approx(2_000_000, abs=2_000))


async def test_a_deadline_travels_over_two_services() -> None:
    left: list[float] = []

    async def last(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(remaining_s())
        await respond(send, Reply(200))

    async def first(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(remaining_s())
        await asyncio.sleep(0.5)
        transport = PolicyTransport(policy(), httpx.ASGITransport(DeadlineMiddleware(last)))
        async with httpx.AsyncClient(transport=transport) as http:
            await respond(send, Reply((await http.get(URL)).status_code))

    transport = PolicyTransport(policy(timeout_s=5.0), httpx.ASGITransport(DeadlineMiddleware(first)))
    async with httpx.AsyncClient(transport=transport) as http:
        with deadline(2.0):
            assert (await http.get(URL)).status_code == 200
    assert left == pytest.approx([2.0, 1.5], abs=1e-5)


async def test_the_timeouts_of_httpx_are_kept_and_bounded_by_the_deadline() -> None:
    server = Server(200)
    async with client(server) as http:
        await http.get(URL, timeout=httpx.Timeout(9.0, connect=1.0, read=None))
        with deadline(2.0):
            await http.get(URL, timeout=httpx.Timeout(9.0, connect=1.0, read=None))
    assert server.seen[0].extensions["timeout"] == {"connect": 1.0, "read": None, "write": 9.0, "pool": 9.0}
    assert server.seen[1].extensions["timeout"] == {"connect": 1.0, "read": 2.0, "write": 2.0, "pool": 2.0}


async def test_a_server_that_hangs_is_cut_off() -> None:
    server = Server(60.0)
    async with client(server, policy(timeout_s=0.5, attempts=2)) as http:
        with pytest.raises(CallTimeoutError):
            await http.get(URL)
        with pytest.raises(DeadlineExceededError), deadline(0.1):
            await http.get(URL)
    assert server.cancelled == len(server.seen) == 3


async def test_a_failure_whose_body_does_not_end_is_a_failure_in_time() -> None:
    body = Body([b"x"] * 100, pause_s=0.4)
    server = Server(httpx.Response(500, stream=body), 200)
    async with client(server, policy(timeout_s=1.0)) as http:
        assert (await http.get(URL)).status_code == 200
    assert body.closed


async def test_of_a_large_body_of_a_failure_only_so_much_is_read() -> None:
    body = Body([b"x" * 1000] * 10_000)
    async with client(Server(httpx.Response(500, stream=body)), policy(attempts=1)) as http:
        reply = await http.get(URL)
    assert KEPT_BYTES <= len(reply.content) < KEPT_BYTES + 1000
    assert (body.taken, body.closed) == (66, True)


async def test_the_call_ends_when_the_head_is_there() -> None:
    body = Body([b"x"] * 10, pause_s=5.0)
    prices = policy(timeout_s=1.0, concurrency=1)
    async with client(Server(httpx.Response(200, stream=body), 200), prices) as http, http.stream("GET", URL) as reply:
        assert prices.view()["under_way"] == 0
        assert (await http.get(URL)).status_code == 200, "its place is free while the body is read"
        assert len(await reply.aread()) == 10
    assert body.closed


# --- copies and cancellation ------------------------------------------------------------------------------------------------


@pytest.fixture
def learned() -> Callable[[Server], Awaitable[tuple[httpx.AsyncClient, Policy]]]:
    """A client that has learned how long a call takes, so that it makes copies of slow ones."""

    async def learn(server: Server) -> tuple[httpx.AsyncClient, Policy]:
        prices = policy(hedge_share=1.0, budget_share=1.0)
        http = client(server, prices)
        for n in range(100):
            server.answers = [0.01 + 0.0001 * (n * 37 % 100)]
            await http.get(URL)
        await asyncio.sleep(1.0)
        await http.get(URL)
        server.seen.clear()
        server.cancelled = 0  # copies that lost
        return http, prices

    return learn


async def test_a_copy_has_a_request_of_its_own_and_the_slow_one_is_closed(learned: Any) -> None:
    server = Server(200)
    http, prices = await learned(server)
    slow, quick = httpx.Response(200, stream=Body([b"slow"])), httpx.Response(200, stream=Body([b"quick"]))

    async def late(response: httpx.Response, after_s: float) -> httpx.Response:
        try:
            await asyncio.sleep(after_s)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)  # it answers although it was cancelled
        return response

    class Late(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            server.seen.append(request)
            return await (late(slow, 0.3) if len(server.seen) == 1 else late(quick, 0.001))

    http._transport._transport = Late()
    with deadline(0.9):
        reply = await http.put(URL, content=b"body")
    assert reply.text == "quick"
    assert prices.counts[Step.HEDGE_WON] == 1
    first, copy = server.seen
    assert first is not copy
    assert first.headers is not copy.headers
    assert int(copy.headers["grpc-timeout"].removesuffix("u")) < int(first.headers["grpc-timeout"].removesuffix("u"))
    assert [await request.aread() for request in server.seen] == [b"body", b"body"]
    await asyncio.sleep(1.0)
    assert slow.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_gives_up_leaves_nothing(learned: Any) -> None:
    server = Server(200)
    http, prices = await learned(server)
    server.answers = [60.0]
    task = asyncio.ensure_future(http.get(URL))
    await asyncio.sleep(0.2)
    assert len(server.seen) == 2, "the call and its copy"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    assert server.cancelled == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert prices.view()["under_way"] == 0


# --- bad inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"shard": "path"}, "shard"),
        ({"idempotent_methods": "GET"}, "idempotent_methods"),
        ({"failure_statuses": {200}}, "failure_statuses"),
        ({"failure_statuses": {503, 600}}, "failure_statuses"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(DefinitionError, match=what):
        PolicyTransport(policy(), **options)


def test_a_response_is_read_once_so_none_is_kept() -> None:
    with pytest.raises(DefinitionError, match="stale_s"):
        PolicyTransport(policy(stale_s=60.0))
