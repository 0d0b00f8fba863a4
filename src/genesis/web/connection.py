"""One connection of the HTTP door: HTTP/1.1 on httptools' parser, with limits for clients that are slow, loud, many, or mad.

In: bytes. Out: calls of the door, one at a time and in order, and their answers, each in one write. An event costs neither a
task nor a timer: its answer is written by whoever commits it. Of time there is one look a second, at all connections.

Source: RFC 9112, and the parser's own strictness (llhttp).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from math import inf
from random import SystemRandom
from typing import Any, NamedTuple

import httptools

from genesis.runtime.log import log
from genesis.web import body as limits
from genesis.web.head import HEAD_BYTES, bad_request, call_of, large_head
from genesis.web.ingest import Door
from genesis.web.problems import Problem
from genesis.web.wire import Answer, Call, Header, Storing, written

CLIENT_S = 10.0
"""How long a connection may wait for its client: for the rest of a head, for a reader, or for a close."""
TURNED_AWAY_S = 1.0
"""The same for a connection above the limit: just time to say why."""
KEEP_ALIVE_S = 30.0
"""How long an idle connection is kept: longer than a scrape of Prometheus takes to come again at its usual 15 s."""
AHEAD_MAX = 100
"""Requests that a client may send before the answers to earlier ones: each is kept whole until its turn comes."""
TURN = 16
"""Answers to one client that are given at once, before others have their turn: some milliseconds of the slowest, /metrics."""
FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends."""
CLOSE = (b"connection", b"close")
_rng = SystemRandom()


class Connections:
    """Those of one server, and what they share."""

    def __init__(self, door: Door, most: int) -> None:
        """`most` connections are answered, as many again are told that they are too many."""
        self.door, self.most = door, most
        self.all: set[Connection] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.date = b""
        """The header `Date`, as a line."""
        self.none_left = asyncio.Event()


class Waiting(NamedTuple):
    """A request that came whole, or will be told why it is not answered."""

    call: Call | Problem
    body: bytes
    keep_alive: bool


