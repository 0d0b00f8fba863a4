"""The gate: is it a known, well-formed event, not seen before, and is there room? Then it becomes deliveries.

In: a message (or plain JSON fields) with id and source. Out: an `Offer` that the pipeline puts into a group, or an error
that says why not. Nothing is stored here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NoReturn

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
from genesis.layers.prevention.horizon import Horizon, Mark
from genesis.layers.recovery.pending import KEY_MAX, PendingWork
from genesis.runtime.component import Route
from genesis.runtime.definition import Definition

MESSAGE_BYTES = 1 << 20
"""Largest payload: what the strictest engine takes in one message."""


NOTHING = Receipt("", "", deliveries=0)
"""Of an offer that holds no event yet."""


class Offer:
    """Events on their way through one group: all of them are accepted, or none."""

    __slots__ = ("deliveries", "echo", "events", "position", "receipt", "size", "waiter")

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.receipt = NOTHING
        """Of its last event."""
        self.events = 0
        self.size = 0
        self.position: tuple[str, bytes] | None = None
        """Of a source: its name and encoded position, stored with the events."""
        self.waiter: asyncio.Future[None] | None = None
        self.echo: asyncio.Future[None] | None = None
        """What its duplicates wait for: a producer that gives up takes only its own `waiter` with it."""


Make = Callable[[list[Delivery], Message, str, str, int, int | None, dict[str, str] | None, Mark], int]


class _Known:
    """What the gate knows of a message class: how it is encoded, who handles it, and what makes its deliveries."""

    __slots__ = ("codec", "make", "routes")

    def __init__(self, codec: MessageCodec, routes: list[Route], make: Make) -> None:
        self.codec, self.routes, self.make = codec, routes, make


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
        self._pending_keys = pending.keys
        self._mark = horizon.marker(self.source)
        self._known = horizon.known
        self._prefix = f"{rng.getrandbits(64):016x}"
        self._made = 0
        self._by_class: dict[type, _Known] = {}
        self.in_flight: dict[Mark, Offer] = {}

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
        if into is None:
            into = Offer()
        mark: Mark = ""
        if id is None:
            id = self.new_id()
        else:
            if not (isinstance(id, str) and id and (id.isascii() or fits(id))):
                self._misfit("id", id)
            mark = self._mark(id) if source is None else self._horizon.marker(source)(id)
            if mark in self._known:
                return self._duplicate(into, id, source or self.source, mark)
        if source is None:
            source = self.source
        ledger = self._ledger
        try:
            if (not self.open or ledger.in_lanes + ledger.in_pending + ledger.in_outbox >= self._admission.limit) and not begun:
                refusal = self.refusal()
                assert refusal is not None
                raise refusal
            known = self._by_class.get(type(message)) or self._learn(message)
            deliveries = into.deliveries
            count = known.make(deliveries, message, id, source, 0, priority, headers, mark)
            if not count:
                route = self._definition.routes_of(type_of(type(message)))[0]
                raise UnknownTypeError(f"{route.codec.type} is a read-only request: ask it, it is not sent")
            if self._pending_keys and not begun:
                self._check_keys(deliveries, count)
        except Exception:
            self.count_refused()
            raise
        if mark:
            self._known.add(mark)
        into.receipt = Receipt(id, source, False, count)
        into.events += 1
        into.size += len(deliveries[-1].payload) * count
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
            self.count_refused()
            raise

    def message_of_json(self, kind: str, body: bytes) -> Message:
        """The message of a type, from JSON. Raises as `message`, and MalformedEventError when it is none."""
        try:
            return self._definition.routes_of(kind)[0].codec.from_json(body)
        except RefusedError:
            self.count_refused()
            raise

    def withdraw(self, offer: Offer) -> None:
        """Take back an offer that was not accepted: its events were refused, and may come again."""
        self.count_refused(offer.events)
        for delivery in offer.deliveries:
            if delivery.mark:
                self._known.discard(delivery.mark)

    def count_refused(self, events: int = 1) -> None:
        """These were offered and refused."""
        self._ledger.offered += events
        self._ledger.refused += events

    def refusal(self) -> RefusedError | None:
        """Why no event would be accepted now; None: there is room."""
        if not self.open:
            return DrainingError("the node is draining: send to another, or again after the restart")
        refusal = self._admission.ask(self._ledger.waiting)
        return None if refusal is None else IntakeFullError(*refusal)

    def _duplicate(self, offer: Offer, event_id: str, source: str, mark: Mark) -> Offer:
        offer.receipt = Receipt(event_id, source, True, 0)
        self._ledger.offered += 1
        self._ledger.duplicate += 1
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
        self.count_refused()
        raise InvalidEventError(f"{what} is {found!r}: give text, one character at least, in characters that UTF-8 has")

    def _check_keys(self, deliveries: list[Delivery], count: int) -> None:
        """Refuse the last `count` of these when a key of theirs has too much pending work."""
        for delivery in deliveries[-count:]:
            if self._pending.count(delivery.address) >= KEY_MAX:
                del deliveries[-count:]
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
        made: list[Delivery] = []
        known.make(made, message, event_id, source, kind, priority, headers, "")
        return made

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
        codec = routes[0].codec if routes else MessageCodec(cls)
        known = self._by_class[cls] = _Known(codec, routes, _maker(codec, routes, self._wall))
        return known


def _maker(codec: MessageCodec, routes: list[Route], wall: Callable[[], float]) -> Make:
    """The function that adds the deliveries of a message to a list: one for each class, since every event passes here.

    It gives their number, or raises InvalidEventError or BatchLimitError and adds none. The first one bears the mark.
    """
    decode, usual, life_s, type_, title = (
        codec.decode,
        codec.priority,
        codec.expires_after_s,
        codec.type,
        codec.message.__name__,
    )
    name, address_of = (routes[0].name, routes[0].address_of) if len(routes) == 1 else ("", None)

    def make(
        to: list[Delivery],
        message: Message,
        event_id: str,
        source: str,
        kind: int,
        priority: int | None,
        headers: dict[str, str] | None,
        mark: Mark,
    ) -> int:
        try:
            payload = encode(message)
            seen = decode(payload)
        except UNFIT as error:
            raise InvalidEventError(f"{title} ({type_}): {error}") from error
        if len(payload) > MESSAGE_BYTES:
            raise BatchLimitError(
                f"{type_}: a payload of {len(payload)} bytes, the limit is {MESSAGE_BYTES}: send its place instead"
            )
        born_at = wall()
        if priority is None:
            level = usual
        elif type(priority) is Priority:  # a call of the enumeration would cost as much as encoding the message
            level = priority._value_
        else:
            level = level_of(priority)
        expires_at = None if life_s is None else born_at + life_s
        if address_of is not None:  # one handles it, as with nine of ten events: it gets what was decoded
            at = address_of(seen)
            to.append(
                Delivery(
                    name, at, event_id, source, payload, born_at, kind, level, expires_at, "", headers, 0, 0, "", mark, seen
                )
            )
            return 1
        made = [
            Delivery(r.name, r.address_of(seen), event_id, source, payload, born_at, kind, level, expires_at, "", headers)
            for r in routes
        ]
        if made:
            made[0].mark = mark
        to += made
        return len(made)

    return make


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
