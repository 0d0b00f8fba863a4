"""What happens in a store, as one sees it who looks again and again: counters that moved, what came and waits, what died.

In: a store, read from outside. Out: what is new since the last look. What comes and ends between two looks is only counted:
a store keeps what waits and what died, not what is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from genesis.cli.letters import Letter, read_letter
from genesis.cli.talk import iso, unpacked
from genesis.core.event import LANES, Delivery, Priority, lane_start
from genesis.core.ports import Head, Ledger
from genesis.engines.outside import Outside

PAGE = 1000
"""Newest deliveries of a lane that one look reads; of more, only their number is told."""
LETTERS = 500
COUNTERS = tuple(name for name in Ledger.__struct_fields__ if name not in ("in_lanes", "in_pending", "in_outbox", "offered"))


@dataclass(frozen=True, slots=True)
class News:
    """One thing that was seen."""

    at: float
    """Wall clock: when it was born or died; of a counter and an owner, when it was seen."""
    kind: str
    """``owner``, ``waiting``, ``dead`` or ``counted``."""
    fields: dict[str, Any]

    def for_programs(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"at": iso(self.at), "kind": self.kind, **self.fields}


class Watch:
    """What of a store was seen so far."""

    def __init__(self, since: float | None = None) -> None:
        """Begin with what is there since a time of the wall clock; by default, with what comes after the first look."""
        self._since = since
        self._head: Head | None = None
        self._owner: str | None = None
        self._after: list[int] | None = None
        """Last id that was seen of each lane; None before the first look."""
        self._letters: set[str] = set()

    def another(self) -> None:
        """Another store stands under the name: all that is in it is new."""
        self._head, self._owner, self._letters, self._since = None, None, set(), 0.0
        self._after = [0] * LANES

    def look(self, outside: Outside, now: float) -> list[News]:
        """What is new, oldest first."""
        found = list(self._owners(outside, now))
        before, head = self._head, outside.head()
        if head is None or (before is not None and (before.epoch, before.commit_id) == (head.epoch, head.commit_id)):
            return found
        since = self._since if self._after is None else 0.0
        events = [*self._waiting(outside, head, since), *self._dead(outside, head, before, since)]
        self._head = head
        return [*found, *sorted(events, key=lambda news: news.at), *self._counted(head, before, now)]

    def _owners(self, outside: Outside, now: float) -> Iterator[News]:
        pid, host, alive = outside.owner() or (0, "", False)
        head = outside.head()
        does = "runs" if alive else "stopped" if head is None or head.clean else "died"
        seen = f"{pid} {does}"
        if pid and seen != self._owner:
            self._owner = seen
            yield News(now, "owner", {"pid": pid, "host": host, "state": does})

    def _waiting(self, outside: Outside, head: Head, since: float | None) -> Iterator[News]:
        newest = [lane_start(0, lane) + head.next_sequence[lane] - 1 for lane in range(LANES)]
        after, self._after = self._after or [0] * LANES, newest
        if since is None:
            return
        for lane in range(LANES):
            begin = max(after[lane], newest[lane] - PAGE)
            for delivery in outside.read_lane(lane, begin, PAGE):
                self._after[lane] = max(self._after[lane], delivery.id)
                if delivery.born_at >= since:
                    yield News(delivery.born_at, "waiting", _told(delivery))

    def _dead(self, outside: Outside, head: Head, before: Head | None, since: float | None) -> Iterator[News]:
        if before is not None and before.ledger.dead == head.ledger.dead:
            return
        after = ""
        while page := outside.scan("dead", after, LETTERS):
            after = page[-1][0]
            for key, body in page:
                if key not in self._letters:
                    self._letters.add(key)
                    letter = read_letter(key, body) if since is not None else None
                    if letter is not None and since is not None and letter.at >= since:
                        yield News(letter.at, "dead", {**_told(letter.delivery), **_why(letter)})

    def _counted(self, head: Head, before: Head | None, now: float) -> Iterator[News]:
        if before is None and self._since is None:
            return
        old, new = msgspec.structs.asdict(before.ledger if before else Ledger()), msgspec.structs.asdict(head.ledger)
        moved = {name: new[name] - old[name] for name in COUNTERS if new[name] != old[name]}
        if moved:
            yield News(now, "counted", {"moved": moved, "waiting": head.ledger.waiting, "commit": head.commit_id})


def _told(delivery: Delivery) -> dict[str, Any]:
    return {
        "type": delivery.type,
        "component": delivery.component,
        "key": delivery.address.partition("/")[2],
        "priority": Priority(delivery.priority).name,
        "event_id": delivery.event_id,
        "source": delivery.source,
        "payload": unpacked(delivery.payload),
    }


def _why(letter: Letter) -> dict[str, Any]:
    names = ("reason", "detail", "error", "attempts")
    return {"letter": letter.key, **{name: getattr(letter, name) for name in names}}
