"""One connection of the HTTP door: uvicorn's, with limits for clients that are slow, loud or many.

uvicorn with httptools bounds neither the size of a head nor the time that it may take.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from random import SystemRandom
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from genesis.web.problems import Problem
from genesis.web.wire import WHOLE, Answer, Receive, Scope, Send, respond

HEAD_BYTES = 64 << 10
"""Largest head of a request: an event of 1 KiB attributes, twice percent-encoded, fits many times."""
CLIENT_S = 10.0
"""How long a connection may wait for its client: for the rest of a head, for a reader, or for a close."""
TURNED_AWAY_S = 1.0
"""The same for a connection above the limit: just time to say why."""
AHEAD_MAX = 100
"""Requests that a client may send before the answers to earlier ones: each is kept whole until its turn comes."""
CLOSE = (b"connection", b"close")
_rng = SystemRandom()


class DoorConfig(uvicorn.Config):
    """uvicorn's settings, and ours."""

    connections_max: int = 1000


class Connection(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with limits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there. One above the limit is told so; of twice the limit, nobody is told anything."""
        super().connection_made(transport)
        limit = cast(DoorConfig, self.config).connections_max
        self.flow = _Flow(self)
        self._head_since: float | None = self.loop.time()
        """Since when a head is awaited: from the first connection, or from the first byte of a later one."""
        self._stalled_since: float | None = None
        """Since when what was written is not read."""
        self._idle_since: float | None = None
        """Since when nothing is asked."""
        self._patience_s = CLIENT_S
        self._heads = self._head_bytes = 0
        if len(self.connections) > limit:
            self._patience_s = TURNED_AWAY_S
            self.app = _turn_away
        if len(self.connections) > 2 * limit:
            transport.abort()

    def check(self, now: float) -> None:
        """Called each second: a client that keeps us waiting for too long is cut off."""
        if self._head_since is not None and self.flow.read_paused:  # it is we who keep the client waiting
            self._head_since = now
        if self._stalled_since is None and self.transport.is_closing():
            self._stalled_since = now
        for since in (self._head_since, self._stalled_since):
            if since is not None and now - since > self._patience_s:
                self.transport.abort()
        if self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._heads += 1
        self._head_bytes = 0
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._head_since = None
        if len(self.url) + sum(map(len, chain(*self.headers))) + len(": \r\n") * len(self.headers) > HEAD_BYTES:
            self.app = _too_large
        if len(self.pipeline) >= AHEAD_MAX:
            raise ValueError("too many requests before their answers")  # the parser makes a 400 of it, which closes
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._idle_since = None
        heads = self._heads
        super().data_received(data)
        if self._head_since is not None and heads == self._heads:  # nothing but more of a head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._close_with(_head_problem())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request."""
        cast(Scope, cycle.scope)["extensions"] = {WHOLE: _Whole(cycle)}
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each answer: `check` sees to idle connections."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has sent all it will: it may still wait for its answer."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stalled_since = None

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._close_with(Problem("bad-request", msg, close=True))

    def _close_with(self, problem: Problem) -> None:
        """Answer without a request, unless another answer is under way, and close."""
        if self.cycle is None or self.cycle.response_complete:
            answer = problem.answer(_rng)
            self.transport.write(_head(answer) + answer.body)
        self.transport.close()


class _Whole:
    """A request in one piece.

    uvicorn passes a body through an event and writes head and body of an answer one after the other, each with its checks.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The body, when all of it is there."""
        cycle = self._cycle
        return None if cycle.more_body else bytes(cycle.body)

    def answer(self, answer: Answer) -> bool:
        """Write an answer, unless it has to wait for its reader."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected:
            return False
        if CLOSE in answer.headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            answer = answer._replace(headers=(*answer.headers, CLOSE))
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        head = _head(answer)
        cycle.transport.write(head if cycle.scope["method"] == "HEAD" else head + answer.body)
        cycle.message_event.set()
        del cast(Scope, cycle.scope)["extensions"]  # it leads back here: no work for the garbage collector
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


def _head(answer: Answer) -> bytes:
    more = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
        STATUS_LINE[answer.status],
        answer.type,
        len(answer.body),
        more,
    )


class _Flow(FlowControl):
    """Reads on only when no request waits for its turn: uvicorn would read as long as it answers, and keep all that it read."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.transport)
        self._pipeline = connection.pipeline

    def resume_reading(self) -> None:
        """Called whenever a request begins to be read, or was answered."""
        if not self._pipeline:
            super().resume_reading()


def _head_problem() -> Problem:
    return Problem("headers-too-large", f"headers of more than {HEAD_BYTES} bytes", close=True, limit_bytes=HEAD_BYTES)


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(scope, send, _closing("too-many-connections", "as many clients are connected as may be: come back"))


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(scope, send, _head_problem().answer(_rng))


def _closing(kind: str, detail: str, **facts: Any) -> Answer:
    return Problem(kind, detail, close=True, **facts).answer(_rng)
