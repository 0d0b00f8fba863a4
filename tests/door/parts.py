"""What malformed requests are made of, and how a kind of them is noted."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from itertools import count
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

from tests.door.talk import CUT, Case

JSON = b"application/json"
STRUCTURED, BATCH = b"application/cloudevents+json", b"application/cloudevents-batch+json"
TEA = b'{"sku": "tea"}'
CLOSE = b"connection: close\r\n"
Made = Case | bytes
Make = Callable[[Random], Made]


class Kind(NamedTuple):
    """One way to be wrong."""

    make: Make
    answers: tuple[frozenset[str], ...]
    """What it may get: for each answer its alternatives, in the words of `talk`."""
    slow: bool
    """It lasts as long as the door is patient."""

    def case(self, rng: Random) -> Case:
        made = self.make(rng)
        return made if isinstance(made, Case) else Case((made,))

    def fits(self, told: list[str]) -> bool:
        """Whether these answers are those that it may get."""
        padded = told + [CUT] * (len(self.answers) - len(told))
        return len(padded) == len(self.answers) and all(a in may for a, may in zip(padded, self.answers, strict=True))


def kind(*answers: str, slow: bool = False) -> Callable[[Make], Kind]:
    """Make a kind of a function. Each argument is one answer, its alternatives parted by `|`."""
    return lambda make: Kind(make, tuple(frozenset(answer.split(" | ")) for answer in answers), slow)


def noted(module: ModuleType) -> dict[str, Kind]:
    """The kinds of a module, by name."""
    return {name.replace("_", " "): found for name, found in vars(module).items() if isinstance(found, Kind)}


_ids = count(1)


def fresh(rng: Random) -> str:
    # Hypothesis draws 0 again and again, and a duplicate is accepted, whatever it holds.
    return f"{next(_ids)}-{rng.getrandbits(64):x}"


def lines(headers: dict[bytes, bytes]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())


def attributes(rng: Random) -> dict[bytes, bytes]:
    values = (b"1.0", fresh(rng).encode(), b"/door", b"shop.placed")
    return dict(zip((b"ce-specversion", b"ce-id", b"ce-source", b"ce-type"), values, strict=True))


def head(more: bytes = b"", line: bytes = b"POST /events HTTP/1.1", host: bytes = b"host: x\r\n") -> bytes:
    return line + b"\r\n" + host + CLOSE + more


def sized(body: bytes) -> bytes:
    return b"content-length: %d\r\n\r\n" % len(body) + body


def binary(rng: Random, body: bytes = TEA, more: bytes = b"", media: bytes = JSON, **changed: bytes | None) -> bytes:
    """An event in binary mode; `changed` attributes, None for one that is left out."""
    given = attributes(rng) | {b"content-type": media}
    for name, value in changed.items():
        given.pop(f"ce-{name}".encode(), None)
        if value is not None:
            given[f"ce-{name}".encode()] = value
    return head(lines(given) + more) + sized(body)


def envelope(rng: Random, **changed: Any) -> dict[str, Any]:
    plain = {"specversion": "1.0", "id": fresh(rng), "source": "/door", "type": "shop.placed", "data": {"sku": "tea"}}
    return plain | changed


def in_one_piece(body: object, media: bytes = STRUCTURED) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(b"content-type: " + media + b"\r\n") + sized(raw)


def chunked(rng: Random, *chunks: bytes) -> bytes:
    return head(lines(attributes(rng)) + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def cut(rng: Random, whole: bytes, begin: int = 1) -> bytes:
    return whole[: rng.randrange(begin, len(whole))]


def pieces(rng: Random, whole: bytes) -> tuple[bytes, ...]:
    """The same bytes in several parts."""
    places = sorted(rng.sample(range(1, len(whole)), min(12, len(whole) - 1)))
    return tuple(whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True))


def ask(rng: Random, kind: bytes = b"shop.tasks", more: bytes = b"", body: bytes = b"{}") -> bytes:
    return head(more, b"POST /ask/" + kind + b" HTTP/1.1") + sized(body)


def word(rng: Random, letters: str = string.ascii_letters, longest: int = 12) -> bytes:
    return "".join(rng.choices(letters, k=rng.randint(1, longest))).encode()
