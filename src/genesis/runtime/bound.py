"""A route with the instance that serves it: how its handler is started, and what of its state is stored.

In: a message and the stored row of its state. Out: a coroutine to step, the state it works on, and afterwards the bytes to
store. Each attempt gets a fresh decode; a plain `def` handler gets its state in a thread, as bytes in and bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from genesis.core.errors import HandlerTimeoutError, InvalidStateError, StateTooLargeError
from genesis.core.event import Delivery
from genesis.core.message import encode
from genesis.core.ports import STATE_MAX_BYTES, STATE_WARN_BYTES, StateRow
from genesis.runtime.component import Route
from genesis.runtime.context import Context
from genesis.runtime.log import log
from genesis.runtime.threads import Threads

WARNED_MAX = 100
_warned: dict[str, None] = {}


class UndecodableError(Exception):
    """A stored payload does not fit its class any more."""


class Bound:
    """One handler of one node."""

    __slots__ = (
        "_codec",
        "_method",
        "_threads",
        "answers",
        "call",
        "check_answer",
        "current",
        "decode",
        "limit_s",
        "older",
        "returns",
        "route",
        "stateful",
        "threaded",
        "tick",
        "version",
    )

    def __init__(self, route: Route, instance: Any, threads: Threads) -> None:
        self.route = route
        self.threaded = not route.is_async
        self.limit_s = route.timeout_s if route.is_async else None
        """Seconds from its first wait on. That of a plain function begins when the function does."""
        self.version = route.state_version
        self.stateful = route.component.state_codec is not None
        codec = self._codec = route.component.state_codec
        self._method: Callable[..., Any] = route.method_of(instance)
        self.answers = route.answer is not None
        promised: Any = tuple[bool, route.answer]  # type: ignore[name-defined]
        self.check_answer: Callable[[bytes], Any] = msgspec.msgpack.Decoder(promised).decode
        """Raises when an encoded (True, answer) is not what the request promises."""
        self.tick = route.every_s is not None
        self.returns = self.answers or self.threaded
        """Whether what its coroutine returns matters."""
        self._threads = threads
        self.current = -1 if self.threaded else self.version
        """Version of the rows that `decode` reads; any other goes to `older`."""
        self.decode: Callable[[bytes], Any] = codec.current if codec is not None else _stateless
        """Gives the state that the handler works on, from the bytes of a row; None without a state."""
        self.older: Callable[[StateRow], Any] = _as_it_is if self.threaded else self._older
        """The same, for no row yet or one of an older version; for a handler in a thread, the row itself.

        Raises StoreNewerError or StoreChangedError when this code cannot read it.
        """
        self.call: Callable[[Any, Any, Context], Coroutine[Any, Any, Any]] = self._caller()
        """Gives the handler's coroutine, from its message, its state and its context."""

    def _caller(self) -> Callable[[Any, Any, Context], Coroutine[Any, Any, Any]]:
        method = self._method
        if self.threaded:
            return self._in_thread
        if self.stateful:
            return (lambda message, state, context: method(state, context)) if self.tick else method
        if self.tick:
            return lambda message, state, context: method(context)
        return lambda message, state, context: method(message, context)

    def message(self, delivery: Delivery) -> Any:
        """The message, decoded. Raises UndecodableError."""
        try:
            return self.route.codec.decode(delivery.payload)
        except Exception as error:
            raise UndecodableError(f"{self.route.codec.type}: {error}") from error

    def changed(self, context: Context, state: Any, row: StateRow) -> bytes | None:
        """The bytes to store; None when they are as they were.

        Raises:
            InvalidStateError: they do not fit its class.
            StateTooLargeError: they are over 1 MiB.
        """
        body = encode(state)
        if body == row[1] and row[0] == self.version:
            return None
        try:
            self.decode(body)
        except msgspec.ValidationError as error:
            raise self.unfit(error) from error
        if len(body) > STATE_WARN_BYTES:
            _check_size(context._delivery.address, len(body))
        return body

    def unfit(self, error: msgspec.ValidationError) -> InvalidStateError:
        """What a later delivery could not read is not stored: nobody else checks assignments."""
        component = self.route.component
        state = component.state.__name__ if component.state is not None else "state"
        return InvalidStateError(f"{component.name}: {self.route.method} left a {state} that is none: {error}")

    def _older(self, row: StateRow) -> Any:
        """No state yet, or one of an older version."""
        codec = self._codec
        assert codec is not None
        return codec.decode(*row) if row[0] else codec.state()

    async def _in_thread(self, message: Any, row: StateRow, context: Context) -> tuple[bytes | None, Any]:
        method = self._method

        def work() -> tuple[bytes | None, Any]:
            if self.route.timeout_s is not None:
                context._ends_at = context._pipeline.clock.now() + self.route.timeout_s
            if not self.stateful:
                return None, method(context) if self.tick else method(message, context)
            state = self.decode(row[1]) if row[0] == self.version else self._older(row)
            result = method(state, context) if self.tick else method(message, state, context)
            return self.changed(context, state, row), result

        def told() -> tuple[bytes | None, Any]:
            try:
                return work()
            except (StopIteration, GeneratorExit) as error:  # a future cannot carry them
                raise RuntimeError(f"{self.route.name} raised {type(error).__name__}") from error

        try:
            return await self._threads.run(told, self.route.timeout_s)
        except TimeoutError as error:
            raise HandlerTimeoutError(f"{self.route.name} took over {self.route.timeout_s} s") from error


def _stateless(body: bytes) -> None:
    """What a handler without a state works on."""


def _as_it_is(row: StateRow) -> StateRow:
    return row


def _check_size(address: str, size: int) -> None:
    if size > STATE_MAX_BYTES:
        raise StateTooLargeError(f"{address}: a state of {size} bytes; the limit is {STATE_MAX_BYTES}: split it over more keys")
    if address not in _warned and len(_warned) < WARNED_MAX:
        _warned[address] = None
        log.warning("%s: a state of %d KiB is written at each change: split it over more keys", address, size >> 10)
