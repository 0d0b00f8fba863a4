"""The circuit of a dependency: may this call go out, and in which of five states?

In: what calls ended with, and `now`. Out: permits or refusals, and transitions that say why. One logical call tells at most
one outcome. What a call of an earlier generation ended with is not heard.

Source: specification section 1 for states, scores and thresholds; rates over the newest calls after resilience4j; leased
probes and generations after interlock; open time that doubles after Finagle; the ramp is the slow start of RFC 5681.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from genesis.core.errors import Outage
from genesis.layers.mitigation.settings import NEVER, PolicySettings
from genesis.layers.mitigation.states import (
    TRANSITIONS,
    CircuitState,
    IllegalTransitionError,
    Mode,
    Permit,
    Refusal,
    Transition,
    Trigger,
)
from genesis.layers.mitigation.window import Window

GRADUAL_SCORE = 3
"""`degradation_score` from which a degradation is gradual (specification). A failure adds 2, a timeout 1, a success takes 1."""
LATENCIES = 3
"""Latencies that must be known before they are judged (specification)."""
RECENT = 10
"""Newest latencies whose average is taken: few, so that it follows within seconds at one call a second."""
EASED = 0.8
"""Share of a threshold below which a state is left again: the gap keeps it from going to and fro."""
LEASE_S = 30.0
"""How long a probe holds its permit when its call has no timeout."""
OUTAGE_S = 1.0
"""When work may come again that met a failing dependency whose circuit lets calls out: as `UnavailableError` has it."""
RAMP_DONE = 64
"""Calls under way at which the ramp is over: past it a dependency is taken for well."""


_C, _R, _O = CircuitState.CLOSED, CircuitState.RESILIENT, CircuitState.OPEN
_H, _U = CircuitState.HALF_OPEN, CircuitState.ULTRA_RESILIENT


class Circuit:
    """One circuit. Not for several threads at once: whoever shares it locks it."""

    def __init__(self, settings: PolicySettings, rng: Random, *, initial: CircuitState = CircuitState.CLOSED) -> None:
        self._settings, self._rng, self._ultra_s = settings, rng, settings.ultra_threshold_s
        self.state, self.mode = initial, Mode.AUTOMATIC
        self.generation = 0
        """Grows whenever what was under way no longer counts."""
        self.changed: Callable[[Transition], None] = lambda transition: None
        """Called with each transition, after it."""
        self.slow_over_s = NEVER
        """Latency over which a call is slow: kept here by who learns latencies."""
        self.load_bound = False
        """Whether latency rises with our own calls: copies would make it worse."""
        self.why = "initial state"
        self.failure_count = 0.0
        """Failures in a row; a timeout is half of one."""
        self.success_count = 0
        """Successes in a row."""
        self.degradation_score = 0
        self.timeouts = 0
        """Timeouts since the score was 0."""
        self.window = Window(settings)
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._openings = 0
        self._open_until = 0.0
        self._begins_open = initial is _O  # from the first question on: the time before it is not known
        self.since = 0.0
        """When it came into its state."""
        self._probes: list[Permit] = []
        self._proved = 0
        self._ramp = 0
        """Calls that may be under way at once after a recovery; 0: no limit."""
        self._ramped: list[Permit] = []
        self._closed_at = -NEVER
        """When it was closed after an opening."""
        self.calm = False
        self._settle()

    # --- while the circuit is calm ------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Whether it is calm, and a good call that is not slow changes nothing but counts."""
        return self.calm and not (self.failure_count or self.degradation_score)

    def good(self, latency_s: float, now: float, calls: int = 1) -> None:
        """Calls of this generation that needed no permit, since the circuit was calm, have succeeded."""
        self.success_count += calls
        window = self.window
        if now >= window.turns_at:
            window.turn(now)
        window.calls += calls
        self._latencies.extend([latency_s] * min(calls, RECENT))
        if self.failure_count or self.degradation_score or latency_s > self.slow_over_s or latency_s > self._ultra_s:
            self._looks(latency_s, now)

    @property
    def shut(self) -> bool:
        """Whether it refuses calls, but for probes."""
        return self.state in (_O, _H) and self.mode in (Mode.AUTOMATIC, Mode.FORCED_OPEN)

    # --- the question -------------------------------------------------------------------------------------------------

    def ask(self, now: float, lease_s: float = LEASE_S) -> Permit | Refusal:
        """May a call go out? A probe holds its permit for `lease_s` at most, > 0."""
        if self._begins_open:
            self._begins_open, self.since, self._open_until = False, now, now + self._settings.recovery_timeout_s
        if self.mode is Mode.FORCED_OPEN:
            if now < self._open_until:
                return Refusal(self._open_until - now, self.state, self.why)
            self.mode = Mode.AUTOMATIC
        if self.mode is Mode.DISABLED:
            return Permit(self.generation, False, NEVER)
        if self.state is _O and now >= self._open_until:
            self._go(Trigger.WAITED, f"{now - self.since:.1f} s have passed", now)
        found = self._decide(now, lease_s)
        if isinstance(found, Refusal) and self.mode is Mode.METRICS_ONLY:
            return Permit(self.generation, False, NEVER)
        return found

    def _decide(self, now: float, lease_s: float) -> Permit | Refusal:
        if self.state is _O:
            return Refusal(self._open_until - now, _O, self.why)
        if self.state is _H:
            return self._probe(now, lease_s)
        if self._ramp:
            return self._climb(now, lease_s)
        return Permit(self.generation, False, NEVER)

    def _probe(self, now: float, lease_s: float) -> Permit | Refusal:
        self._probes = [permit for permit in self._probes if permit.expires_at > now]
        if len(self._probes) >= min(self._settings.probes, self._settings.success_threshold - self._proved):
            wait_s = min(permit.expires_at for permit in self._probes) - now
            return Refusal(max(0.0, min(wait_s, self._settings.recovery_timeout_s)), _H, "a probe is under way")
        permit = Permit(self.generation, True, now + lease_s)
        self._probes.append(permit)
        return permit

    def _climb(self, now: float, lease_s: float) -> Permit | Refusal:
        self._ramped = [permit for permit in self._ramped if permit.expires_at > now]
        if len(self._ramped) >= self._ramp:
            average_s = self.average_s()
            return Refusal(max(0.01, average_s), self.state, f"it has just recovered: {self._ramp} calls at once")
        permit = Permit(self.generation, False, now + lease_s)
        self._ramped.append(permit)
        return permit

    # --- the answer ---------------------------------------------------------------------------------------------------

    def succeeded(self, permit: Permit, latency_s: float, now: float) -> bool:
        """The call was good. Returns whether that counts."""
        if not self._returned(permit):
            return False
        if permit.probe:
            self._proves(latency_s, now)
            return True
        if self._ramp:
            self._ramp += 1
            if self._ramp >= RAMP_DONE:
                self._ramp = 0
                self._settle()
        self.good(latency_s, now)
        if self.state is _R or self.state is _U:
            self._steps_down(now)
        return True

    def failed(self, permit: Permit, latency_s: float, now: float, *, timeout: bool = False, what: str = "") -> bool:
        """The call failed; `timeout`: by its own timeout. `what` it was, in words. Returns whether that counts."""
        if not self._returned(permit):
            return False
        self.success_count = 0
        self.failure_count += 0.5 if timeout else 1.0
        self.degradation_score += 1 if timeout else 2
        self.timeouts += timeout
        if timeout:  # it took at least that long; a quick failure says nothing of how long a call takes
            self._latencies.append(latency_s)
        if self._ramp:
            self._ramp = max(1, self._ramp // 2)
        self.window.failed(now)
        if latency_s > self.slow_over_s:
            self.window.slow(now)
        if permit.probe:
            self._go(Trigger.REFUTED, f"a probe failed: {what or 'failure'}", now)
        else:
            self._judge(now)
        return True

    def released(self, permit: Permit) -> None:
        """The call has no outcome: it was cancelled, ignored or never made. Another may go out instead."""
        self._returned(permit)

    def degrade(self, why: str, now: float) -> None:
        """Somebody sees a failure coming: CLOSED becomes RESILIENT."""
        if self.state is _C and self.mode in (Mode.AUTOMATIC, Mode.METRICS_ONLY):
            self._go(Trigger.DEGRADING, why, now)

    def _returned(self, permit: Permit) -> bool:
        """Whether its outcome counts."""
        held, permit.held = permit.held, False
        if permit in self._probes:
            self._probes.remove(permit)
        elif permit in self._ramped:
            self._ramped.remove(permit)
        elif permit.probe:
            return False  # its lease is over
        return held and permit.generation == self.generation and self.mode is not Mode.DISABLED

    # --- by hand ------------------------------------------------------------------------------------------------------

    def force_open(self, now: float, for_s: float = NEVER, why: str = "opened by hand") -> None:
        """Refuse all calls for `for_s` seconds, whatever happens. Then it is tried with probes."""
        self._go(Trigger.FORCED, why, now)
        self.mode, self._open_until, self._begins_open = Mode.FORCED_OPEN, now + for_s, False
        self._settle()

    def disable(self) -> None:
        """Let all calls go out and record nothing."""
        self._set_mode(Mode.DISABLED)

    def only_measure(self) -> None:
        """Record and tell all, refuse nothing."""
        self._set_mode(Mode.METRICS_ONLY)

    def reset(self, now: float, why: str = "closed by hand") -> None:
        """Forget everything and close."""
        self._openings = 0
        self.mode = Mode.AUTOMATIC
        self._go(Trigger.RESET, why, now)
        self._closes(now)
        self._ramp = 0
        self._settle()

    def tune(self, settings: PolicySettings) -> None:
        """Other settings, from now on."""
        self._settings, self._ultra_s = settings, settings.ultra_threshold_s
        self.window.tune(settings)

    @property
    def rules(self) -> bool:
        """Whether calls may be refused, here or for what is known of the dependency: not while disabled or only measuring."""
        return self.mode is Mode.AUTOMATIC or self.mode is Mode.FORCED_OPEN

    def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        self._settle()

    # --- judgement ----------------------------------------------------------------------------------------------------

    def average_s(self) -> float:
        """Of the newest latencies; 0 when none is known."""
        return sum(self._latencies) / len(self._latencies) if self._latencies else 0.0

    def _looks(self, latency_s: float, now: float) -> None:
        """A success that is not like the others: after failures, slow, or extremely slow."""
        self.failure_count = 0.0
        if self.degradation_score:
            self.degradation_score -= 1
            if not self.degradation_score:
                self.timeouts = 0
        if latency_s > self.slow_over_s:
            self.window.slow(now)
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Is one of the thresholds passed?"""
        settings = self._settings
        rate, slow = self.window.rates(now)
        gradual = self.timeouts > 0 and self.degradation_score >= GRADUAL_SCORE and len(self._latencies) >= LATENCIES
        persistent = self.failure_count >= settings.failure_threshold
        if self.state not in (_C, _R, _U):
            return
        if rate is not None and rate >= settings.failure_rate and self.failure_count:
            self._go(Trigger.FAILING, f"{rate:.0%} of the newest calls failed", now)
        elif slow is not None and 0.0 < settings.slow_open_rate <= slow:
            self._go(Trigger.FAILING, f"{slow:.0%} of the newest calls were slow", now)
        elif persistent and not (gradual and self.state is _C):
            self._go(Trigger.FAILING, f"{self.failure_count:g} failures in a row", now)
        elif self.state is not _U and self._extreme():
            self._go(Trigger.SLOW, f"calls take {self.average_s():.2f} s on average", now)
        elif self.state is _C:
            self._warn(gradual, rate, slow, now)

    def _extreme(self) -> bool:
        known = len(self._latencies) >= LATENCIES
        return known and not self.load_bound and self.average_s() > self._settings.ultra_threshold_s

    def _warn(self, gradual: bool, rate: float | None, slow: float | None, now: float) -> None:
        if gradual:
            self._go(Trigger.DEGRADING, f"{self.timeouts} timeouts, degradation score {self.degradation_score}", now)
        elif rate is not None and rate >= self._settings.warning_rate and self.failure_count:
            self._go(Trigger.DEGRADING, f"{rate:.0%} of the newest calls failed", now)
        elif slow is not None and slow >= self._settings.slow_rate > 0.0:
            self._go(Trigger.DEGRADING, f"{slow:.0%} of the newest calls were slow", now)

    def _steps_down(self, now: float) -> None:
        """Back towards CLOSED, one state at a time, once it is good by more than a little."""
        settings = self._settings
        if self.success_count < settings.success_threshold:
            return
        if self.state is _U:
            if self.average_s() <= EASED * settings.ultra_threshold_s:
                self._go(Trigger.EASED, f"calls take {self.average_s():.2f} s on average", now)
            return
        rate, slow = self.window.rates(now)
        low = (rate or 0.0) <= settings.warning_rate / 2 and (slow or 0.0) <= settings.slow_rate / 2
        if low and self.degradation_score == 0:
            self._go(Trigger.RECOVERED, f"{self.success_count} successes in a row", now)

    def _proves(self, latency_s: float, now: float) -> None:
        if self._settings.slow_open_rate and latency_s > self.slow_over_s:
            self._go(Trigger.REFUTED, f"a probe was slow: {latency_s:.2f} s", now)
            return
        self._proved += 1
        if self._proved >= self._settings.success_threshold:
            self._go(Trigger.PROVED, f"{self._proved} probes succeeded", now)

    # --- transitions --------------------------------------------------------------------------------------------------

    def _go(self, trigger: Trigger, why: str, now: float) -> None:
        old = self.state
        new = TRANSITIONS.get((old, trigger))
        if new is None:
            raise IllegalTransitionError(f"{old} has no way for {trigger}")
        self.state, self.why = new, why
        if new is _O:
            self._opens(old, now)
        elif new is _H:
            self._proved, self._probes = 0, []
            self.generation += 1
        elif new is _C and old is not _R:
            self._closes(now)
        self.failure_count = 0.0
        self.success_count = 0
        self.since = now
        self._settle()
        if new is not old or trigger in (Trigger.FORCED, Trigger.RESET):
            self.changed(Transition(old, new, trigger, why, now))

    def _opens(self, old: CircuitState, now: float) -> None:
        settings = self._settings
        if old in (_C, _R, _U) and now - self._closed_at >= settings.window_s:
            self._openings = 0  # it was well for so long that earlier failures are forgotten
        wait_s = min(settings.recovery_max_s, settings.recovery_timeout_s * 2.0 ** min(self._openings, 64))
        if self._openings:  # the first time exactly as it is set; then callers come back apart
            wait_s *= self._rng.uniform(0.5, 1.0)
        self._open_until = now + wait_s
        self._openings += 1
        self.generation += 1
        self._probes, self._ramped, self._ramp = [], [], 0

    def _closes(self, now: float) -> None:
        self.generation += 1
        self._closed_at = now
        self.window.clear()
        self._latencies.clear()
        self.degradation_score = self.timeouts = 0
        self._ramp, self._ramped, self._probes = self._settings.ramp, [], []

    def _settle(self) -> None:
        self.calm = self.state is _C and self.mode is Mode.AUTOMATIC and not self._ramp

    def retry_after_s(self, now: float) -> float:
        """When a call may be let out again, in seconds; 0 while it lets them out."""
        return max(0.0, self._open_until - now) if self.state is _O else 0.0

    def outage(self, now: float, *, timeout: bool = False) -> Outage | None:
        """What the failure means that it has heard of last: nothing (None) if the call before it was good.

        While it is CLOSED, what fails again and again may be the dependency, or what is asked of it.
        """
        if self.mode is Mode.DISABLED:
            return None
        if self.state is not _C:
            return Outage(max(OUTAGE_S, self.retry_after_s(now)), True)
        return Outage(OUTAGE_S, False) if self.failure_count > (0.5 if timeout else 1.0) else None

    def view(self) -> dict[str, object]:
        """Its figures, for people."""
        return {
            "state": self.state.value,
            "mode": self.mode.value,
            "why": self.why,
            "failure_count": self.failure_count,
            "success_count": self.success_count,
            "degradation_score": self.degradation_score,
            "average_s": self.average_s(),
            "permits": len(self._probes) + len(self._ramped),
            "generation": self.generation,
            "openings": self._openings,
        }
