"""What the store says, read from outside while another process works in it; and what that means in words.

Nothing is asked of the worker: these are the rows of the last commit.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from examples.flights.circuit import NAME, SHUT, Circuit
from examples.flights.feed import HOUR_S, feed
from genesis import Priority
from genesis.core.event import Kind, lane_of
from genesis.core.ports import Head, Ledger
from genesis.engines.outside import Outside
from genesis.runtime.status import Status

MIDNIGHT = datetime(2013, 2, 7)
PRIORITIES = tuple(priority.name for priority in Priority)
SINK = "to-desk"
SEATS_LANE = lane_of(Priority.HIGH, Kind.EMITTED)
KINDS = ("cancelled", "late")
"""Of alerts."""
ORIGINS = ("EWR", "JFK", "LGA")
RATE_S = 2.0
"""Rates are taken over the last two seconds."""
LOOKS_MAX = 20_000
"""An hour of the feed at its own pace, four looks a second, and some more."""


@dataclass(frozen=True)
class Look:
    """The store at one moment."""

    now: float
    """Monotonic."""
    head: Head
    status: Status | None
    """What the worker last said of itself, a second ago at most while it works."""
    position: int
    """Of the feed; -1: nothing of it came in."""
    at: int
    """The feed's clock, in seconds from midnight of 7 February 2013."""
    alerts: int
    """That were raised, whether the desk has them yet or not."""
    flights: dict[str, float] = field(default_factory=dict)
    """Sums over New York's airports."""

    @property
    def ledger(self) -> Ledger:
        """The counters of the last commit."""
        return self.head.ledger

    @property
    def by_hand(self) -> int:
        """Events that did not come from the feed."""
        return self.ledger.accepted - self.position - 1

    @property
    def clock(self) -> str:
        """Day and hour in New York."""
        return f"{MIDNIGHT + timedelta(seconds=self.at):%a %d Feb %H:%M}"

    @property
    def outbox(self) -> int:
        """Alerts that wait for the desk."""
        return self.head.outgoing.get(SINK, 0)

    @property
    def busy(self) -> int:
        """Deliveries that wait for the worker, not for the desk."""
        return self.ledger.waiting - self.outbox

    @property
    def seats(self) -> int:
        """Seats that need another flight. Seats and alerts are all that components emit."""
        return self.ledger.emitted - self.alerts

    @property
    def seats_rebooked(self) -> int:
        """At least so many: what is set aside for a while may be a seat or not."""
        return max(0, self.seats - self.head.waiting_by_lane[SEATS_LANE] - self.ledger.in_pending)

    @property
    def latency_s(self) -> dict[str, dict[str, float]]:
        """p50, p99 and max by priority, since the worker's last start."""
        return self.status.latency_s if self.status is not None else {}

    @property
    def trouble(self) -> str:
        """What the worker says of a source or sink that fails; not of what waits for a circuit, whose state says it."""
        if self.status is None:
            return ""
        sources = [f"source {name}: {told['error']}" for name, told in self.status.sources.items() if told["error"]]
        failed = {name: told.error for name, told in self.status.sinks.items() if told.error}
        state, _ = self.status.circuits.get(NAME, ("", ""))
        sinks = [f"sink {name}: {error}" for name, error in failed.items() if name != SINK or state not in SHUT]
        return "; ".join(sources + sinks)

    @property
    def imbalance(self) -> str:
        """What does not add up; empty when all does."""
        ledger, wrong = self.ledger, [self.ledger.imbalance()]
        if sum(self.head.born_by_priority) != ledger.born:
            wrong.append(f"born by priority {sum(self.head.born_by_priority)} != born {ledger.born}")
        if sum(self.head.ended_by_priority) != ledger.done + ledger.expired + ledger.dead:
            wrong.append(f"ended by priority {sum(self.head.ended_by_priority)} != done + expired + dead")
        return "; ".join(filter(None, wrong))


