"""May an attempt start now: how many a second, how many at once, and does the dependency take any?

In: each attempt and its end, the time, and draws of chance. Out: granted, how long to wait, who is next, or refused at once.
Who waits, and where, is not known here: a place in the queue is a ticket of the caller's.

Sources: token bucket (ATM Forum, 1996); bulkhead (Nygard, Release It!, 2007); client-side throttling (Beyer et al., Site
Reliability Engineering, 2016, chapter 21).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from random import Random
from typing import Generic, TypeVar

from genesis.core.stats import turned

_NEARLY = 1e-9
"""What rounding may take from a token: who waited exactly as long as told gets it."""


class RateLimit:
    """So many attempts a second, and so many at once after a pause. Begins full."""

    __slots__ = ("_at", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        """Take attempts a second (0: any number), and how many of them may come at once after a pause (>= 1)."""
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens = float(burst)
        self._at = 0.0

    def tune(self, rate_per_s: float, burst: int) -> None:
        """Another rate holds from now on. What is saved up is kept, as far as the new burst allows.

        The time since an attempt last asked counts at the new rate.
        """
        self._rate_per_s, self._burst = rate_per_s, burst
        self._tokens = min(self._tokens, float(burst))

    def ask(self, now: float) -> float:
        """0 when the attempt may start, and its token is taken; else seconds until there is one. Nothing is reserved."""
        if not self._rate_per_s:
            return 0.0
        if now > self._at:
            self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._rate_per_s)
            self._at = now
        if self._tokens >= 1 - _NEARLY:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate_per_s


Ticket = TypeVar("Ticket", bound=Hashable)


class Bulkhead(Generic[Ticket]):
    """So many attempts at once; others queue, in the order in which they came.

    A place is handed over: what `leave`, `forget`, `tune` or `hand_over` gives back has one already and is to be woken, and
    nobody who comes in between takes it. So who got a place, by `enter` or by being woken, calls `leave` once; who waited and
    gave up calls `forget` once instead, also if it was woken in the meantime.
    """

    __slots__ = ("_concurrency", "_queue", "_waiting", "busy")

    def __init__(self, concurrency: int, queue: int) -> None:
        """Take how many may be under way at once (0: any number), and how many may wait for that (>= 0)."""
        self._concurrency, self._queue = concurrency, queue
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self.busy = 0
        """Places that are taken."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self) -> bool:
        """Whether there is a place; it is taken then. Never while others wait for one."""
        if self._waiting or 0 < self._concurrency <= self.busy:
            return False
        self.busy += 1
        return True

    def wait(self, ticket: Ticket) -> bool:
        """Whether there is room in the queue; the ticket waits at its end then. To be asked when `enter` said no."""
        if len(self._waiting) >= self._queue:
            return False
        self._waiting[ticket] = None
        return True

    def leave(self) -> Ticket | None:
        """An attempt ended. Returns whom to wake: it has the place."""
        self.busy -= 1
        return self.hand_over()

    def forget(self, ticket: Ticket) -> Ticket | None:
        """The ticket gave up. If it had been handed a place by then, returns whom to wake instead: it has the place."""
        if ticket in self._waiting:
            del self._waiting[ticket]
            return None
        return self.leave()

    def tune(self, concurrency: int, queue: int) -> list[Ticket]:
        """Other limits hold from now on. Returns whom to wake: they have a place each. Nobody is thrown out."""
        self._concurrency, self._queue = concurrency, queue
        woken: list[Ticket] = []
        while (ticket := self.hand_over()) is not None:
            woken.append(ticket)
        return woken

    def hand_over(self) -> Ticket | None:
        """Whom to wake, if there is a place and somebody waits: a thread may have left while another began to wait."""
        if not self._waiting or 0 < self._concurrency <= self.busy:
            return None
        self.busy += 1
        return self._waiting.popitem(last=False)[0]


BUCKETS = 20
BUCKET_S = 6.0
"""Two minutes in all, as in the book."""


class Throttle:
    """Refuses some calls at once while the dependency takes few, in the proportion in which it does.

    A call counts when it has ended, or was refused here: one that is under way is no evidence yet. Else the first calls of a
    process, many at once, would be refused for having no answer.
    """

    __slots__ = ("_due", "_factor", "_good", "_past", "_requests", "accepts", "requests")

    def __init__(self, factor: float) -> None:
        """Take how many calls may come for each good one (>= 1) before some are refused; 0: none ever is."""
        self._factor = factor
        self._due = 0.0
        self._requests = self._good = 0
        """Of the present bucket."""
        self._past: deque[tuple[int, int]] = deque([(0, 0)] * (BUCKETS - 1))
        self.requests = self.accepts = 0
        """Calls, and good ones, of the last two minutes."""

    def tune(self, factor: float) -> None:
        """Another factor holds from now on."""
        self._factor = factor

    def ask(self, now: float, rng: Random) -> bool:
        """Whether the call is refused. Draws once at most."""
        if now >= self._due:
            self._turn(now)
        over = self.requests - self._factor * self.accepts
        if over <= 0 or not self._factor or rng.random() >= over / (self.requests + 1):
            return False
        self._requests += 1
        self.requests += 1
        return True

    def tell(self, good: bool, now: float) -> None:
        """A call that was not refused has ended: the dependency took it, or did not. One that was cancelled is not told."""
        if now >= self._due:
            self._turn(now)
        self._requests += 1
        self.requests += 1
        if good:
            self._good += 1
            self.accepts += 1

    def _turn(self, now: float) -> None:
        ended, self._due = turned(now, self._due, BUCKET_S)
        for _ in range(min(ended, BUCKETS)):
            self._past.append((self._requests, self._good))
            requests, good = self._past.popleft()
            self.requests -= requests
            self.accepts -= good
            self._requests = self._good = 0
