"""Which requests does a service take, and what does it answer when a protected call gave up? Middleware for any ASGI app.

In: requests. Out: requests with their deadline in the scope, not too many at once; and problems (RFC 9457) in place of the
errors of policies. Nothing here reads a body: who is refused costs a head. Lifespan and WebSockets pass through.

Put them inside of what makes a 500 of every error: with FastAPI and Starlette that is ``add_middleware``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from random import Random, SystemRandom

from genesis.core.errors import CallTimeoutError, DeadlineExceededError, SettingsError, UnavailableError
from genesis.layers.mitigation.settings import PolicySettings
from genesis.runtime.gate import Gate
from genesis.runtime.scope import SCOPE, deadline, resolved
from genesis.web.deadline import HEADER, deadline_of
from genesis.web.problems import Problem, problem_of
from genesis.web.wire import Receive, Scope, Send, headers_of, respond

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
NAME = "this service"
"""What is at its limit, in words."""


class DeadlineMiddleware:
    """Gives each request the deadline that its ``grpc-timeout`` header asks for: protected calls inside end in time.

    It cuts nothing off. What is over already is answered with 504 and not begun, a header that is malformed with 400.
    """

    def __init__(self, app: ASGIApp, default_s: float | None = None, *, rng: Random | None = None) -> None:
        """Take the application, and the seconds (> 0) of a request that names none; None: it has all the time.

        Raises:
            SettingsError: `default_s` is not positive.
        """
        if default_s is not None and not default_s > 0:
            raise SettingsError(f"default_s is {default_s!r}: more than 0 seconds are needed")
        self._app, self._default_s, self._rng = app, default_s, rng or SystemRandom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what comes through ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            for_s = deadline_of(*headers_of([*scope["headers"]]))
            if for_s == 0:
                raise Problem("deadline-exceeded", f"{HEADER} says that the deadline was over: nothing was done")
        except Problem as problem:
            await respond(send, problem.answer(self._rng))
            return
        if for_s is None:
            for_s = self._default_s
        with nullcontext() if for_s is None else deadline(for_s):
            await _answered(self._app, scope, receive, send, self._rng)


class AdmissionMiddleware:
    """Lets so many requests in at once. Others wait in a line; beyond it they are answered with 503 and Retry-After.

    A place is held until the application has returned. Who waits in line and leaves keeps its place there for `queue_s` at
    the most.
    """

    def __init__(
        self, app: ASGIApp, *, concurrency: int, queue: int = 0, queue_s: float = 1.0, rng: Random | None = None
    ) -> None:
        """Bound an application.

        Args:
            app: The application.
            concurrency: Requests under way at once, >= 1.
            queue: Requests that may wait for a place, >= 0.
            queue_s: Seconds (> 0) that they may wait, or until their deadline.
            rng: Spreads the times to come back.

        Raises:
            SettingsError: one is out of range.
        """
        if concurrency == 0:
            raise SettingsError("concurrency is 0: at least 1 is needed, for a service that takes no request is none")
        self._app, self._rng = app, rng or SystemRandom()
        self._gate = Gate(PolicySettings(concurrency=concurrency, queue=queue, queue_s=queue_s), self._rng, self._refused)
        self.refused = 0
        """Requests that found no place."""

    def _refused(self, name: str, limit: str) -> None:
        self.refused += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what comes through ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._gate.enter(NAME, resolved(SCOPE.get())[0])
        except UnavailableError as error:
            await respond(send, problem_of(error).answer(self._rng))
            return
        try:
            await _answered(self._app, scope, receive, send, self._rng)
        finally:
            self._gate.leave()


async def _answered(app: ASGIApp, scope: Scope, receive: Receive, send: Send, rng: Random) -> None:
    """Call the application, and answer in its place when a policy's error comes out of it before it has begun to answer."""
    begun = False

    async def noted(message: Scope) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await app(scope, receive, noted)
    except (UnavailableError, DeadlineExceededError, CallTimeoutError) as error:
        if begun:
            raise
        await respond(send, problem_of(error).answer(rng))