class Watch:
    """Reads the store of one run."""

    def __init__(self, store: Path, scale: int, posted: Callable[[], int] | None = None) -> None:
        """`posted` gives the position in a feed that comes over HTTP; None: the source of the worker keeps it."""
        self.store = store
        self._posted = posted
        self._scale = scale
        self._times = [at for _, at, _ in feed()]
        self._outside: Outside | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._outside is not None:
            self._outside.close()

    @property
    def events(self) -> int:
        """Length of the feed."""
        return len(self._times) * self._scale

    @property
    def last_at(self) -> int:
        """When the feed ends, on its own clock."""
        return self._times[-1]

    @property
    def outside(self) -> Outside | None:
        """The store; None as long as there is none."""
        if self._outside is None and self.store.exists():
            self._outside = Outside(self.store)
        return self._outside

    def commit(self) -> int:
        """Number of the last commit; 0: there is none."""
        head = self.outside.head() if self.outside is not None else None
        return head.commit_id if head is not None else 0

    def look(self) -> Look:
        """Read what there is now."""
        outside, now = self.outside, time.monotonic()
        if outside is None:
            return Look(now, Head.fresh(), None, -1, self._times[0], 0)
        facts = dict(outside.scan("fact"))
        status = msgspec.msgpack.decode(facts["status"], type=Status) if "status" in facts else None
        position = self._posted() if self._posted is not None else _committed(outside)
        at = self._times[max(0, position) // self._scale]
        alerts = sum(msgspec.msgpack.decode(body)[kind] for _, (_, body) in outside.scan_state("alarm/") for kind in KINDS)
        flights = self._flights(outside)
        return Look(now, outside.head() or Head.fresh(), status, position, at, alerts, flights)

    def _flights(self, outside: Outside) -> dict[str, float]:
        sums: dict[str, float] = {}
        for origin in ORIGINS:  # "EWR" finds "EWR", "EWR#2", ...
            for _, (_, body) in outside.scan_state(f"airport-statistics/{origin}", limit=self._scale):
                airport: dict[str, Any] = msgspec.msgpack.decode(body)
                for name in ("cancelled", "departed", "delayed"):
                    sums[name] = sums.get(name, 0) + airport[name]
                sums["gust"] = max(sums.get("gust", 0), airport["gust_max_mph"])
        return sums

    def over(self, look: Look, pid: int | None) -> bool:
        """Whether the worker of this `pid` says that its source has ended and that nothing waits, and has committed it."""
        told = look.status
        if told is None or told.pid != pid or told.ledger.waiting or look.ledger.waiting:
            return False
        return bool(told.sources) and all(source["state"] == "ended" for source in told.sources.values())


def _committed(outside: Outside) -> int:
    positions = dict(outside.scan("source"))
    return msgspec.msgpack.decode(positions["storm"], type=int) if "storm" in positions else -1


class Trend:
    """The looks of the last hour on the feed's clock, and what they say together."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=LOOKS_MAX)
        self.backlog: deque[int] = deque(maxlen=60)
        """The most deliveries that waited in each of the last seconds."""
        self.circuit = Circuit()
        self._second = 0

    def add(self, look: Look) -> None:
        """The newest look."""
        looks = self._looks
        looks.append(look)
        self.circuit.add(look.status)
        same, self._second = int(look.now) == self._second, int(look.now)
        self.backlog.append(max(look.ledger.waiting, self.backlog.pop() if same else 0))
        while len(looks) > 1 and looks[1].at <= look.at - HOUR_S and looks[1].now <= look.now - RATE_S:
            looks.popleft()

    def rates(self) -> list[float]:
        """Deliveries per second that ended, by priority."""
        if not self._looks:
            return [0.0] * len(PRIORITIES)
        last = self._looks[-1]
        first = next((look for look in self._looks if look.now >= last.now - RATE_S), last)
        seconds = last.now - first.now
        pairs = zip(last.head.ended_by_priority, first.head.ended_by_priority, strict=True)
        return [(new - old) / seconds if seconds else 0.0 for new, old in pairs]

    def words(self, watch: Watch) -> str:
        """What happens in New York."""
        last = self._looks[-1]
        if last.position < 0:
            return "The worker starts."
        if last.position == watch.events - 1:
            if last.busy:
                return f"All {watch.events:,} events are in; {last.busy:,} deliveries still wait."
            return f"All is done but {last.outbox:,} alerts, which wait for the desk."
        first = next((look for look in reversed(self._looks) if look.at <= last.at - HOUR_S), self._looks[0])
        hours = (last.at - first.at) / HOUR_S
        since = "Last hour" if hours < 1.5 else f"Last {hours:.0f} hours"
        cancelled, departed = (
            int(last.flights.get(name, 0) - first.flights.get(name, 0)) for name in ("cancelled", "departed")
        )
        return f"{since}: {cancelled:,} cancelled, {departed:,} left. {_mood(cancelled, departed)}"


def _mood(cancelled: int, departed: int) -> str:
    if not cancelled:
        return "Flights leave as planned." if departed else "New York sleeps."
    if not departed:
        return "The storm: nothing leaves any more."
    return "Some are cancelled." if departed > cancelled else "The storm: more are cancelled than leave."
