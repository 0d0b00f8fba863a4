"""Dead letters and parked deliveries of a store, as one kind of thing: what waits for a person."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from genesis.cli.talk import FAILED, Failure, unpacked
from genesis.core.event import DeadLetter, Delivery, Kind, Priority, Reason
from genesis.engines.outside import Outside

PAGE = 500

_unpack = msgspec.msgpack.Decoder(DeadLetter).decode


@dataclass(frozen=True, slots=True)
class Letter:
    """A delivery that waits for a person."""

    key: str
    state: str
    """``dead`` or ``parked``."""
    delivery: Delivery
    at: float
    """When it died; of a parked one, when it was born."""
    reason: str
    detail: str = ""
    attempts: int = 0
    error: str = ""
    traceback: str = ""
    app_version: str = ""
    state_version: int = 0

    @property
    def kind(self) -> str:
        """How it was born."""
        return Kind(self.delivery.kind).name.lower()

    @property
    def priority(self) -> str:
        """Name of its priority."""
        return Priority(self.delivery.priority).name

    @property
    def payload(self) -> Any:
        """Its payload as plain values."""
        return unpacked(self.delivery.payload)


def keys_of(store: Outside) -> list[str]:
    """Keys of all: by priority, then in the order in which they were accepted."""
    return sorted(letter.key for letter in all_letters(store))


def letters_of(store: Outside, limit: int, skip: int = 0) -> tuple[int, list[Letter]]:
    """How many there are, and a page of them: the newest `limit` but `skip`, newest last."""
    total = 0

    def counted() -> Iterator[Letter]:
        nonlocal total
        for letter in all_letters(store):
            total += 1
            yield letter

    found = heapq.nlargest(limit + skip, counted(), key=_by_age)
    return total, found[skip:][::-1]


def _by_age(letter: Letter) -> tuple[float, str]:
    return letter.at, letter.key


def all_letters(store: Outside) -> Iterator[Letter]:
    """Dead letters by key, then the parked ones."""
    after = ""
    while page := store.scan("dead", after, PAGE):
        after = page[-1][0]
        for key, body in page:
            yield read_letter(key, body)
    last = 0
    while rows := store.scan_pending(last, PAGE):
        last = rows[-1].delivery.id
        for row in rows:
            if row.reason is Reason.PARKED:
                yield _parked(row.delivery)


def find_letter(store: Outside, key: str) -> Letter:
    """The one with this key; leading zeros may be left out.

    Raises:
        Failure: there is none.
    """
    try:
        number = int(key, 16)
        whole = f"{number:016x}"
    except ValueError:
        raise Failure(f"{key!r} is no key of a dead letter: genesis dlq list shows them", FAILED) from None
    for found, body in store.scan("dead", f"{number - 1:016x}" if number > 0 else "", 1):
        if found == whole:
            return read_letter(found, body)
    for row in store.scan_pending(number - 1, 1) if 0 < number < 1 << 63 else []:
        if row.delivery.id == number and row.reason is Reason.PARKED:
            return _parked(row.delivery)
    raise Failure(f"there is no dead letter {whole}: it was replayed or dropped, or never was; see genesis dlq list", FAILED)


def read_letter(key: str, body: bytes) -> Letter:
    """A stored dead letter."""
    letter = _unpack(body)
    return Letter(
        key,
        "dead",
        letter.delivery,
        letter.died_at,
        letter.reason,
        letter.detail,
        letter.attempts,
        letter.error,
        letter.traceback,
        letter.app_version,
        letter.state_version,
    )


def _parked(delivery: Delivery) -> Letter:
    return Letter(f"{delivery.id:016x}", "parked", delivery, delivery.born_at, "parked", "", delivery.attempt)
