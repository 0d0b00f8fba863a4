"""A transport for httpx that sends each request as a protected call: ``AsyncClient(transport=PolicyTransport(pricing))``.

In: requests, and a policy. Out: the responses that httpx would give, or the errors of policies. What may be repeated is read
from the request. The call ends when the head of the response is there: that is what timeouts are learned of and copies race
for. The body is the caller's, under httpx's own read timeout.

Sources: RFC 9110, 9.2.2 (methods that are idempotent), 10.2.3 (Retry-After); RFC 6585, 4 (429).
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from email.utils import parsedate_tz
from math import inf
from types import TracebackType
from typing import Any, Literal

import httpx

from genesis.core.errors import DefinitionError
from genesis.runtime.clock import LoopClock
from genesis.runtime.operation import Operation, Options
from genesis.runtime.policy import Policy
from genesis.runtime.scope import remaining_s
from genesis.web.deadline import HEADER, written

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
FAILURES = frozenset({429, 500, 502, 503, 504})
"""Statuses that say something of the server and may be gone at the next try; others are answers."""
KEY = "idempotency-key"
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Nothing of the request has left."""
OURS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""The request is wrong, which says nothing of the server."""
KEPT_BYTES = 64 << 10
"""How much is read of the body of a failure: to say what is wrong takes less, and the connection can be used again."""


class FailedStatusError(httpx.HTTPStatusError):
    """The server answered, with a status that is a failure. Its body was read as far as 64 KiB, and is closed."""

    def __init__(self, request: httpx.Request, response: httpx.Response) -> None:
        said = f"{request.method} {request.url} was answered with {response.status_code}"
        super().__init__(said, request=request, response=response)
        self.retry_after_s = retry_after_s(response.headers)
        """When to come back; None: it does not say."""


class PolicyTransport(httpx.AsyncBaseTransport):
    """Sends requests under a policy.

    - A method that is idempotent, or any with an ``Idempotency-Key``, is retried and hedged as the policy says. Others are
      tried again only when nothing was sent (no connection) or the server refused (429). A stream as body is sent once.
    - Statuses of `failure_statuses` are failures. When no try follows, the caller gets the last such response; or a
      `CircuitOpenError` from it when it has opened the circuit, unless the policy has `raise_original`.
    - Retry-After is the least wait before the next try.
    - ``grpc-timeout`` tells the server how long the deadline of the scope leaves it, unless the request has one. httpx's own
      timeouts hold too, and are never longer than that.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        idempotent_methods: Collection[str] = IDEMPOTENT,
        shard: Literal["host"] | Callable[[httpx.Request], Hashable] | None = None,
        failure_statuses: Collection[int] = FAILURES,
        fallback: Callable[[httpx.Request], Any] | None = None,
    ) -> None:
        """Put a policy in front of a transport.

        Args:
            policy: Of the dependency. It keeps no stale results (`stale_s`): a response is read once.
            transport: What sends; default: httpx's own.
            idempotent_methods: Upper-case names.
            shard: ``"host"``: each host and port has a circuit of its own; or a function of the request that names the shard.
            failure_statuses: 400 to 599.
            fallback: Called with the request when the call fails; gives, or is awaited for, a response.

        Raises:
            DefinitionError: one of them cannot be used.
        """
        if policy.settings.stale_s > 0:
            raise DefinitionError(
                f"policy {policy.name!r} keeps results for {policy.settings.stale_s:g} s, and a response is read once",
                fix="protect the function that reads it, with stale_s there",
            )
        if isinstance(shard, str) and shard != "host":
            raise DefinitionError(f"shard is {shard!r}", fix='shard="host", or a function of the request')
        if isinstance(idempotent_methods, str):
            raise DefinitionError(f"idempotent_methods is {idempotent_methods!r}", fix='idempotent_methods=("GET",)')
        odd = [status for status in failure_statuses if not 400 <= status <= 599]
        if odd:
            raise DefinitionError(f"failure_statuses has {odd[0]}: 400 to 599 can be failures")
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport
        self._idempotent = frozenset(method.upper() for method in idempotent_methods)
        self._failures = frozenset(failure_statuses)

        def operation(*, idempotent: bool, attempts: int | None = None) -> Operation:
            options = Options(
                idempotent=idempotent,
                attempts=attempts,
                not_processed=(*UNSENT, _was_refused),
                ignore=OURS,
                shard=_host if shard == "host" else shard,
                fallback=fallback,
            )
            return Operation(policy, options)

        self._repeated, self._careful = operation(idempotent=True), operation(idempotent=False)
        self._once = operation(idempotent=False, attempts=1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, protected.

        Raises:
            UnavailableError: the policy did not let it out; its kinds say why.
            CallTimeoutError: the last try took too long.
            DeadlineExceededError: the deadline is over.
            httpx.TransportError: the last try failed, or the request is wrong.
        """
        try:
            return await self._operation(request).call(self._attempt, request)
        except FailedStatusError as error:
            return error.response

    def _operation(self, request: httpx.Request) -> Operation:
        """By what may be done with a request."""
        if not isinstance(request.stream, httpx.ByteStream):
            return self._once
        idempotent = request.method.upper() in self._idempotent or request.headers.get(KEY)
        return self._repeated if idempotent else self._careful

    async def _attempt(self, request: httpx.Request) -> httpx.Response:
        """One try, with a copy of the request: another may be under way."""
        response = await self._transport.handle_async_request(_copied(request))
        if response.status_code not in self._failures:
            return response
        raise FailedStatusError(request, await _kept(response))

    async def __aenter__(self) -> PolicyTransport:
        """Open what sends."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Close it."""
        await self._transport.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Close what sends."""
        await self._transport.aclose()


def _host(request: httpx.Request) -> str:
    return request.url.netloc.decode("ascii")


def _was_refused(error: BaseException) -> bool:
    """Whether the server took no notice of the request but to count it."""
    return isinstance(error, FailedStatusError) and error.response.status_code == 429


def _copied(request: httpx.Request) -> httpx.Request:
    """The same request, with what is left of its time."""
    headers, extensions = request.headers.copy(), dict(request.extensions)
    left_s = remaining_s()
    if left_s < inf:
        if HEADER not in headers:
            headers[HEADER] = written(left_s)
        given = extensions.get("timeout") or {}
        names = ("connect", "read", "write", "pool")
        capped = {name: min(left_s, inf if given.get(name) is None else given[name]) for name in names}
        extensions["timeout"] = {name: max(0.0, seconds) for name, seconds in capped.items()}
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


async def _kept(response: httpx.Response) -> httpx.Response:
    """A failure with as much of its body as is kept. It is closed: its connection is free for the next try."""
    parts: list[bytes] = []
    size = 0
    try:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for part in response.stream:
            parts.append(part)
            size += len(part)
            if size >= KEPT_BYTES:
                break
    finally:
        await response.aclose()
    body = httpx.ByteStream(b"".join(parts))
    return httpx.Response(response.status_code, headers=response.headers, stream=body, extensions=response.extensions)


def retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds until the server wants to be asked again: whole ones, or until a date, by its own ``Date`` if it says one.

    None when it does not say, or cannot be understood; a date that is over is 0.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _seconds_of(value)
    if until is None:
        return None
    now = _seconds_of(headers.get("date", ""))
    return max(0.0, until - (LoopClock().wall() if now is None else now))


def _seconds_of(date: str) -> float | None:
    """A date of HTTP in seconds since the epoch."""
    with suppress(ValueError, OverflowError, TypeError, IndexError):
        found = parsedate_tz(date)
        if found is not None:
            return float(calendar.timegm((*found[:6], 0, 0, 0))) - (found[9] or 0)
    return None
