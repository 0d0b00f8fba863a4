"""Protected calls over real sockets: httpx and anyio inside, time that runs out, and what is left behind, which is nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import httpx
import pytest

from genesis.core.errors import CallTimeoutError, CircuitOpenError, DeadlineExceededError
from genesis.core.signals import Step
from genesis.runtime.policy import Policy
from genesis.runtime.scope import deadline
from genesis.web.httpx import PolicyTransport

_names = count()


class Upstream:
    """A server on a socket. Paths: /ok, /fail/N (N times 503, then 200), /hang, /drip (a body in parts), /cut."""

    def __init__(self) -> None:
        self.url, self.requests, self.bodies, self.connections, self.failed = "", 0, [], 0, 0  # type: ignore[var-annotated]
        self.open: set[asyncio.StreamWriter] = set()
        self.hangs = asyncio.Event()
        self.all_closed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        self.all_closed.clear()
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            if not self.open:
                self.all_closed.set()
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1].decode()
        length = next((int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")), 0)
        self.bodies.append(await reader.readexactly(length))
        self.requests += 1
        status = 200
        if path.startswith("/fail/") and self.failed < int(path.removeprefix("/fail/")):
            self.failed, status = self.failed + 1, 503
        if path == "/hang":
            self.hangs.set()
            await reader.read(1)  # until the client goes
            raise ConnectionError
        if path == "/cut":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            writer.close()
            raise ConnectionError
        if path == "/drip":
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(50):
                writer.write(b"4\r\ndrop\r\n")
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: 4\r\n\r\nsaid" % status)


@asynccontextmanager
async def served() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        for writer in list(upstream.open):
            writer.close()
        if upstream.open:
            await upstream.all_closed.wait()


def policy(**settings: Any) -> Policy:
    return Policy(f"upstream-{next(_names)}", **{"backoff_s": 0.001, "backoff_max_s": 0.001, "timeout_s": 10.0, **settings})


@asynccontextmanager
async def opened(of: Policy | None = None, connections: int = 1) -> AsyncIterator[tuple[httpx.AsyncClient, Upstream]]:
    """A client with few connections: one that leaked would be missed."""
    limits = httpx.Limits(max_connections=connections)
    transport = PolicyTransport(of or policy(), httpx.AsyncHTTPTransport(limits=limits))
    async with served() as upstream, httpx.AsyncClient(transport=transport, base_url=upstream.url, timeout=10.0) as http:
        yield http, upstream
    gc.collect()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """In a real loop, which is left with no task and no warning (warnings are errors here)."""

    async def whole() -> None:
        await test()
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # of the server, on their last step
            await asyncio.wait([task], timeout=10.0)
        assert all(task.done() for task in others)

    asyncio.run(whole())


def test_failures_are_repeated_on_the_same_connection() -> None:
    async def test() -> None:
        async with opened() as (http, upstream):
            reply = await http.put("/fail/2", json={"sku": "tea"})
            assert (reply.status_code, reply.text) == (200, "said")
            assert (upstream.requests, upstream.connections) == (3, 1)
            assert set(upstream.bodies) == {b'{"sku":"tea"}'}

    run(test)


def test_a_response_is_streamed_and_the_connection_is_free_after_it() -> None:
    async def test() -> None:
        async with opened() as (http, _):
            for _ in range(3):
                async with http.stream("GET", "/drip") as reply:
                    assert "".join([part async for part in reply.aiter_text()]) == "drop" * 50
            async with http.stream("GET", "/drip") as reply:
                assert reply.status_code == 200  # and leave in the middle
            assert (await http.get("/ok")).status_code == 200

    run(test)


def test_a_body_that_is_cut_off_is_an_error_of_httpx() -> None:
    async def test() -> None:
        async with opened() as (http, _):
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get("/cut")
            assert (await http.get("/ok")).status_code == 200

    run(test)


def test_where_nobody_listens_even_a_post_is_tried_again_and_the_circuit_opens() -> None:
    async def test() -> None:
        with socket.socket() as taken:  # bound, and nobody listens
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
            prices = policy(failure_threshold=2)
            async with httpx.AsyncClient(transport=PolicyTransport(prices)) as http:
                with pytest.raises(httpx.ConnectError):
                    await http.post(url, json={})
                assert prices.counts[Step.RETRIED] == 2
                with pytest.raises(CircuitOpenError):
                    await http.post(url, json={})

    run(test)


def test_a_hanging_server_is_left_by_timeout_deadline_and_cancel_scopes() -> None:
    async def test() -> None:
        async with opened(policy(attempts=1, timeout_s=0.05, failure_threshold=100, abandon_below=0.0)) as (http, _):
            with pytest.raises(CallTimeoutError):
                await http.get("/hang")
            with pytest.raises(DeadlineExceededError), deadline(0.01):
                await http.get("/hang")
            with pytest.raises(TimeoutError), anyio.fail_after(0.01):
                await http.get("/hang")
            with anyio.move_on_after(0.01) as scope:
                await http.get("/hang")
            assert scope.cancelled_caught
            with pytest.raises(httpx.ReadTimeout):
                await http.get("/hang", timeout=0.01)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0, "nothing of a cancellation is left"
            assert (await http.get("/ok")).status_code == 200, "the only connection is free again"

    run(test)


def test_a_scope_of_anyio_inside_of_a_protected_function_is_its_own() -> None:
    async def test() -> None:
        prices = policy(attempts=2)
        async with served() as upstream, httpx.AsyncClient(base_url=upstream.url, timeout=10.0) as http:

            @prices.protect(idempotent=True)
            async def price(path: str) -> str:
                with anyio.fail_after(0.05):
                    return (await http.get(path)).text

            assert await price("/ok") == "said"
            with pytest.raises(TimeoutError):
                await price("/hang")
            assert upstream.requests == 3, "it failed, and was tried again"
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(price, "/ok")
            assert prices.view()["under_way"] == 0

    run(test)


def test_many_that_give_up_leave_no_connection_and_no_place() -> None:
    async def test() -> None:
        prices = policy(concurrency=4, queue=100)
        async with opened(prices, connections=2) as (http, upstream):
            for round_ in range(5):
                upstream.hangs.clear()
                tasks = [asyncio.ensure_future(http.get("/hang")) for _ in range(8)]
                await upstream.hangs.wait()
                for task in tasks[round_:] + tasks[:round_]:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(error, asyncio.CancelledError) for error in ended)
            assert prices.view()["under_way"] == 0
            replies = await asyncio.gather(*(http.get("/ok") for _ in range(20)))
            assert {reply.status_code for reply in replies} == {200}

    run(test)
