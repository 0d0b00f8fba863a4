"""The edges: what the runtime asks of an engine, a clock and a crash injector.

An engine stores what one commit holds, all or nothing, under the epoch of its owner. The algorithms (order, retries,
ledger, take-over) live above it and are the same on every engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol

from msgspec import Struct
from msgspec import field as default

from genesis.core.event import LANES, Delivery, Pending, Timer

BATCH_RECORDS = 900
"""Records one handler call may add. Below the 1,000 messages of an atomic JetStream batch, on all engines alike."""
BATCH_BYTES = 1 << 20
"""Bytes one handler call may add: what the strictest engine takes in one atomic step."""
GROUP_ROWS = 1024
"""Rows at which a group is closed: past this a commit gains nothing and its members wait longer."""
STATE_WARN_BYTES = 64 << 10
STATE_MAX_BYTES = 1 << 20


class Clock(Protocol):
    """Two clocks that are never mixed: `now` for durations, `wall` for what is stored or shown."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


class CrashPoint(StrEnum):
    """Named places of the commit path at which a drill or a test may kill the process."""

    APPEND = "append"
    """A group was sealed; none of its statements ran."""
    EXECUTE = "execute"
    """All statements ran; the transaction is still open."""
    COMMIT = "commit"
    """The transaction is durable; nobody knows it yet."""
    ANSWER = "answer"
    """State and ledger are promoted; no producer has its yes yet."""
    HANDOFF = "handoff"
    """Producers have their yes; emitted deliveries are not in the lanes yet."""


class Crasher(Protocol):
    """Kills the process (or the simulated one) when its time has come."""

    def __call__(self, point: CrashPoint, /) -> None:
        """Called whenever a named point is passed."""
        ...


class Answer(Enum):
    """What an engine says of a commit."""

    COMMITTED = "committed"
    FENCED = "fenced"
    """The epoch is stale: nothing was stored and this owner must stop."""
    UNKNOWN = "unknown"
    """It may or may not be stored: `claim` tells, by the epoch and id of the last commit in the head."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an engine can promise."""

    name: str
    durable: bool
    """A commit survives the end of the process and the loss of power."""
    immediate: bool
    """`commit` never waits: it may be driven to its end without an event loop."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Room in the store."""

    used_bytes: int
    free_bytes: int
    """Left on the disk (or in the quota) below it."""


class Ledger(Struct, array_like=True):
    """Counters of a partition, changed in the same commit as what they count.

    `offered = accepted + refused + duplicate` counts events at the gate;
    `external + emitted + timer + replay = done + expired + dead + waiting` counts deliveries.
    """

    offered: int = 0
    accepted: int = 0
    refused: int = 0
    duplicate: int = 0
    external: int = 0
    emitted: int = 0
    timer: int = 0
    replay: int = 0
    done: int = 0
    expired: int = 0
    dead: int = 0
    in_lanes: int = 0
    """Waiting in a lane, running ones included."""
    in_pending: int = 0
    """Waiting in the table of pending work."""
    retries: int = 0
    """Attempts that failed and were given another."""
    in_outbox: int = 0
    """Waiting for a sink to take them."""

    @property
    def born(self) -> int:
        """Deliveries that ever existed."""
        return self.external + self.emitted + self.timer + self.replay

    @property
    def waiting(self) -> int:
        """Deliveries without an end yet."""
        return self.in_lanes + self.in_pending + self.in_outbox

    def imbalance(self) -> str:
        """What does not add up, in words; empty when all does."""
        gate = self.accepted + self.refused + self.duplicate
        ended = self.done + self.expired + self.dead + self.waiting
        wrong = []
        if self.offered != gate:
            wrong.append(f"offered {self.offered} != accepted + refused + duplicate {gate}")
        if self.born != ended:
            wrong.append(f"born {self.born} != done + expired + dead + waiting {ended}")
        return "; ".join(wrong)


