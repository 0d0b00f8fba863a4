"""The middleware, in front of applications that are a few lines each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from math import inf
from random import Random
from typing import Any

import pytest

from genesis.core.errors import (
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    LimitedError,
    SettingsError,
    UnavailableError,
)
from genesis.runtime.scope import HANDLER, SCOPE, remaining_s
from genesis.web.asgi import AdmissionMiddleware, ASGIApp, DeadlineMiddleware
from genesis.web.wire import Answer, Receive, Scope, Send, respond


class Sent:
    """What was sent for one request."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        self.status = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def problem(self) -> tuple[int, str]:
        assert self.headers["content-type"] == "application/problem+json"
        found = json.loads(self.body)
        assert found["status"] == self.status
        assert found["detail"]
        return self.status, str(found["type"].removeprefix("/problems/"))


async def nobody_reads() -> Any:
    raise AssertionError("the body was read")


async def ask(app: ASGIApp, *timeouts: str) -> Sent:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [(b"grpc-timeout", timeout.encode()) for timeout in timeouts]
    await app({"type": "http", "method": "POST", "path": "/", "headers": headers}, nobody_reads, send)
    return Sent(messages)


def app_of(work: Callable[[], Awaitable[object]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, Answer(200, repr(await work()).encode()))

    return app


def raising(error: BaseException) -> ASGIApp:
    async def work() -> None:
        raise error

    return app_of(work)


async def left() -> float:
    return remaining_s()


# --- deadlines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default_s", "timeouts", "expected"), [(None, ["1500m"], 1.5), (3.0, [], 3.0), (3.0, ["60S"], 60.0), (None, [], inf)]
)
async def test_the_header_is_the_deadline_of_what_runs_inside(
    default_s: float | None, timeouts: list[str], expected: float
) -> None:
    reply = await ask(DeadlineMiddleware(app_of(left), default_s), *timeouts)
    assert (reply.status, float(reply.body)) == (200, pytest.approx(expected))
    assert remaining_s() == inf, "only inside"


async def test_a_deadline_that_is_over_is_answered_before_anything_is_done() -> None:
    reply = await ask(DeadlineMiddleware(raising(AssertionError("it was called"))), "0m")
    assert reply.problem == (504, "deadline-exceeded")


@pytest.mark.parametrize("timeouts", [["soon"], [""], ["1S", "1S"], ["123456789n"]])
async def test_a_header_that_cannot_be_used_is_a_bad_request(timeouts: list[str]) -> None:
    reply = await ask(DeadlineMiddleware(raising(AssertionError("it was called"))), *timeouts)
    assert reply.problem == (400, "malformed-header")


@pytest.mark.parametrize("default_s", [0, -1.0, float("nan")])
def test_a_default_that_is_no_time_is_refused(default_s: float) -> None:
    with pytest.raises(SettingsError, match="default_s"):
        DeadlineMiddleware(app_of(left), default_s)


# --- admission ----------------------------------------------------------------------------------------------------------


async def test_who_finds_no_place_and_no_queue_is_sent_away_at_once() -> None:
    let_go = asyncio.Event()
    app = AdmissionMiddleware(app_of(let_go.wait), concurrency=2, rng=Random(0))
    async with asyncio.TaskGroup() as tasks:
        inside = [tasks.create_task(ask(app)) for _ in range(2)]
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        reply = await ask(app)
        assert asyncio.get_running_loop().time() == began
        assert reply.problem == (503, "unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        let_go.set()
    assert [task.result().status for task in inside] == [200, 200]
    assert (await ask(app)).status == 200, "places are given back"
    assert app.refused == 1


async def test_who_waits_in_line_gets_a_place_in_order_or_is_sent_away_in_time() -> None:
    served: list[float] = []

    async def work() -> None:
        served.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.4)

    app = AdmissionMiddleware(app_of(work), concurrency=1, queue=2, queue_s=0.5)
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(app)) for _ in range(4)]
    assert sorted(task.result().status for task in asked) == [200, 200, 503, 503]
    assert [at - began for at in served] == pytest.approx([0.0, 0.4])


async def test_the_line_is_left_at_the_deadline() -> None:
    let_go = asyncio.Event()
    app = DeadlineMiddleware(AdmissionMiddleware(app_of(let_go.wait), concurrency=1, queue=9, queue_s=60.0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask(app))
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        assert (await ask(app, "250m")).status == 503
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.25)
        let_go.set()


async def test_who_is_asked_by_a_handler_waits_in_line_like_others() -> None:
    app = AdmissionMiddleware(app_of(lambda: asyncio.sleep(0.1)), concurrency=1, queue=1)
    SCOPE.set(HANDLER)
    replies = await asyncio.gather(ask(app), ask(app))
    assert [reply.status for reply in replies] == [200, 200]


async def test_a_request_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    app = AdmissionMiddleware(app_of(asyncio.Event().wait), concurrency=1, queue=1, queue_s=60.0)
    for _ in range(3):
        inside, waiting = (asyncio.ensure_future(ask(app)) for _ in range(2))
        await asyncio.sleep(0.1)
        for task in (waiting, inside):
            task.cancel()
        await asyncio.wait([inside, waiting])
    failing = AdmissionMiddleware(raising(ValueError("a bug")), concurrency=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="a bug"):
            await ask(failing)


@pytest.mark.parametrize(
    "changes", [{"concurrency": 0}, {"concurrency": -1}, {"queue": -1}, {"queue_s": 0.0}, {"concurrency": 1.5}]
)
def test_a_bound_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        AdmissionMiddleware(app_of(left), **{"concurrency": 1, **changes})


# --- errors of policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (UnavailableError("warehouse", 7.0), (503, "unavailable")),
        (CircuitOpenError("pricing", 7.0), (503, "unavailable")),
        (LimitedError("pricing", 7.0, "rate"), (503, "unavailable")),
        (CallTimeoutError("pricing", 1.0), (504, "deadline-exceeded")),
        (DeadlineExceededError("too late"), (504, "deadline-exceeded")),
    ],
)
@pytest.mark.parametrize("middleware", [DeadlineMiddleware, lambda app: AdmissionMiddleware(app, concurrency=1)])
async def test_where_a_policy_gave_up_the_answer_says_so(
    error: Exception, problem: tuple[int, str], middleware: Callable[[ASGIApp], ASGIApp]
) -> None:
    reply = await ask(middleware(raising(error)))
    assert reply.problem == problem
    assert ("retry-after" in reply.headers) == (problem[0] == 503)
    if problem[0] == 503:
        assert 7 <= int(reply.headers["retry-after"]) <= 11


async def test_an_answer_that_has_begun_is_not_answered_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise UnavailableError("warehouse")

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    with pytest.raises(UnavailableError):
        await DeadlineMiddleware(app)({"type": "http", "headers": []}, nobody_reads, send)
    assert len(messages) == 1


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
@pytest.mark.parametrize("middleware", [DeadlineMiddleware, lambda app: AdmissionMiddleware(app, concurrency=1)])
async def test_what_is_no_request_passes_through(kind: str, middleware: Callable[[ASGIApp], ASGIApp]) -> None:
    passed: list[Any] = []

    async def app(*given: Any) -> None:
        passed.append(given)

    async def send(message: Any) -> None:
        raise AssertionError

    scope = {"type": kind, "headers": [(b"grpc-timeout", b"nonsense")]}
    await middleware(app)(scope, nobody_reads, send)
    assert passed == [(scope, nobody_reads, send)]
