"""The open group, and the batch it becomes: what gathers while the last commit is under way.

In: offers, outcomes, journalled calls, anything that must be stored. Out: a batch with its ids given, and after the
answer, what must be told to whom. There is no linger: a commit starts as soon as the writer is idle.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from itertools import chain

import msgspec

from genesis.core.event import LANES, SEQUENCE_BITS, Delivery
from genesis.core.ports import BATCH_BYTES, GROUP_ROWS, Batch, Head
from genesis.runtime.intake import Offer


class Group:
    """Members of one commit."""

    __slots__ = (
        "barriers",
        "batch",
        "by_lane",
        "done",
        "emitted",
        "ended",
        "freed",
        "journals",
        "late",
        "messages",
        "offers",
        "out",
        "replies",
        "rows",
        "size",
    )

    def __init__(self) -> None:
        self.batch = Batch()
        self.by_lane: list[list[Delivery]] = []
        """The new deliveries, once they have ids."""
        self.rows = 0
        self.size = 0
        self.offers: list[Offer] = []
        self.barriers: list[asyncio.Future[None]] = []
        """Those who wait for this commit and nothing else."""
        self.replies: list[tuple[str, str, bytes]] = []
        """Key, type of the question, and encoded answer."""
        self.freed: set[str] = set()
        """Addresses whose pending work changed: their next held delivery may come up."""
        self.journals: list[str] = []
        """Origins of deliveries that were done in a later attempt: what the earlier ones journalled is stored with this group
        at the latest, and can be removed after it."""
        self.out: set[str] = set()
        """Sinks that have something new in the outbox."""
        self.ended = 0
        self.emitted = 0
        self.messages: list[object] = []
        self.done: list[Delivery] = []
        """Deliveries that were done straight from their lane; counted when the group is sealed."""
        self.late: list[Delivery] = []
        """Those that ended in any other way."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.rows or self.barriers)

    @property
    def full(self) -> bool:
        """Whether it should take no more before it is sealed."""
        return self.rows >= GROUP_ROWS or self.size >= BATCH_BYTES


class Intake:
    """Offers that wait for a group, first come first served."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[Offer] = deque()

    def fold(self, group: Group, head: Head) -> None:
        """Move offers into a group until it is full."""
        waiting, ledger = self.waiting, head.ledger
        append, offers = group.batch.append, group.offers
        before, events, size = len(append), 0, group.size
        room = GROUP_ROWS - group.rows
        while waiting and len(append) - before < room and size < BATCH_BYTES:
            offer = waiting.popleft()
            append += offer.deliveries
            offers.append(offer)
            events += offer.events
            size += offer.size
            if offer.position is not None:
                group.batch.put("source", *offer.position)
        count = len(append) - before
        group.rows += count
        group.size = size
        ledger.offered += events
        ledger.accepted += events
        ledger.external += count
        ledger.in_lanes += count


def number(batch: Batch, head: Head, first_lane: int) -> tuple[list[list[Delivery]], list[bytes]]:
    """Give ids to the new deliveries of a batch, and count them: sequences are given when the group is built.

    Returns the deliveries by lane, and the digests of the events that must be remembered.
    """
    sequences = head.next_sequence
    by_lane: list[list[Delivery]] = [[] for _ in sequences]
    digests: list[bytes] = []
    for delivery in batch.append:
        by_lane[2 * delivery.priority + (delivery.kind == 0)].append(delivery)
        if delivery.mark:
            digests.append(delivery.mark)
    batch.append[:] = chain.from_iterable(by_lane)  # stored in the order of their ids
    for lane, deliveries in enumerate(by_lane):
        if deliveries:
            delivery_id = (first_lane + lane) << SEQUENCE_BITS | sequences[lane]
            for delivery in deliveries:
                delivery.id = delivery_id
                delivery_id += 1
            count = len(deliveries)
            sequences[lane] += count
            head.waiting_by_lane[lane] += count
            head.born_by_priority[lane >> 1] += count
    return by_lane, digests


def count_done(group: Group, head: Head, ended_by_lane: list[int]) -> None:
    """Take the deliveries that were done from their lanes: rows of the batch, and counters."""
    lived = group.done
    if not lived:
        return
    ids = [delivery.id for delivery in lived]
    group.batch.done += ids
    for numbered, count in Counter([id >> SEQUENCE_BITS for id in ids]).items():
        lane = numbered % LANES
        head.waiting_by_lane[lane] -= count
        head.ended_by_priority[lane >> 1] += count
        ended_by_lane[lane] += count
    head.ledger.done += len(lived)
    head.ledger.in_lanes -= len(lived)
    group.ended += len(lived)


_PACKED = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(tuple[float, bytes]).decode


def pack_digests(at: float, digests: list[bytes]) -> bytes:
    """One row of the dedupe log: the time and the digests of one commit."""
    return _PACKED((at, b"".join(digests)))


def unpack_digests(row: bytes) -> tuple[float, bytes]:
    """The inverse of `pack_digests`."""
    return _UNPACK(row)