class Head(Struct):
    """The record that a commit replaces as a whole: where the partition stands."""

    epoch: int = 0
    commit_id: int = 0
    last_epoch: int = 0
    """Epoch of the owner who stored it last; set by `claim`. Another owner may have used the same commit id."""
    clean: bool = True
    """The last owner closed in order; nothing was running."""
    next_sequence: list[int] = []
    """Next sequence of each lane, 1 at first."""
    ledger: Ledger = default(default_factory=Ledger)
    born_by_priority: list[int] = []
    ended_by_priority: list[int] = []
    waiting_by_lane: list[int] = []
    running: list[int] = []
    """Ids of the deliveries that were running when the group was sealed, or were about to."""
    next_number: int = 1
    """Of what goes to the outbox next."""
    outgoing: dict[str, int] = {}
    """Waiting in the outbox, by sink."""

    @classmethod
    def fresh(cls) -> Head:
        """The head of a partition that has no history."""
        return cls(
            next_sequence=[1] * LANES,
            ledger=Ledger(),
            born_by_priority=[0] * 5,
            ended_by_priority=[0] * 5,
            waiting_by_lane=[0] * LANES,
            running=[],
            outgoing={},
        )


StateRow = tuple[int, bytes]
"""(version of the state class, encoded state)."""

TABLES = ("dead", "dedupe", "fact", "once", "reply", "request", "answer", "source", "out")
"""Named tables of a partition beside lanes, state, pending and timers: text keys, bytes as values, scanned in key order."""


@dataclass(slots=True)
class Batch:
    """One atomic step of one partition."""

    append: list[Delivery] = field(default_factory=list)
    """New deliveries, ids given."""
    done: list[int] = field(default_factory=list)
    """Ids that leave their lane for good."""
    pend: list[Pending] = field(default_factory=list)
    """Deliveries that leave their lane for the pending table, or change their row there."""
    unpend: list[int] = field(default_factory=list)
    """Ids that leave the pending table for good."""
    state: dict[str, StateRow] = field(default_factory=dict)
    timers: dict[tuple[str, str], Timer | None] = field(default_factory=dict)
    """By (address, name): the new timer, or None to remove it."""
    tables: dict[str, dict[str, bytes | None]] = field(default_factory=dict)
    """By table and key: the new value, or None to remove it."""

    def put(self, table: str, key: str, value: bytes | None) -> None:
        """Set (or, with None, remove) a row of a named table."""
        self.tables.setdefault(table, {})[key] = value


class Engine(Protocol):
    """A store. Every method may raise `StoreError`; nothing else escapes.

    `read`, `load`, `scan`, `due` and `behind` see committed rows only.
    """

    traits: Traits

    async def claim(self, partition: int, owner: str) -> Head:
        """Become the owner under a new epoch, which every later commit must carry.

        Returns the head with the new epoch in it, the old one in `last_epoch`, and all else as the last commit left it.
        Calling it again (after UNKNOWN) opens the store anew.

        Raises:
            StoreInUseError: a living process owns the store.
        """
        ...

    async def commit(self, partition: int, head: Head, batch: Batch) -> Answer:
        """Store the batch and the head, all or nothing, if `head.epoch` is the current one."""
        ...

    async def read(self, partition: int, lane: int, after: int, limit: int, wall: float) -> list[Delivery | int]:
        """Up to `limit` deliveries of a lane with ids above `after`, in order.

        One that expired before `wall` comes as its bare id, not decoded.
        """
        ...

    async def load(self, partition: int, table: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Rows of a named table; keys without a row are left out."""
        ...

    async def load_state(self, partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
        """Committed states; addresses without one are left out."""
        ...

    async def scan(self, partition: int, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
        """Up to `limit` rows of a named table with keys above `after`, in key order."""
        ...

    async def scan_state(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, StateRow]]:
        """Up to `limit` states whose address starts with `prefix` and is above `after`, in address order."""
        ...

    async def scan_pending(self, partition: int, after: int, limit: int) -> list[Pending]:
        """Up to `limit` pending deliveries with ids above `after`, in id order."""
        ...

    async def behind(self, partition: int, address: str) -> Pending | None:
        """The first HELD delivery of an address, by priority, then age."""
        ...

    async def due_pending(self, partition: int, before: float, after: tuple[float, int], limit: int) -> list[Pending]:
        """Up to `limit` pending deliveries with `after < (due, id)` and due at or before `before`, in that order."""
        ...

    async def due_timers(self, partition: int, before: float, limit: int) -> list[Timer]:
        """Up to `limit` timers due at or before `before`, in order of due time."""
        ...

    def usage(self) -> Usage:
        """Room used and left. Cheap: called once a second."""
        ...

    async def close(self, partition: int, head: Head) -> None:
        """Give up ownership; `head.clean` says whether everything that ran has ended."""
        ...
