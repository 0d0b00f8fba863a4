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

from genesis.core.errors import BatchLimitError, DrainingError, IntakeFullError, UnknownTypeError
from genesis.core.event import Delivery, Kind, Priority, Receipt
from genesis.core.message import Message, MessageCodec, type_of
from genesis.core.ports import BATCH_BYTES, BATCH_RECORDS, Clock, Ledger
from genesis.layers.prevention.admission import Admission
from genesis.layers.prevention.horizon import Horizon
from genesis.layers.recovery.pending import KEY_MAX, PendingWork
from genesis.runtime.component import Definition, Route

MESSAGE_BYTES = 1 << 20
"""Largest payload: what the strictest engine takes in one message."""


class Offer(Struct, gc=False):
    """Events on their way through one group: all of them are accepted, or none."""

    deliveries: list[Delivery]
    receipts: list[Receipt]
    digests: list[bytes]
    events: int = 0
    duplicates: int = 0
    size: int = 0
    position: tuple[str, bytes] | None = None
    """Of a source: its name and encoded position, stored with the events."""
    waiter: asyncio.Future[None] | None = None


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
        rng: Random,
    ) -> None:
        self.source = definition.name
        self.open = True
        self._definition = definition
        self._clock = clock
        self._horizon = horizon
        self._admission = admission
        self._pending = pending
        self._prefix = f"{rng.getrandbits(64):016x}"
        self._made = 0
        self._by_class: dict[type, tuple[MessageCodec, tuple[Route, ...]]] = {}
        self.in_flight: dict[bytes, Offer] = {}

    # --- from the outside -------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """An id that nobody has used: it needs no remembering."""
        self._made += 1
        return f"{self._prefix}-{self._made:x}"

    def offer(
        self,
        message: Message,
        ledger: Ledger,
        id: str | None = None,
        source: str | None = None,
        priority: Priority | None = None,
        headers: dict[str, str] | None = None,
        into: Offer | None = None,
    ) -> Offer:
        """Check an event and put it into an offer.

        Raises:
            RefusedError: one of its kinds; counted as refused.
        """
        if source is None:
            source = self.source
        mark = None
        if id is None:
            event_id = self.new_id()
        else:
            event_id, mark = id, self._horizon.digest(source, id)
            if mark in self._horizon:
                return self._duplicate(into, event_id, source, mark)
        try:
            if not self.open or ledger.in_lanes + ledger.in_pending >= self._admission.limit:
                self._refuse(ledger)
            deliveries = self.deliveries(message, event_id, source, Kind.EXTERNAL, priority, headers)
            if not deliveries:
                route = self._definition.routes_of(type_of(type(message)))[0]
                raise UnknownTypeError(f"{route.codec.type} is a read-only request: ask it, it is not sent")
            if self._pending.any_keys:
                self._check_keys(deliveries)
        except Exception:
            ledger.offered += 1
            ledger.refused += 1
            raise
        count = len(deliveries)
        size = len(deliveries[0].payload) * count
        receipt = Receipt(event_id, source, False, count)
        if into is None:
            offer = Offer(deliveries, [receipt], [] if mark is None else [mark], 1, 0, size)
        else:
            offer = into
            offer.deliveries += deliveries
            offer.receipts.append(receipt)
            if mark is not None:
                offer.digests.append(mark)
            offer.events += 1
            offer.size += size
        if mark is not None:
            self._horizon.add(mark)
            self.in_flight[mark] = offer
        return offer

    def message(self, kind: str, fields: Any) -> Message:
        """The message of a type, from plain JSON values.

        Raises:
            UnknownTypeError: nobody handles the type.
            InvalidEventError: the fields do not fit.
        """
        return self._definition.routes_of(kind)[0].codec.from_builtins(fields)

    def check_size(self, offer: Offer) -> None:
        """Raises BatchLimitError when an offer is more than one atomic step may hold."""
        if len(offer.deliveries) > BATCH_RECORDS or offer.size > BATCH_BYTES:
            raise BatchLimitError(
                f"{len(offer.deliveries)} deliveries of {offer.size} bytes at once; the limits are {BATCH_RECORDS} and {BATCH_BYTES}"
            )

    def withdraw(self, offer: Offer) -> None:
        """The offer will not be stored: its ids may come again."""
        for mark in offer.digests:
            self.in_flight.pop(mark, None)
            self._horizon.discard(mark)

    def _duplicate(self, into: Offer | None, event_id: str, source: str, mark: bytes) -> Offer:
        offer = into if into is not None else Offer([], [], [])
        offer.duplicates += 1
        offer.receipts.append(Receipt(event_id, source, True, 0))
        first = self.in_flight.get(mark)
        if first is not None and first is not offer and offer.waiter is None:
            offer.waiter = first.waiter
        return offer

    def _refuse(self, ledger: Ledger) -> NoReturn:
        if not self.open:
            raise DrainingError("the node is draining: send to another, or again after the restart")
        refusal = self._admission.ask(ledger.in_lanes + ledger.in_pending)
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
        kind: Kind,
        priority: Priority | None,
        headers: dict[str, str] | None,
    ) -> list[Delivery]:
        """One delivery for each component that handles the message; none when nobody does.

        Raises:
            InvalidEventError: the message does not fit its class, or its key is none.
        """
        known = self._by_class.get(type(message))
        codec, routes = known if known is not None else self._learn(message)
        payload, seen = codec.checked(message)
        if len(payload) > MESSAGE_BYTES:
            raise BatchLimitError(
                f"{codec.type}: a payload of {len(payload)} bytes; the limit is {MESSAGE_BYTES}: store it and send its place"
            )
        born_at = self._clock.wall()
        level = codec.priority if priority is None else int(priority)
        expires_at = None if codec.expires_after_s is None else born_at + codec.expires_after_s
        if len(routes) == 1:  # nine of ten events
            route = routes[0]
            address = route.address_of(seen)
            return [
                Delivery(route.name, address, event_id, source, payload, born_at, kind, level, expires_at, "", headers, 0, 0, "", seen)
            ]
        return [
            Delivery(r.name, r.address_of(seen), event_id, source, payload, born_at, kind, level, expires_at, "", headers)
            for r in routes
        ]

    def encoded(self, message: Message) -> tuple[MessageCodec, bytes]:
        """Codec and payload of a message that will become deliveries later.

        Raises:
            InvalidEventError: it does not fit its class, or its key is none.
        """
        known = self._by_class.get(type(message))
        codec, routes = known if known is not None else self._learn(message)
        payload, seen = codec.checked(message)
        for route in routes:
            route.address_of(seen)
        return codec, payload

    def of_payload(self, type: str, payload: bytes, **given: Any) -> list[Delivery]:
        """Deliveries of an event that was encoded long ago (a timer that fires).

        One whose handler or fields are gone from the code still becomes a delivery: it ends as a dead letter, in sight.
        """
        routes = self._definition.by_type.get(type, [])
        if not routes:
            return [Delivery(route=f":{type}", address="", payload=payload, **given)]
        try:
            seen = routes[0].codec.decode(payload)
            addresses = [route.address_of(seen) for route in routes]
        except Exception:
            addresses = [""] * len(routes)
        return [Delivery(route=r.name, address=a, payload=payload, **given) for r, a in zip(routes, addresses, strict=True)]

    def _learn(self, message: Message) -> tuple[MessageCodec, tuple[Route, ...]]:
        cls = type(message)
        if not isinstance(message, Message):
            raise UnknownTypeError(f"{message!r} is no message: send an instance of a class that extends Message")
        routes = [route for route in self._definition.by_type.get(type_of(cls), ()) if not route.read_only]
        known = self._by_class[cls] = (routes[0].codec if routes else MessageCodec(cls), tuple(routes))
        return known
