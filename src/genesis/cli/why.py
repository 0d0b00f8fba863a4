"""What stands in the way of an application, in words, and what to do next: read from its store, whether or not it runs.

In: where the store stands, its pending work and dead letters. Out: obstacles, the worst first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from genesis.cli.health import PAGE, PENDING_MAX, Health
from genesis.cli.letters import all_letters
from genesis.cli.talk import iso, lasting, local, printable
from genesis.core.event import LANES, Delivery, Outgoing, Priority, Reason
from genesis.engines.outside import Outside

LATE_S = 10.0
"""Deliveries that wait for longer deserve a word."""
NAMED = 3
"""Of many, so many are named."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that stands in the way."""

    what: str
    """For programs: ``imbalance``, ``down``, ``intake``, ``paused``, ``circuit``,
    ``stuck``, ``source``, ``sink``, ``suspect``, ``parked``,
    ``retry``, ``waiting`` or ``dead``."""
    text: str
    next: str
    """What to do: a command where there is one."""
    since: float | None = None
    """Wall clock."""
    until: float | None = None
    count: int | None = None

    def for_programs(self) -> dict[str, Any]:
        """The same as plain values."""
        times = {"since": iso(self.since), "until": iso(self.until)}
        return {"what": self.what, "text": self.text, "next": self.next, "count": self.count, **times}


@dataclass(slots=True)
class Waiting:
    """Pending work of one reason."""

    count: int = 0
    oldest: float | None = None
    due: float | None = None
    routes: Counter[str] = field(default_factory=Counter)
    some: list[Delivery] = field(default_factory=list)


def told(obstacles: list[Obstacle]) -> list[str]:
    """For people: a line for each, and one that says what to do."""
    if not obstacles:
        return ["nothing stands in the way"]
    return [line for obstacle in obstacles for line in (printable(f"- {obstacle.text}"), printable(f"  -> {obstacle.next}"))]


def obstacles_of(health: Health, outside: Outside, now: float) -> Iterator[Obstacle]:
    """All of them, the worst first."""
    store = f"--store {health.path}"
    pending, oldest = _pending(outside)
    if health.imbalance:
        text = f"the ledger does not add up: {health.imbalance}"
        yield Obstacle("imbalance", text, f"keep a copy of the store, and look: genesis doctor {store}")
    yield from _owner(health, store)
    if health.fresh:
        yield from _running(health, pending.get(Reason.UNAVAILABLE, Waiting()), now)
    yield from _persons(health, pending, store)
    yield from _late(health, outside, oldest, store, now)
    yield from _dead(outside, store)


def _owner(health: Health, store: str) -> Iterator[Obstacle]:
    start = f"start it: genesis run MODULE:APP {store}"
    since = health.written_at
    if health.state == "died":
        text = f"the process died (last write {local(since)}): nothing is accepted, nothing runs, and nothing accepted is lost"
        yield Obstacle("down", text, start, since)
    elif health.state in ("stopped", "new"):
        text = f"nobody runs it since {local(since)}: nothing is accepted, and nothing runs"
        yield Obstacle("down", text if health.state == "stopped" else "nobody ever ran it", start, since)


def _running(health: Health, unavailable: Waiting, now: float) -> Iterator[Obstacle]:
    """What the process that runs says of itself."""
    told = health.told
    if why := told.get("refuses"):
        act = "make room on the disk" if "MiB" in why else "handlers are slower than what comes: look with genesis tail"
        yield Obstacle("intake", f"intake is full: {why}; what was accepted goes on", act, told.get("at"))
    for route, left_s in told.get("paused", {}).items():
        since, until = told.get("paused_since", {}).get(route), told["at"] + left_s
        begin = f" since {local(since)} ({lasting(max(0.0, now - since))})" if since is not None else ""
        count = unavailable.routes[route]
        wait = f"; {count:,} of its deliveries wait" if count else ""
        text = f"{route} is paused{begin}, because what it needs is down; it is tried again at {local(until)}{wait}"
        act = "bring back what it needs: it goes on by itself; genesis tail shows when"
        yield Obstacle("paused", text, act, since, until, count)
    for name, (state, reason) in told.get("circuits", {}).items():
        act = "bring back what is behind it: probes find it by themselves; the log says when"
        yield Obstacle("circuit", f"the circuit of {name} is {state}: {reason}", act)
    if stuck := told.get("stuck"):
        text = f"{stuck:,} handlers ignore their timeout and go on without being heard"
        yield Obstacle("stuck", text, "see the log for their names; a restart ends them", count=stuck)
    for name, source in told.get("sources", {}).items():
        if source.get("error"):
            yield Obstacle("source", f"source {name} is {source['state']}: {source['error']}", "see the log for its traceback")
    for name, sink in told.get("sinks", {}).items():
        if sink["error"] and sink["since"] is not None:
            yield _failing(name, sink, now)


