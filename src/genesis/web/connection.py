"""One connection of the HTTP door: uvicorn's, with limits for clients that are slow, loud or many, or speak no HTTP.

uvicorn with httptools bounds neither the size of a head nor the time that it may take, takes trailers for headers, drops
the body of a client that asks for another protocol, and drops the answers under way when nonsense comes behind.
"""

from __future__ import annotations

import asyncio
from random import SystemRandom
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from genesis.web.joined import Joined
from genesis.web.problems import Problem
from genesis.web.wire import Receive, Scope, Send, respond

HEAD_BYTES = 64 << 10
"""Largest head of a request: an event of 1 KiB attributes, twice percent-encoded, fits many times."""
CLIENT_S = 10.0
"""How long a connection may wait for its client: for the rest of a head, for a reader, or for a close."""
TURNED_AWAY_S = 1.0
"""The same for a connection above the limit: just time to say why."""
AHEAD_MAX = 100
"""Requests that a client may send before the answers to earlier ones: each is kept whole until its turn comes."""
FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends."""
_rng = SystemRandom()


class DoorConfig(uvicorn.Config):
    """uvicorn's settings, and ours."""

    connections_max: int = 1000


class Connection(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with limits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there. One above the limit is told so; of twice the limit, nobody is told anything."""
        super().connection_made(cast(asyncio.Transport, Joined(transport, self.loop)))
        limit = cast(DoorConfig, self.config).connections_max
        self.flow = _Flow(self)
        self._head_since: float | None = self.loop.time()
        """Since when a head is awaited: from the first connection, or from the first byte of a later one."""
        self._stalled_since: float | None = None
        """Since when what was written is not read."""
        self._rest_since: float | None = None
        """Since when the rest of a body is awaited whose request was answered already."""
        self._patience_s = CLIENT_S
        self._steps = self._head_bytes = 0
        """Heads and parts of bodies that came; bytes of the head, or of what is behind a body, that is awaited."""
        self._whole = True
        """The newest request is there with all of its body."""
        self._staying = False
        self._under_way = 0
        """Requests that wait for their answers."""
        self._ended = False
        """Nothing more is read: the connection is closed behind the answers under way, and behind this problem."""
        self._last: Problem | None = None
        if len(self.connections) > limit:
            self._patience_s = TURNED_AWAY_S
            self.app = _turn_away
        if len(self.connections) > 2 * limit:
            transport.abort()

    def check(self, now: float) -> None:
        """Called each second: a client that keeps us waiting for too long is cut off."""
        if self._head_since is not None and self.flow.read_paused:  # it is we who keep the client waiting
            self._head_since = now
        if self._whole or self.flow.read_paused or not self.cycle.response_complete:  # whoever reads it has a limit
            self._rest_since = None
        elif self._rest_since is None:
            self._rest_since = now
        if self._stalled_since is None and self.transport.is_closing():
            self._stalled_since = now
        for since in (self._head_since, self._rest_since, self._stalled_since):
            if since is not None and now - since > self._patience_s:
                self.transport.abort()

    # --- what the parser tells ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._staying:
            return
        super().on_message_begin()
        self._steps += 1
        self._head_bytes = 0
        self._head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is whole, or a trailer: those belong to nobody here, and must not become headers."""
        self._head_bytes += len(name) + len(value) + len(": \r\n")
        if self._whole:
            super().on_header(name, value)
        elif self._head_bytes > HEAD_BYTES and not self._staying:
            self._last = _head_problem()
            raise ValueError("too many trailers")  # which ends the parsing

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._staying:
            return
        self._head_since = None
        if self._head_bytes + len(self.url) > HEAD_BYTES:
            self.app = _saying(_head_problem())
        elif why := self._unfit():
            self.app = _saying(_bad(why))
        if len(self.pipeline) >= AHEAD_MAX:
            self._last = _bad(f"more than {AHEAD_MAX} requests before their answers")
            raise ValueError("too many requests")  # which ends the parsing
        super().on_headers_complete()
        self._under_way += 1
        self._head_bytes, self._whole = 0, False

    def _unfit(self) -> str:
        """What makes a head that could be read one that must not be answered (RFC 9112, 2.3 and 3.2)."""
        version = self.parser.get_http_version()
        hosts = [name for name, _ in self.headers].count(b"host")
        if version not in ("1.1", "1.0"):
            return f"this door speaks HTTP/1.1, not HTTP/{version}"
        return f"{hosts} Host headers: one is needed" if hosts > 1 or (not hosts and version == "1.1") else ""

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._steps += 1
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; that of a client that would speak something else is not, its body comes yet."""
        if not self.parser.should_upgrade():
            self._whole = True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request was answered."""
        self._under_way -= 1
        super().on_response_complete()
        if self._ended and not self._under_way:
            self._close()

    # --- bytes ----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._ended:
            return
        steps = self._steps
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._end(self._last or _bad("what came is not HTTP"))
            return
        if self._whole and self._head_since is None and not self._under_way:  # bytes, and no request: one must follow
            self._head_since = self.loop.time()
        if steps == self._steps and (self._head_since is not None or not self._whole):  # nothing but more of a head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._end(_head_problem())

    def _feed(self, data: bytes) -> None:
        """Have it parsed. Raises httptools.HttpParserError when it cannot be."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as ahead:
                data = data[ahead.args[0] :]
                self._stay()

    def _stay(self) -> None:
        """Stay with HTTP/1.1 for a client that asked for something else, as those that know HTTP/2 do.

        The parser is through with its bytes: another one is told the same about the body, and takes the rest.
        """
        framing = (b"%b: %b\r\n" % header for header in self.headers if header[0] in FRAMING)
        self.parser = httptools.HttpRequestParser(self)
        self._staying = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        finally:
            self._staying = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has sent all it will: it may still wait for answers."""
        if not self._ended:
            if self._whole and self._under_way:
                self.cycle.keep_alive = False
            self._end(None)
        return not self.transport.is_closing()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stalled_since = None

    def _end(self, problem: Problem | None) -> None:
        """Read no more, and close when all is answered that came whole."""
        self._ended, self._last, self._head_since = True, problem, None
        if not self._whole:
            self._forget(self.cycle)
        if not self._under_way:
            self._close()

    def _forget(self, cycle: RequestResponseCycle) -> None:
        """The newest request will never be whole."""
        if cycle.response_complete:
            self._last = None  # it has its answer, and there is no other one to give
            return
        self._under_way -= 1
        if self.pipeline:
            self.pipeline.popleft()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._last = None if cycle.response_started else self._last

    def _close(self) -> None:
        """Say the last words, and close."""
        if self._last is not None and not self.transport.is_closing():
            answer = self._last.answer(_rng)
            headers = [(b"content-type", answer.type), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body)
        self.transport.close()


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


def _bad(why: str) -> Problem:
    return Problem("bad-request", why, close=True)


def _saying(problem: Problem) -> Any:
    """An application that says nothing else."""

    async def say(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, problem.answer(_rng))

    return say


_turn_away = _saying(Problem("too-many-connections", "as many clients are connected as may be: come back", close=True))
