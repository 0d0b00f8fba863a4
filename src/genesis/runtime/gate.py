"""The limits of a policy: how many attempts at once, how many a second, and how many while the dependency says no.

In: an attempt that wants to begin. Out: its turn, or `LimitedError`. The counting is in `layers/prevention/limits.py`; here
is who waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

from genesis.core.errors import LimitedError
from genesis.layers.mitigation.settings import NEVER, PolicySettings
from genesis.layers.prevention.limits import Bulkhead, RateLimit, Throttle
from genesis.runtime.clock import monotonic

SOON_S = 0.1
"""When somebody may come back who found all places taken: calls of most dependencies end within it."""


class Gate:
    """The limits of one policy."""

    def __init__(self, settings: PolicySettings, rng: Random, tell: Callable[[str, str], None]) -> None:
        self._rng, self._now, self._tell = rng, monotonic, tell
        self._rate = RateLimit(settings.rate_per_s, settings.burst)
        self._places: Bulkhead[asyncio.Future[None]] = Bulkhead(settings.concurrency, settings.queue)
        self._throttle = Throttle(settings.throttle)
        self.tune(settings)

    def tune(self, settings: PolicySettings) -> None:
        """Other settings, from now on."""
        self._settings = settings
        self._rate.tune(settings.rate_per_s, settings.burst)
        self._throttle.tune(settings.throttle)
        self.limited = settings.concurrency > 0 or settings.rate_per_s > 0
        """Whether attempts need a turn."""
        for turn in self._places.tune(settings.concurrency, settings.queue):
            self._wake(turn)

    @property
    def places(self) -> int:
        """Attempts that have a turn."""
        return self._places.busy

    # --- per call: the throttle ---------------------------------------------------------------------------------------

    @property
    def throttles(self) -> bool:
        """Whether calls may be refused by chance."""
        return self._settings.throttle > 0

    def throttled(self, name: str) -> None:
        """Raise LimitedError if too few of the last calls were good."""
        if self.throttles and self._throttle.ask(self._now(), self._rng):
            raise self._refuse(name, 1.0, "throttle")

    def judged(self, *, good: bool) -> None:
        """A call that was let through has ended."""
        if self.throttles:
            self._throttle.tell(good, self._now())

    # --- per attempt: places and rate ---------------------------------------------------------------------------------

    def enter_now(self, name: str) -> None:
        """Take a turn without waiting: for plain functions. Raises LimitedError."""
        if not self._places.enter():
            raise self._refuse(name, SOON_S, "concurrency")
        self._count(name)

    async def enter(self, name: str, until: float) -> None:
        """Take a turn, waiting in line as the settings allow, `until` at most. Raises LimitedError."""
        if not self._places.enter():
            await self._wait(name, until)
        self._count(name)

    def _count(self, name: str) -> None:
        """Whoever has a place is counted against the rate: one that is refused there has cost nothing of it."""
        wait_s = self._rate.ask(self._now())
        if wait_s > 0:
            self.leave()
            raise self._refuse(name, wait_s, "rate")

    async def _wait(self, name: str, until: float) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._places.wait(turn):
            raise self._refuse(name, SOON_S, "concurrency")
        self._wake(self._places.hand_over())  # since it found none, a plain function may have left its place in a thread
        until = min(until, loop.time() + self._settings.queue_s)
        try:
            async with asyncio.timeout_at(until if until < NEVER else None):
                await turn
        except BaseException as error:
            self._wake(self._places.forget(turn))
            if isinstance(error, TimeoutError):
                raise self._refuse(name, SOON_S, "concurrency") from None
            raise

    def leave(self) -> None:
        """The attempt has ended: the next one in line has its turn."""
        self._wake(self._places.leave())

    def _wake(self, turn: asyncio.Future[None] | None) -> None:
        if turn is not None:
            with suppress(RuntimeError):  # its loop is closed, and nobody waits
                turn.get_loop().call_soon_threadsafe(_give, turn)

    def _refuse(self, name: str, wait_s: float, limit: str) -> LimitedError:
        self._tell(name, limit)
        return LimitedError(name, wait_s, limit)


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # else its task is being cancelled
        turn.set_result(None)
