"""What the platform carries: priorities, deliveries, pending work, timers, dead letters.

The unit of work is the *delivery*: one event for one component. Everything here is a plain value; engines store it,
layers decide over it, the runtime moves it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from msgspec import Struct


class Priority(IntEnum):
    """The five priorities, most urgent first. A lower number is more urgent."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BACKGROUND = 4


class Kind(IntEnum):
    """How a delivery was born. External ones passed the gate; all others are work that was begun inside."""

    EXTERNAL = 0
    EMITTED = 1
    TIMER = 2
    REPLAY = 3


class Reason(StrEnum):
    """Why a delivery is pending."""

    RETRY = "retry"
    """A handler failed; it runs again when due."""
    UNAVAILABLE = "unavailable"
    """Something it needs is down; it runs again when due and no attempt is counted."""
    HELD = "held"
    """An earlier delivery of its key is pending; it runs after that one."""
    SLOW = "slow"
    """It is still running, and so much was done behind it that it left its lane."""
    PARKED = "parked"
    """Its attempts are spent and its component asked to park: its key waits for a person."""
    SUSPECT = "suspect"
    """It was running when the process died: it runs again alone."""


PRIORITIES = len(Priority)
LANES = 2 * PRIORITIES
"""Lanes of a partition: for each priority one for work that was begun (emits, timers, replays) and one for external."""
SEQUENCE_BITS = 48
"""A delivery id is ``(partition * LANES + lane) << 48 | sequence``: 2**48 deliveries a lane last for 8,900 years at 1,000/s."""
SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1


def lane_of(priority: int, kind: int) -> int:
    """The lane, 0 to 9, of a delivery in its partition: begun work goes before external work of the same priority."""
    return 2 * priority + (kind == Kind.EXTERNAL)


def lane_start(partition: int, lane: int) -> int:
    """The id just before the first delivery of a lane."""
    return (partition * LANES + lane) << SEQUENCE_BITS


class Delivery(Struct, array_like=True, gc=False):
    """One event for one component.

    The fields up to `headers` are stored; the rest belongs to the process that holds the delivery.
    """

    route: str
    """``component:type``: which handler runs it."""
    address: str
    """``component/key``: whose state it touches and in whose order it runs; empty for stateless components."""
    event_id: str
    source: str
    payload: bytes
    born_at: float
    """Wall clock, seconds since the epoch."""
    kind: int = Kind.EXTERNAL
    priority: int = Priority.NORMAL
    expires_at: float | None = None
    origin: str = ""
    """The first life of a replayed delivery: journalled calls of that life are found under it."""
    headers: dict[str, str] | None = None
    id: int = 0
    attempt: int = 0
    """Attempts that ended before this one."""
    pending: str = ""
    """Reason of its row in the table of pending work; empty while its row is in a lane."""
    mark: Any = b""
    """What its event's source and id are known by, on the first delivery of an event that may come again."""
    message: Any = None
    """The decoded message, when it was handed over without a detour through the store."""

    @property
    def component(self) -> str:
        """Name of the component that it is for."""
        return self.route.partition(":")[0]

    @property
    def type(self) -> str:
        """Type of its event."""
        return self.route.partition(":")[2]

    @property
    def lane(self) -> int:
        """Its lane in its partition, 0 to 9."""
        return lane_of(self.priority, self.kind)

    def stored(self) -> tuple[Any, ...]:
        """The stored fields, in order."""
        return (
            self.route,
            self.address,
            self.event_id,
            self.source,
            self.payload,
            self.born_at,
            self.kind,
            self.priority,
            self.expires_at,
            self.origin,
            self.headers,
        )


class Outgoing(Delivery, array_like=True, gc=False):
    """A delivery in the outbox: its sink takes it, in the order of numbers."""

    number: int = 0
    """Unique in the partition, and greater than that of all that went to the outbox before."""

    @classmethod
    def of(cls, delivery: Delivery, number: int) -> Outgoing:
        """A delivery, under its number."""
        row = cls(*delivery.stored())
        row.id, row.number = delivery.id, number
        return row

    @property
    def key(self) -> str:
        """Of its row: rows of a sink are stored in the order of numbers."""
        return f"{self.component}/{self.number:016x}"


class Pending(Struct, gc=False):
    """A delivery that left its lane without an end."""

    delivery: Delivery
    reason: Reason
    due: float | None = None
    """Wall clock; None: it waits for its key, for its own end, or for a person."""


class Timer(Struct, array_like=True, gc=False):
    """A message that will be emitted at a time of the wall clock, named per address."""

    address: str
    """Who set it: ``component/key`` (``component`` for a stateless one)."""
    name: str
    due: float
    type: str
    payload: bytes
    priority: int
    event_id: str
    every_s: float | None = None
    """Period of a schedule; None for a timer that fires once."""
    headers: dict[str, str] | None = None


class DeadLetter(Struct, omit_defaults=True):
    """A delivery that ended without success, kept whole so that it can be looked at and replayed."""

    delivery: Delivery
    reason: str
    """``rejected``, ``failed``, ``crashed``, ``unhandled`` or ``undecodable``."""
    detail: str
    attempts: int
    died_at: float
    error: str = ""
    """Class of the last error."""
    traceback: str = ""
    app_version: str = ""
    state_version: int = 0


class Incoming(Struct, frozen=True, gc=False):
    """One of several events that are accepted together."""

    message: Any
    id: str | None = None
    source: str | None = None
    priority: Priority | None = None
    headers: dict[str, str] | None = None


class Receipt(Struct, frozen=True):
    """The yes to an offered event: it is durable."""

    id: str
    source: str
    duplicate: bool = False
    """An event with this source and id had been accepted before; nothing was added."""
    deliveries: int = 1
    """Components that it goes to; 0 for a duplicate."""
