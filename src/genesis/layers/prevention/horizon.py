"""Is this event a duplicate? Remembers the ids of accepted events for a time and a number.

In: the digest of an event's source and id, and the time. Out: known or not, and whole generations to forget. Memory is
bounded: an id takes about 100 bytes. Refused events are never told to it. An id is remembered until it is older than
`keep_s` or `keep_ids` newer ones have come, whichever is first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b

DIGEST_BYTES = 16
"""128 bits: at a million remembered ids the chance of one false duplicate is 1.5e-27 an event."""
KEEP_S = 600.0
"""Ten minutes: longer than any sane producer goes on retrying one request."""
KEEP_IDS = 1_000_000


SOURCES_MAX = 1000
"""Sources whose markers are kept."""


Mark = bytes | str
"""What an event is known by: its digest, or its source and id as they are."""


class Horizon:
    """The ids accepted of late, in groups of one commit each."""

    __slots__ = ("_groups", "_markers", "_stored", "keep_ids", "keep_s", "known")

    def __init__(self, keep_s: float = KEEP_S, keep_ids: int = KEEP_IDS, *, stored: bool = True) -> None:
        """Begin empty.

        Args:
            keep_s: Seconds that an id is remembered at most.
            keep_ids: Ids that are remembered at most.
            stored: Whether groups are stored and come back: then an event is known by its digest. Else by its source and id
                as they are, which costs a third of the time.
        """
        self.keep_s, self.keep_ids = keep_s, keep_ids
        self.known: set[Mark] = set()
        """Marks of what was accepted within the horizon, and of what is on its way."""
        self._stored = stored
        self._markers: dict[str, Callable[[str], Mark]] = {}
        self._groups: deque[tuple[str, float, Sequence[Mark]]] = deque()

    def marker(self, source: str) -> Callable[[str], Mark]:
        """Gives the mark of an event of this source from its id."""
        marker = self._markers.get(source)
        if marker is None:
            if len(self._markers) >= SOURCES_MAX:
                self._markers.clear()
            begin = f"{len(source)}:{source}"  # the length keeps ("a", "bc") and ("ab", "c") apart
            marker = self._markers[source] = _digester(begin) if self._stored else begin.__add__
        return marker

    def __contains__(self, event: Mark) -> bool:
        return event in self.known

    def __len__(self) -> int:
        return len(self.known)

    def add(self, event: Mark) -> None:
        """An event was taken into a group."""
        self.known.add(event)

    def discard(self, event: Mark) -> None:
        """The event was not stored after all."""
        self.known.discard(event)

    def seal(self, key: str, at: float, marks: Sequence[Mark]) -> None:
        """The group that will be stored under `key` holds these events."""
        self._groups.append((key, at, marks))

    def restore(self, key: str, at: float, digests: bytes) -> None:
        """A stored group, read back: its digests, one after the other."""
        marks = [digests[i : i + DIGEST_BYTES] for i in range(0, len(digests), DIGEST_BYTES)]
        self.known.update(marks)
        self._groups.append((key, at, marks))

    def forget(self, now: float, limit: int) -> list[str]:
        """Keys of up to `limit` groups that fell out of the horizon; their ids are forgotten.

        `now` is on the clock that `at` was on. A few at a time, so that no commit pays for a burst of the past.
        """
        gone: list[str] = []
        groups = self._groups
        while groups and len(gone) < limit:
            key, at, marks = groups[0]
            newer = len(self.known) - len(marks)
            if at > now - self.keep_s and newer < self.keep_ids:
                break
            groups.popleft()
            self.known.difference_update(marks)
            gone.append(key)
        return gone


def _digester(begin: str) -> Callable[[str], bytes]:
    """Gives the 128-bit digest of a text that begins so."""
    half = blake2b(begin.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)

    def digest(rest: str) -> bytes:
        hasher = half.copy()
        hasher.update(rest.encode("utf-8", "surrogatepass"))
        return hasher.digest()

    return digest
