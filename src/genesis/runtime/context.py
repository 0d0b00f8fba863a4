"""What a handler may do beside changing its state: emit, set timers, call the outside once, ask.

One context an attempt. It only collects; what it collected becomes real with the commit, all of it or nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from genesis.core.errors import BatchLimitError, ContextClosedError, GenesisError, InvalidEventError
from genesis.core.event import Delivery, Kind, Priority, Timer
from genesis.core.message import Message, Request, encode
from genesis.core.ports import BATCH_BYTES, BATCH_RECORDS
from genesis.runtime.intake import fits, level_of
from genesis.runtime.scope import until_of

if TYPE_CHECKING:
    from genesis.runtime.component import Route
    from genesis.runtime.pipeline import Pipeline

A = TypeVar("A")
T = TypeVar("T")
RECORD_BYTES = 200
"""What a record weighs in a batch beside its payload."""


class Context(Struct):  # the garbage collector sees it: what an attempt leaves behind, such as a traceback, leads back to it
    """The handler's hands. Use it only inside the attempt that it was given to."""

    _pipeline: Pipeline
    _route: Route
    _delivery: Delivery
    _emits: list[Delivery] | None = None
    _messages: list[Message] | None = None
    _timers: list[Timer | tuple[str, str]] | None = None
    _once: list[str] | None = None
    _used: bool = False
    """Whether there is anything but the state to collect."""
    _records: int = 0
    _bytes: int = 0
    _asked: dict[str, int] | None = None
    """How often each question was asked."""
    _ended_before: int = 0
    """Deliveries of its lane that had ended when this attempt was first suspended."""
    _ends_at: float | None = None
    """When it times out, on the loop's clock; None: it has not waited yet, or never does."""
    _closed: bool = False
    _abandoned: bool = False
    _timed_out: bool = False
    _task: asyncio.Task[Any] | None = None

    # --- what it is about -------------------------------------------------------------------------------------------

    @property
    def event_id(self) -> str:
        """Id of the event."""
        return self._delivery.event_id

    @property
    def source(self) -> str:
        """Source of the event."""
        return self._delivery.source

    @property
    def priority(self) -> Priority:
        """Priority of the delivery."""
        return Priority(self._delivery.priority)

    @property
    def key(self) -> str:
        """The key as text; empty for single and stateless components."""
        return self._delivery.address.partition("/")[2]

    @property
    def attempt(self) -> int:
        """Number of this attempt, 1 at first."""
        return self._delivery.attempt + 1

    @property
    def headers(self) -> dict[str, str]:
        """Headers that travel with the event."""
        return dict(self._delivery.headers or {})

    def now(self) -> float:
        """Wall clock, seconds since the epoch; virtual under simulation."""
        return self._pipeline.clock.wall()

    # --- collecting -------------------------------------------------------------------------------------------------

    def emit(self, message: Message, *, priority: Priority | None = None) -> None:
        """Send an event to every component that handles its type, when this delivery commits.

        Raises:
            InvalidEventError: the message does not fit its class.
            BatchLimitError: over 900 records or 1 MiB in this attempt.
            ContextClosedError: the attempt is over.
        """
        self._check_open()
        gate, parent = self._pipeline.gate, self._delivery
        emits = self._emits
        if emits is None:
            emits = self._emits = []
            self._used = True
        event_id = f"{parent.id:x}.{self._records}"
        added = gate.deliveries(message, event_id, gate.source, Kind.EMITTED, priority, handed_down(parent.headers))
        if added:
            self._weigh(len(added), len(added) * len(added[0].payload))
            emits += added
        else:
            self._weigh(1, 0)
        if self._pipeline.observe is not None:
            if self._messages is None:
                self._messages = []
            self._messages.append(message)

    def after(self, delay_s: float, message: Message, *, name: str | None = None, priority: Priority | None = None) -> str:
        """Emit a message after `delay_s` seconds. Returns the timer's name; the same name replaces it.

        Names belong to the component and key. Raises as `emit` does.
        """
        return self.at(self._pipeline.clock.wall() + delay_s, message, name=name, priority=priority)

    def at(self, wall: float, message: Message, *, name: str | None = None, priority: Priority | None = None) -> str:
        """Emit a message at a time of the wall clock (seconds since the epoch). As `after`."""
        self._check_open()
        if not isinstance(wall, (int, float)) or not isfinite(wall):
            raise InvalidEventError(f"a timer is due at a time, not {wall!r}")
        codec, payload = self._pipeline.gate.encoded(message)
        event_id = f"{self._delivery.id:x}.{self._records}"
        name = f"~{event_id}" if name is None else _checked_name(name)
        self._weigh(1, len(payload))
        timer = Timer(
            address=self._timer_address(),
            name=name,
            due=wall,
            type=codec.type,
            payload=payload,
            priority=codec.priority if priority is None else level_of(priority),
            event_id=event_id,
            headers=handed_down(self._delivery.headers),
        )
        self._add_timer(timer)
        return name

    def cancel(self, name: str) -> None:
        """Remove a timer of this component and key; nothing happens if there is none."""
        self._check_open()
        self._weigh(1, 0)
        self._add_timer((self._timer_address(), _checked_name(name)))

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def once(self, name: str, fn: Callable[[str], Awaitable[T]], *, type: type[T] | Any = Any) -> T:
        """Call the outside at most once successfully: the result is committed before it is returned.

        Args:
            name: Names the call within this delivery.
            fn: Called with an idempotency key that is the same in every attempt of this delivery, replays included. It
                may run again if the process dies after the call and before the commit: at least once, with a key.
            type: What the result is decoded as; default: plain values.

        Raises:
            ContextClosedError: the attempt is over.
        """
        self._check_open()
        self._check_async("ctx.once")
        key = f"{self._origin()}/{name}"
        body = await self._pipeline.journalled(key)
        if body is None:
            body = encode(await fn(key))
            self._check_open()
            self._weigh(1, len(body))
            await self._pipeline.journal(key, body)
            self._check_open()
        self._used = True
        if self._once is None:
            self._once = []
        self._once.append(key)
        result: T = msgspec.msgpack.decode(body, type=type)
        return result

    async def ask(self, request: Request[A], *, deadline: float = 30.0) -> A:
        """Ask another component, and wait for the answer that it committed.

        Args:
            request: The question.
            deadline: Seconds to wait, bounded by what is left of the handler's timeout and of its asker's deadline.

        Raises:
            AskCycleError: the question came back to a component and key that waits in this chain.
            AskFailedError: its handler failed for good.
            DeadlineExceededError: no answer in time.
        """
        self._check_open()
        self._check_async("ctx.ask")
        codec, payload = self._pipeline.gate.encoded(request)
        what = f"{self._delivery.id:x}.{blake2b(codec.type.encode() + payload, digest_size=8).hexdigest()}"
        if self._asked is None:
            self._asked = {}
        ask_id = f"{what}.{self._asked.setdefault(what, 0)}"  # the same question again has the same answer in all attempts
        self._asked[what] += 1
        left_s = until_of(self) - self._pipeline.clock.now()
        return await self._pipeline.asks.ask(request, ask_id=ask_id, deadline_s=min(deadline, left_s), asker=self._delivery)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _origin(self) -> str:
        return self._delivery.origin or f"{self._delivery.id:x}"

    def _timer_address(self) -> str:
        return self._delivery.address or self._route.component.name

    def _add_timer(self, change: Timer | tuple[str, str]) -> None:
        if self._timers is None:
            self._timers = []
        self._timers.append(change)

    def _weigh(self, records: int, size: int) -> None:
        self._used = True
        self._records += records
        self._bytes += size + RECORD_BYTES * records
        if self._records > BATCH_RECORDS or self._bytes > BATCH_BYTES:
            raise BatchLimitError(
                f"{self._route.name}: one call adds {self._records} records and {self._bytes} bytes; the limits are "
                f"{BATCH_RECORDS} and {BATCH_BYTES}: emit one event that does the rest, or split the work"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ContextClosedError(f"{self._route.name}: this attempt at {self._delivery.event_id} is over")
        if self._route.read_only:
            raise GenesisError(f"{self._route.name} is read-only: it only answers")

    def _check_async(self, what: str) -> None:
        if not self._route.is_async:
            raise GenesisError(f"{what} needs an async handler: write async def {self._route.method}(...)")


def _checked_name(name: str) -> str:
    if not fits(name):
        raise InvalidEventError(f"a timer's name is text, not {name!r}")
    return name


def handed_down(headers: dict[str, str] | None) -> dict[str, str] | None:
    """Headers that an event's children inherit: its trace."""
    if not headers:
        return None
    kept: dict[str, str] = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    return kept or None
