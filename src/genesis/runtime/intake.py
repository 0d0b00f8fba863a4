"""The gate: is it a known, well-formed event, not seen before, and is there room? Then it becomes deliveries.

In: a message (or plain JSON fields) with id and source. Out: an `Offer` that the pipeline puts into a group, or an error
that says why not. Nothing is stored here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, NoReturn

from msgspec import Struct

from genesis.core.errors import (
    BatchLimitError,
    DrainingError,
    IntakeFullError,
    InvalidEventError,
    RefusedError,
    UnknownTypeError,
)
from genesis.core.event import Delivery, Priority, Receipt
from genesis.core.message import UNFIT, Message, MessageCodec, encode, type_of
from genesis.core.ports import Clock, Ledger
from genesis.layers.prevention.admission import Admission
from genesis.layers.prevention.horizon import Horizon
from genesis.layers.recovery.pending import KEY_MAX, PendingWork
from genesis.runtime.component import Route
from genesis.runtime.definition import Definition

MESSAGE_BYTES = 1 << 20
"""Largest payload: what the strictest engine takes in one message."""


class Offer(Struct, gc=False):
    """Events on their way through one group: all of them are accepted, or none."""

    deliveries: list[Delivery]
    receipt: Receipt
    """Of its last event."""
    events: int = 0
    duplicates: int = 0
    size: int = 0
    position: tuple[str, bytes] | None = None
    """Of a source: its name and encoded position, stored with the events."""
    waiter: asyncio.Future[None] | None = None
    echo: asyncio.Future[None] | None = None
    """What its duplicates wait for: a producer that gives up takes only its own `waiter` with it."""


class _Known:
    """What the gate knows of a message class: how it is decoded, and who handles it."""

    __slots__ = ("codec", "decode", "expires_after_s", "priority", "route", "routes")

    def __init__(self, codec: MessageCodec, routes: list[Route]) -> None:
        self.codec, self.routes = codec, routes
        self.decode, self.priority, self.expires_after_s = codec.decode, codec.priority, codec.expires_after_s
        self.route = routes[0] if len(routes) == 1 else None
        """The only one, as for nine of ten events."""


class Gate:
    """Where external events are checked, and every event becomes deliveries."""

    def __init__(
        self,
        definition: Definition,
        *,
        clock: Clock,
        horizon: Horizon,
        admission: Admission,
        pending: PendingWork,
        ledger: Ledger,
        rng: Random,
    ) -> None:
        self._ledger = ledger
        self.source = definition.name
        self.open = True
        self._definition = definition
        self._wall = clock.wall
        self._horizon = horizon
        self._admission = admission
        self._pending = pending
        self._prefix = f"{rng.getrandbits(64):016x}"
        self._made = 0
        self._by_class: dict[type, _Known] = {}
        self.in_flight: dict[bytes, Offer] = {}

    # --- from the outside -------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """An id that nobody has used: it needs no remembering."""
        self._made += 1
        return f"{self._prefix}-{self._made:x}"

    def offer(
        self,
        message: Message,
        id: str | None = None,
        source: str | None = None,
        priority: Priority | None = None,
        headers: dict[str, str] | None = None,
        into: Offer | None = None,
        *,
        begun: bool = False,
    ) -> Offer:
        """Check an event and put it into an offer. What belongs to work that was begun is not refused for want of room.

        Raises:
            RefusedError: one of its kinds; counted as refused.
        """
        if source is not None or headers is not None:
            self._check_texts(source, headers)
        if source is None:
            source = self.source
        mark, ledger = b"", self._ledger
        if id is None:
            id = self.new_id()
        else:
            if not (isinstance(id, str) and id and (id.isascii() or fits(id))):
                self._misfit("id", id)
            mark = self._horizon.mark(source, id)
            if mark in self._horizon.known:
                return self._duplicate(into, id, source, mark)
        try:
            if (not self.open or ledger.in_lanes + ledger.in_pending >= self._admission.limit) and not begun:
                self._refuse()
            deliveries = self.deliveries(message, id, source, 0, priority, headers)
            if not deliveries:
                route = self._definition.routes_of(type_of(type(message)))[0]
                raise UnknownTypeError(f"{route.codec.type} is a read-only request: ask it, it is not sent")
            if self._pending.any_keys and not begun:
                self._check_keys(deliveries)
        except Exception:
            ledger.offered += 1
            ledger.refused += 1
            raise
        first = deliveries[0]
        count = len(deliveries)
        if mark:
            first.mark = mark
            self._horizon.known.add(mark)
        receipt = Receipt(id, source, False, count)
        if into is None:
            return Offer(deliveries, receipt, 1, 0, len(first.payload) * count)
        into.deliveries += deliveries
        into.receipt = receipt
        into.events += 1
        into.size += len(first.payload) * count
        return into

    def message(self, kind: str, fields: Any) -> Message:
        """The message of a type, from plain JSON values.

        Raises:
            UnknownTypeError: nobody handles the type. Counted as refused, like the next.
            InvalidEventError: the fields do not fit.
        """
        try:
            return self._definition.routes_of(kind)[0].codec.from_builtins(fields)
        except RefusedError:
            self._ledger.offered += 1
            self._ledger.refused += 1
            raise

    def _duplicate(self, into: Offer | None, event_id: str, source: str, mark: bytes) -> Offer:
        receipt = Receipt(event_id, source, True, 0)
        offer = into if into is not None else Offer([], receipt)
        offer.receipt = receipt
        offer.duplicates += 1
        first = self.in_flight.get(mark)
        if first is not None and first is not offer and offer.waiter is None:
            if first.echo is None:
                first.echo = asyncio.get_running_loop().create_future()
            offer.waiter = first.echo
        return offer

    def _check_texts(self, source: str | None, headers: dict[str, str] | None) -> None:
        """Refuse what no store could hold."""
        if source is not None and not fits(source):
            self._misfit("source", source)
        if headers is not None and not all(fits(name) and (value == "" or fits(value)) for name, value in headers.items()):
            self._misfit("headers", headers)

    def _misfit(self, what: str, found: object) -> NoReturn:
        self._ledger.offered += 1
        self._ledger.refused += 1
        raise InvalidEventError(f"{what} is {found!r}: give text, one character at least, in characters that UTF-8 has")

    def _refuse(self) -> NoReturn:
        if not self.open:
            raise DrainingError("the node is draining: send to another, or again after the restart")
        refusal = self._admission.ask(self._ledger.waiting)
        assert refusal is not None
        raise IntakeFullError(*refusal)

    def _check_keys(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._pending.count(delivery.address) >= KEY_MAX:
                raise IntakeFullError(f"{delivery.address} has {KEY_MAX} pending deliveries: look at `genesis status`", 30.0)

    # --- every event ------------------------------------------------------------------------------------------------

    def deliveries(
        self,
        message: Message,
        event_id: str,
        source: str,
        kind: int,
        priority: int | None,
        headers: dict[str, str] | None,
    ) -> list[Delivery]:
        """One delivery for each component that handles the message; none when nobody does.

        Raises:
            InvalidEventError: the message does not fit its class, or its key is none.
        """
        known = self._by_class.get(type(message)) or self._learn(message)
        try:
            payload = encode(message)
            seen = known.decode(payload)
        except UNFIT as error:
            raise InvalidEventError(f"{type(message).__name__} ({known.codec.type}): {error}") from error
        if len(payload) > MESSAGE_BYTES:
            raise BatchLimitError(
                f"{known.codec.type}: a payload of {len(payload)} bytes, the limit is {MESSAGE_BYTES}: send its place instead"
            )
        born_at = self._wall()
        if priority is None:
            level = known.priority
        elif type(priority) is Priority:  # a call of the enumeration would cost as much as encoding the message
            level = priority._value_
        else:
            level = level_of(priority)
        expires_at = None if known.expires_after_s is None else born_at + known.expires_after_s
        route = known.route
        if route is not None:
            address = route.address_of(seen)
            return [
                Delivery(
                    route.name,
                    address,
                    event_id,
                    source,
                    payload,
                    born_at,
                    kind,
                    level,
                    expires_at,
                    "",
                    headers,
                    0,
                    0,
                    "",
                    b"",
                    seen,
                )
            ]
        return [
            Delivery(r.name, r.address_of(seen), event_id, source, payload, born_at, kind, level, expires_at, "", headers)
            for r in known.routes
        ]

    def encoded(self, message: Message) -> tuple[MessageCodec, bytes]:
        """Codec and payload of a message that will become deliveries later.

        Raises:
            InvalidEventError: it does not fit its class, or its key is none.
        """
        known = self._by_class.get(type(message)) or self._learn(message)
        payload, seen = known.codec.checked(message)
        for route in known.routes:
            route.address_of(seen)
        return known.codec, payload

    def of_payload(self, type: str, payload: bytes, **given: Any) -> list[Delivery]:
        """Deliveries of an event that was encoded long ago (a timer that fires).

        One whose handler or fields are gone from the code still becomes a delivery: it ends as a dead letter, in sight.
        """
        routes = self._definition.by_type.get(type, [])
        if not routes:
            return [Delivery(route=f":{type}", address="", payload=payload, **given)]
        life_s = routes[0].codec.expires_after_s
        if life_s is not None:
            given["expires_at"] = given["born_at"] + life_s
        try:
            seen = routes[0].codec.decode(payload)
            addresses = [route.address_of(seen) for route in routes]
        except Exception:
            addresses = [""] * len(routes)
        return [Delivery(route=r.name, address=a, payload=payload, **given) for r, a in zip(routes, addresses, strict=True)]

    def _learn(self, message: Message) -> _Known:
        cls = type(message)
        if not isinstance(message, Message):
            raise UnknownTypeError(f"{message!r} is no message: send an instance of a class that extends Message")
        routes = [route for route in self._definition.by_type.get(type_of(cls), ()) if not route.read_only]
        known = self._by_class[cls] = _Known(routes[0].codec if routes else MessageCodec(cls), routes)
        return known


def level_of(priority: int) -> int:
    """A priority that a caller gave. Raises InvalidEventError when it is none."""
    try:
        return int(Priority(priority))
    except ValueError:
        raise InvalidEventError(f"{priority!r} is no priority: Priority.CRITICAL to Priority.BACKGROUND") from None


def fits(text: object) -> bool:
    """Whether it is a text that a store can hold."""
    try:
        return isinstance(text, str) and bool(text.encode())
    except UnicodeEncodeError:
        return False