class Connection(asyncio.Protocol):
    """A client."""

    def __init__(self, connections: Connections) -> None:
        self._connections, self._door = connections, connections.door
        self._loop = asyncio.get_running_loop()
        self._parser = self._new_parser()
        self.transport: asyncio.Transport
        # What is being read.
        self._url, self._headers = b"", list[Header]()
        self._parts, self._size = list[bytes](), 0
        self._head: Waiting | None = None
        """The request whose body is being read; its problem, if it has one, was told already."""
        self._bytes = 0
        """Of the head, or of what is behind a body, that is being read."""
        self._heads = self._steps = 0
        """Heads, and heads and parts of bodies, that came."""
        self._in_head = True
        """A head has begun, or must: from the first moment on."""
        self._staying = False
        self._ended = False
        """Nothing more is read: the connection is closed behind the answers under way, and behind this problem."""
        self._last: Problem | None = None
        # What is answered.
        self._ahead: deque[Waiting] = deque()
        """Requests that wait for their turn."""
        self._now: Waiting | None = None
        """The one that is being answered."""
        self._paused = self._full = False
        """We do not read; the client does not."""
        self._given = 0
        """Answers in this turn of the loop."""
        self._resting = False
        self._awaits: tuple[str, int] | None = None
        """What we wait for from the client, and for which request, as it was at the last look."""
        self._since = 0.0
        """Since when, by the clock of the loop."""
        self._patience_s = CLIENT_S
        self._turned_away = False

    # --- a client comes, waits, leaves ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there. One above the limit is told so; of twice the limit, nobody is told anything."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, connections = transport, self._connections
        connections.all.add(self)
        if len(connections.all) > connections.most:
            self._patience_s, self._turned_away = TURNED_AWAY_S, True
        if len(connections.all) > 2 * connections.most:
            transport.abort()

    def check(self, now: float) -> None:
        """Called each second: a client that keeps us waiting for too long is cut off."""
        awaits = (self._awaited_for(), self._heads)
        if awaits != self._awaits:
            self._awaits, self._since = awaits, now
            return
        limit_s = {"": inf, "request": KEEP_ALIVE_S, "body": limits.BODY_S}.get(awaits[0], self._patience_s)
        if now - self._since <= limit_s:
            return
        if awaits[0] == "body" and self._head is not None and isinstance(self._head.call, Call):
            self._end(limits.too_slow())
        elif awaits[0] == "request":
            self.transport.close()
        else:
            self.transport.abort()

    def _awaited_for(self) -> str:
        """What the client has to do next; nothing while it is we who keep it waiting."""
        if self._full or self.transport.is_closing():
            return "reading"
        if self._paused:
            return ""
        if self._head is not None:
            return "body"
        if self._in_head:
            return "head"
        return "request" if self._now is None else ""

    def shut(self) -> None:
        """The server stops: close when what came whole is answered."""
        if not self._ended:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. What it asked goes on, and is told to nobody."""
        self._connections.all.discard(self)
        if not self._connections.all:
            self._connections.none_left.set()
        self._ended = True
        self._ahead.clear()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._full = True
        self._throttle()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._full = False
        self._next()

    def _throttle(self) -> None:
        """Read no more while the client reads nothing, or while requests wait for their turn."""
        pause = self._full or bool(self._ahead)
        if pause != self._paused and not self.transport.is_closing():
            self._paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # --- bytes ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._ended:
            return
        self._given, steps = 0, self._steps
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._end(self._last or bad_request("what came is not HTTP"))
            return
        if steps != self._steps:
            return
        if self._head is None and self._now is None:  # bytes, and no request: one must follow
            self._in_head = True
        if self._in_head or self._head is not None:  # nothing but more of a head
            self._bytes += len(data)
            if self._bytes > HEAD_BYTES:
                self._end(large_head())

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # what comes behind the last request is dropped here
        return parser

    def _feed(self, data: bytes) -> None:
        """Have it parsed. Raises httptools.HttpParserError when it cannot be."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as ahead:
                data = data[ahead.args[0] :]
                self._stay()

    def _stay(self) -> None:
        """Stay with HTTP/1.1 for a client that asked for something else, as those that know HTTP/2 do.

        The parser is through with its bytes: another one is told the same about the body, and takes the rest.
        """
        framing = (b"%b: %b\r\n" % header for header in self._headers if header[0] in FRAMING)
        self._parser = self._new_parser()
        self._staying = True
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        finally:
            self._staying = False

    def eof_received(self) -> bool:
        """The client has sent all it will: it may still wait for answers."""
        self.shut()
        return not self.transport.is_closing()

    # --- what the parser tells --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._staying:
            return
        self._heads += 1
        self._steps += 1
        self._url, self._headers, self._bytes = b"", [], 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if not self._staying:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is whole, or a trailer: those belong to nobody here, and must not become headers."""
        if self._head is None:
            self._headers.append((name.lower(), value))
        elif not self._staying:
            self._bytes += len(name) + len(value) + len(": \r\n")
            if self._bytes > HEAD_BYTES:
                self._stop(large_head())

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._staying:
            return
        if len(self._ahead) >= AHEAD_MAX:
            self._stop(bad_request(f"more than {AHEAD_MAX} requests before their answers"))
        call = self._called()
        self._in_head, self._bytes = False, 0
        self._parts, self._size = [], 0
        self._head = Waiting(call, b"", self._parser.should_keep_alive())
        if isinstance(call, Problem):
            if call.close:  # what comes behind it is not looked at
                self._turn(self._head)
        elif self._now is None and call.headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _called(self) -> Call | Problem:
        if self._turned_away:
            return Problem("too-many-connections", "as many clients are connected as may be: come back", close=True)
        parser = self._parser
        try:
            return call_of(parser.get_method().decode(), self._url, self._headers, parser.get_http_version())
        except Problem as problem:
            return problem

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._steps += 1
        self._size, self._bytes = self._size + len(body), 0
        if self._size <= limits.BODY_BYTES:
            self._parts.append(body)
        elif self._size > limits.PASSED_OVER_BYTES:
            self._stop(limits.too_large(self._size))

    def on_message_complete(self) -> None:
        """A request is whole; that of a client that would speak something else is not, its body comes yet."""
        if self._parser.should_upgrade():
            return
        head, self._head = self._head, None
        if head is None or (isinstance(head.call, Problem) and head.call.close):
            return
        call = head.call if self._size <= limits.BODY_BYTES else limits.too_large(self._size)
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._turn(Waiting(call, body, head.keep_alive))

    def _stop(self, problem: Problem) -> None:
        """Inside a callback of the parser: end the parsing, with this as the last word."""
        self._last = problem
        raise ValueError(problem.detail)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _turn(self, waiting: Waiting) -> None:
        """Answer a request, when those before it are. What comes behind the last one that we answer is dropped."""
        if self._ended:
            return
        self._ahead.append(waiting)
        if self._now is None:
            self._go_on()
        if self._ahead:
            self._throttle()

    def _go_on(self) -> None:
        """Answer what waits, until an answer has to be waited for, the client reads none, or it is the turn of others."""
        while self._now is None and self._ahead and not self._full and not self._resting:
            if self._given >= TURN:
                self._resting = True
                self._loop.call_soon(self._rested)
                return
            self._now = self._ahead.popleft()
            call = self._now.call
            if isinstance(call, Problem):
                self._answer(call.answer(_rng))
                continue
            begun = self._door.begin(call, self._now.body)
            if isinstance(begun, Answer):
                self._answer(begun)
            elif isinstance(begun, Storing):
                begun.stored.add_done_callback(partial(self._stored, begun))
            else:
                self._await(begun)

    def _stored(self, storing: Storing, stored: asyncio.Future[None]) -> None:
        self._answer(self._door.ended(storing))
        self._next()

    def _await(self, work: Coroutine[Any, Any, Answer]) -> None:
        task = self._loop.create_task(work)
        self._connections.tasks.add(task)
        task.add_done_callback(self._awaited)

    def _awaited(self, task: asyncio.Task[Answer]) -> None:
        self._connections.tasks.discard(task)
        if task.cancelled():
            self.transport.abort()
        elif (error := task.exception()) is not None:
            log.critical("the door failed: %r", error, exc_info=error)
            self.transport.abort()
        else:
            self._answer(task.result())
            self._next()

    def _rested(self) -> None:
        self._resting, self._given = False, 0
        self._next()

    def _next(self) -> None:
        """An answer that was waited for is given."""
        self._go_on()
        self._throttle()

    def _answer(self, answer: Answer) -> None:
        """Write the answer to the request whose turn it is."""
        now, self._now = self._now, None
        self._given += 1
        if self.transport.is_closing() or now is None:
            return
        keep_alive = now.keep_alive and CLOSE not in answer.headers
        last = self._ended and not self._ahead and self._last is None
        if (last or not keep_alive) and CLOSE not in answer.headers:
            answer = answer._replace(headers=(*answer.headers, CLOSE))
        is_head = isinstance(now.call, Call) and now.call.method == "HEAD"
        self.transport.write(written(answer, self._connections.date, body=not is_head))
        if not keep_alive:
            self._ended, self._last = True, None
            self._ahead.clear()
        if self._ended and not self._ahead:
            self._close()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end(self, problem: Problem | None) -> None:
        """Read no more, and close when all is answered that came whole."""
        told = self._head is not None and isinstance(self._head.call, Problem) and self._head.call.close
        self._ended, self._last = True, None if told else problem
        self._head, self._in_head = None, False
        if self._now is None and not self._ahead:
            self._close()

    def _close(self) -> None:
        """Say the last words, and close."""
        if self._last is not None and not self.transport.is_closing():
            self.transport.write(written(self._last.answer(_rng), self._connections.date))
        self.transport.close()
