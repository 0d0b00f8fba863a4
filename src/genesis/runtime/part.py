"""One dependency as its policy sees it, or one shard of it: the circuit and what was learned of its calls, put together.

In: each attempt and each call as it ends. Out: whether a call may go out the short way, and the figures that attempts are
planned by. They are taken anew four times a second.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from math import floor, inf
from random import Random

from genesis.core.signals import Outcome
from genesis.layers.detection.latency import Latency, LoadCorrelation
from genesis.layers.mitigation.abandonment import SuccessProbability
from genesis.layers.mitigation.attempts import HedgeWins
from genesis.layers.mitigation.budget import PART_S, Budget, Kind
from genesis.layers.mitigation.circuit import Circuit
from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.states import CircuitState, Permit, Refusal, Transition, Trigger

REFRESH_S = PART_S
"""How long learned figures are used. Calls that are counted together are of one part of the budget, so that it stays exact."""
HEDGE_MIN_S = 0.001
"""Shortest wait before a copy (Finagle): below it, the copy costs more than it can save."""
SLOW_MIN_S = 0.01
"""Latency under which no call is slow, whatever others take: a busy loop alone makes a call wait that long."""
USUALLY_SLOW = 0.05
"""Share of slow calls among the newest over which what is slow stays what it was. Else, at up to ten calls a second, the p95 of
half a minute is as slow as they are before half of the newest are: a dependency that became ten times slower would be usual."""
UNTOLD_MAX = 1000
"""Calls after which the clock is looked at in any case: so often that it costs nothing, and so seldom."""
QUICK_S = 0.001
"""Latency under which calls are told to the machines together: no decision asks which of them it was."""
TAIL = 3.0
"""How many times the p90 a higher quantile is taken for that is not known, since calls are cut off before it: so it is in a
log-normal of sigma 1."""
QUANTILES = (0.75, 0.9, 0.95, 0.99)
"""What attempts are planned by."""
SETTLED_S = 300.0
"""Time for which calls that are slow and do not fail keep the circuit RESILIENT: then that is how long they take. Else a
dependency that has become slower for good would be taken for a sick one for ever."""


class Part:
    """The state of one dependency, or of one shard."""

    def __init__(
        self,
        shard: str,
        settings: PolicySettings,
        budget: Budget,
        rng: Random,
        *,
        initial: CircuitState,
        tell: Callable[[Part, Transition], None],
        count: Callable[[str, int], None],
    ) -> None:
        self.shard, self._settings, self._budget, self._tell, self._count = shard, settings, budget, tell, count
        self.circuit = Circuit(settings, rng, initial=initial)
        self._lock = threading.Lock()
        """Of the circuit, for plain functions that run in threads. Nobody is called with it held."""
        self._changes: list[Transition] = []
        self.circuit.changed = self._changes.append
        self._telling = False
        self.healthy = Latency()
        """Latencies while the circuit was calm: what is expected."""
        self.recent = Latency()
        """Latencies while it was not: what is, and must not be learned as normal."""
        self.load = LoadCorrelation()
        self.wins = HedgeWins()
        self.probability = SuccessProbability()
        self.cause: BaseException | None = None
        """The failure that opened the circuit, until it closes."""
        self.under_way = 0
        """Attempts that wait for the dependency."""
        self.observed = False
        """Whether an attempt goes on though a fallback has answered, to see what becomes of it."""
        self.easy = False
        """Whether a call may go out the short way: the circuit is calm and nothing speaks against the call."""
        self.hedge_after_s = 0.0
        """When a copy would start while CLOSED; 0: no copies."""
        self.expected_s: float | None = None
        self.p99_s: float | None = None
        self._known: dict[float, float] = {}
        """Quantiles of healthy calls, in seconds, as they were known last."""
        self._usual_s: float | None = None
        """The p95 that calls are slow against: it does not follow while many are."""
        self._refreshed = self._refresh_at = 0.0
        self.quick, self.quick_total_s = 0, 0.0
        """Good calls that ended at once in this part of a second, and the seconds that they took: not told to anybody yet."""
        self.untold, self._window, self._usual_quick_s = 0, 0, 0.0
        """Calls that may still end at once without a look at the clock, of how many, and how long one took that had one."""
        self._closing: asyncio.TimerHandle | None = None
        self.quick_s = QUICK_S
        """Latency under which a call may be counted there."""
        self.quick_until = 0.0
        """Until when calls may be: the end of it; 0 while each call is looked at."""
        self._watched = False
        """Whether somebody wants to hear of each call."""
        self.settle()

    def watch(self, watched: bool) -> None:
        """Somebody wants to hear of each call, or nobody any more."""
        self.fold()
        self._watched = watched
        self.settle()

    def settle(self) -> None:
        """Something that decides whether a call goes the short way may have changed: tell it."""
        while self._changes and not self._telling:
            self._tell_changes()
        self.easy = self.circuit.calm and not self.probability.abandons(self._settings)
        quiet = self.circuit.quiet and self.probability.value == 1.0 and not self._watched
        self.quick_until = self._refresh_at if quiet else 0.0
        if not quiet and self._window:
            self._close()

    def _tell_changes(self) -> None:
        """One after the other, whatever threads and listeners do: what comes in between is told by whoever tells already."""
        with self._lock:
            if self._telling:
                return
            self._telling = True
        try:
            while self._changes:
                change = self._changes.pop(0)
                if change.trigger in (Trigger.PROVED, Trigger.RESET):
                    self.probability = SuccessProbability()
                if change.new is not CircuitState.HALF_OPEN and change.trigger not in (Trigger.FAILING, Trigger.REFUTED):
                    self.cause = None
                self._tell(self, change)
        finally:
            self._telling = False

    def by_hand(self, act: Callable[[Circuit, float], None], now: float) -> None:
        """Somebody moves the circuit."""
        with self._lock:
            act(self.circuit, now)
        self.settle()

    def abandons(self, settings: PolicySettings) -> bool:
        """Whether calls that would fail are abandoned now. `settings`: of their operation."""
        return self.circuit.rules and self.probability.abandons(settings)

    # --- the circuit ----------------------------------------------------------------------------------------------------

    def ask(self, now: float, lease_s: float) -> Permit | Refusal:
        """May a call go out? As `Circuit.ask`, from any thread."""
        self.fold()
        with self._lock:
            found = self.circuit.ask(now, lease_s)
        if self._changes:
            self.settle()
        return found

    def succeeded(self, permit: Permit, latency_s: float, now: float) -> None:
        """A call was good."""
        self.fold()
        with self._lock:
            if self.circuit.succeeded(permit, latency_s, now):
                self.probability.succeeded()
        self.settle()

    def failed(self, permit: Permit, latency_s: float, now: float, *, timeout: bool, error: BaseException | None) -> None:
        """A call failed, with this error or with a bad result."""
        self.fold()
        with self._lock:
            generation = self.circuit.generation
            what = repr(error) if error else "a bad result"
            if self.circuit.failed(permit, latency_s, now, timeout=timeout, what=what):
                self.probability.failed()
            if self.circuit.generation != generation:  # it has opened
                self.cause = error
        self.settle()

    def note(self, error: BaseException, now: float, *, timeout: bool = False) -> None:
        """Write on an error that is let through what is known of an outage: who has asked for the call may wait for its end.

        An error that takes no attributes is left as it is.
        """
        outage = self.circuit.outage(now, timeout=timeout)
        if outage is not None or hasattr(error, "genesis_outage"):  # one object may be raised again and again
            with suppress(Exception):
                setattr(error, "genesis_outage", outage)

    def released(self, permit: Permit) -> None:
        """A call has no outcome."""
        with self._lock:
            self.circuit.released(permit)

    # --- what is learned ------------------------------------------------------------------------------------------------

    def tune(self, settings: PolicySettings) -> None:
        """Other settings, from now on."""
        self._settings = settings
        self.circuit.tune(settings)
        self._refresh_at = 0.0
        self.settle()

    def good(self, latency_s: float, now: float) -> None:
        """A call that went the short way has succeeded."""
        self.fold()
        self._budget.deposit(now)
        self.circuit.good(latency_s, now)
        self.probability.succeeded()
        self.healthy.tell(latency_s, now)
        if now >= self._refresh_at:
            self.refresh(now)
        if self._changes or not self.quick_until:
            self.settle()

    def fold(self) -> None:
        """Tell of the calls that ended at once. Whoever asks or tells the machines something else does it before."""
        unseen = self._window - self.untold
        calls = self.quick + unseen
        if calls:
            took_s = (self.quick_total_s + unseen * self._usual_quick_s) / calls
            at = self._refreshed  # of the same part or, of those that were not looked at, of the one before: never too late
            self._window, self.quick, self.quick_total_s = self.untold, 0, 0.0
            self._count(Outcome.GOOD, calls)
            self._budget.deposit(at, calls)
            self.circuit.good(took_s, at, calls)
            self.healthy.tell(took_s, at, calls)

    def open(self, loop: asyncio.AbstractEventLoop, took_s: float, now: float) -> None:
        """Calls that end at once need not look at the clock for a while: one has, and took `took_s`."""
        self.fold()
        self._window = self.untold = UNTOLD_MAX
        self._usual_quick_s = took_s
        if self._closing is None or self._closing.when() < now - REFRESH_S:  # or its loop has ended before
            self._closing = loop.call_later(REFRESH_S, self._close)

    def _close(self) -> None:
        self._closing = None
        self.fold()
        self._window = self.untold = 0

    def deposit(self, now: float) -> None:
        """A call that does not go the short way began."""
        self.fold()
        self._budget.deposit(now)

    def take(self, kind: Kind, now: float) -> bool:
        """Whether an extra attempt may be scheduled, as `Budget.take`."""
        self.fold()
        return self._budget.take(kind, now, ultra=self.circuit.state is CircuitState.ULTRA_RESILIENT)

    def took(self, latency_s: float, now: float, *, censored: bool = False) -> None:
        """An attempt that waited has ended; `censored`: it was cut off, and would have taken longer."""
        known = self.healthy if self.circuit.calm else self.recent
        if censored:
            known.tell_censored(latency_s, now)
        else:
            known.tell(latency_s, now)
        self.load.tell(self.under_way, latency_s)
        if now >= self._refresh_at:
            self.refresh(now)

    def refresh(self, now: float) -> None:
        """Take the figures anew; what is expected is not learned while the circuit is not calm."""
        settings, known = self._settings, self._known
        self.fold()
        self._refreshed, self._refresh_at = now, (floor(now / REFRESH_S) + 1) * REFRESH_S
        failed, slow = self.circuit.window.rates(now)
        if self.circuit.calm:
            self._learn(self.healthy, now)
        elif self.circuit.state is CircuitState.RESILIENT and now - self.circuit.since >= SETTLED_S and not failed:
            self._learn(self.recent, now)
            slow = None
        p95_s, self.p99_s = known.get(0.95), known.get(0.99)
        if slow is None or slow <= USUALLY_SLOW:
            self._usual_s = p95_s
        self.circuit.slow_over_s = inf if self._usual_s is None else max(SLOW_MIN_S, settings.slow_factor * self._usual_s)
        self.quick_s = min(QUICK_S, settings.ultra_threshold_s)
        self.circuit.load_bound = self.load.bound()
        hedges = p95_s is not None and p95_s >= HEDGE_MIN_S and settings.hedges > 0
        self.hedge_after_s = p95_s if hedges and p95_s is not None and not self.vetoed(now) else 0.0
        self.settle()

    def _learn(self, latency: Latency, now: float) -> None:
        """What these calls take is what is expected."""
        mean_s = latency.mean(now)
        if mean_s is not None:
            self.expected_s = mean_s
            for q in QUANTILES:
                known_s, found_s = self._known.get(q, 0.0), latency.quantile(q, now) or 0.0
                if latency.topped(q, now):  # only a bound: what never ends would drive timeouts up without end
                    found_s = min(found_s, TAIL * self._known.get(0.9, 0.0)) if q > 0.9 else known_s
                self._known[q] = found_s or known_s

    def vetoed(self, now: float) -> bool:
        """Whether copies would do harm or no good: all calls are slow, or slow by our own load, or copies do not win."""
        _, slow = self.circuit.window.rates(now)
        calm = self.circuit.state is CircuitState.CLOSED
        topped = (self.healthy if calm else self.recent).topped(0.95, now)
        return (calm and slow is not None and slow > 0.5) or topped or self.load.bound()

    def quantile(self, q: float, now: float) -> float | None:
        """Of healthy calls; while calls are extremely slow, of those: or each would be copied at once."""
        extreme = self.circuit.state is CircuitState.ULTRA_RESILIENT
        found = self.recent.quantile(q, now) if extreme else None
        return self._known.get(q) if found is None else found

    def view(self) -> dict[str, object]:
        """Its figures, for people."""
        self.fold()
        return self.circuit.view() | {
            "expected_s": self.expected_s,
            "p95_s": self._known.get(0.95),
            "p99_s": self.p99_s,
            "success_probability": self.probability.value,
            "under_way": self.under_way,
        }