def _failing(name: str, sink: dict[str, Any], now: float) -> Obstacle:
    since, until, waiting = sink["since"], sink["next_at"], sink["waiting"]
    text = f"sink {name} fails since {local(since)} ({lasting(max(0.0, now - since))}): {sink['error']}; {waiting:,} items wait"
    again = f"; it is tried again at {local(until)}" if until is not None else ""
    act = "bring back what it brings its items to: it goes on by itself; the log has its traceback"
    return Obstacle("sink", text + again, act, since, until, waiting)


def _persons(health: Health, pending: dict[str, Waiting], store: str) -> Iterator[Obstacle]:
    """What waits for a person, for the next start, or for another attempt."""
    if found := pending.get(Reason.SUSPECT):
        names = _some([f"{d.route} id {d.event_id}" for d in found.some], found.count)
        act = "each runs again alone, now" if health.alive else f"start it: genesis run MODULE:APP {store}"
        yield Obstacle("suspect", f"running when the process died: {names}", act, found.oldest, count=found.count)
    if found := pending.get(Reason.PARKED):
        names = _some([d.address for d in found.some], found.count)
        key = f"{found.some[0].id:016x}"
        act = f"genesis dlq show {key} {store}, then genesis dlq replay or drop"
        yield Obstacle("parked", f"parked, and their keys with them: {names}", act, found.oldest, count=found.count)
    if found := pending.get(Reason.RETRY):
        names = _some([f"{route} ({count:,})" for route, count in found.routes.most_common(NAMED)], len(found.routes))
        due = f", the next at {local(found.due)}" if found.due is not None else ""
        text = f"failed, and tried again: {names}{due}"
        act = f"genesis tail {health.path} shows what becomes of them"
        yield Obstacle("retry", text, act, found.oldest, found.due, found.count)


def _late(health: Health, outside: Outside, oldest: dict[int, tuple[float, str]], store: str, now: float) -> Iterator[Obstacle]:
    """The oldest that waits, by priority."""
    for lane in range(LANES):
        for delivery in outside.read_lane(lane, 0, 1):
            _older(oldest, delivery, "in its lane")
    for sink in health.head.outgoing if health.head is not None else ():
        for _, body in outside.scan("out", f"{sink}/", 1):
            _older(oldest, msgspec.msgpack.decode(body, type=Outgoing), "in the outbox")
    act = f"genesis tail {health.path} shows whether anything moves" if health.alive else f"genesis run MODULE:APP {store}"
    for priority, (born, where) in sorted(oldest.items()):
        if now - born > LATE_S:
            name = Priority(priority).name
            text = f"the oldest {name} waits for {lasting(now - born)}, {where}"
            yield Obstacle("waiting", text, act, born)


def _dead(outside: Outside, store: str) -> Iterator[Obstacle]:
    counts: Counter[str] = Counter()
    newest = 0.0
    for letter in all_letters(outside):
        if letter.state == "dead":
            counts[letter.reason] += 1
            newest = max(newest, letter.at)
    if counts:
        by = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        text = f"dead letters: {by}; the newest of {local(newest)}"
        yield Obstacle("dead", text, f"genesis dlq list {store}", newest, count=counts.total())


def _pending(outside: Outside) -> tuple[dict[str, Waiting], dict[int, tuple[float, str]]]:
    """Pending work by reason, and the oldest of each priority: of at most `PENDING_MAX` deliveries."""
    found: dict[str, Waiting] = {}
    oldest: dict[int, tuple[float, str]] = {}
    after = seen = 0
    while seen < PENDING_MAX and (page := outside.scan_pending(after, PAGE)):
        after, seen = page[-1].delivery.id, seen + len(page)
        for row in page:
            delivery, waiting = row.delivery, found.setdefault(str(row.reason), Waiting())
            waiting.count += 1
            waiting.routes[delivery.route] += 1
            waiting.oldest = min(delivery.born_at, waiting.oldest or delivery.born_at)
            if row.due is not None:
                waiting.due = min(row.due, waiting.due or row.due)
            if len(waiting.some) < NAMED:
                waiting.some.append(delivery)
            _older(oldest, delivery, f"pending ({row.reason})")
    return found, oldest


def _older(oldest: dict[int, tuple[float, str]], delivery: Delivery, where: str) -> None:
    if delivery.priority not in oldest or delivery.born_at < oldest[delivery.priority][0]:
        known = f"{where}: {delivery.route}{f' key {delivery.address}' if delivery.address else ''} id {delivery.event_id}"
        oldest[delivery.priority] = delivery.born_at, known


def _some(names: list[str], count: int) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {count - NAMED:,} more" if count > NAMED else shown
