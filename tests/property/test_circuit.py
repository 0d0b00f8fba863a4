"""The circuit against a naive model that is written from the specification (section 1) and from what the settings say.

The model keeps every outcome in a list and counts anew each time. Where the text leaves room (a call counts up to a tenth
longer than its age allows, an average is looked at when something is out of the ordinary) it allows more than one next state.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from genesis.layers.mitigation.circuit import RAMP_DONE, Circuit
from genesis.layers.mitigation.settings import NEVER, PolicySettings
from genesis.layers.mitigation.states import TRANSITIONS, CircuitState, Mode, Permit, Refusal, Transition

C, R, O, H, U = (  # noqa: E741 - as they are called on paper
    CircuitState.CLOSED,
    CircuitState.RESILIENT,
    CircuitState.OPEN,
    CircuitState.HALF_OPEN,
    CircuitState.ULTRA_RESILIENT,
)
LEASE_S = 2.0
SLOW_OVER_S = 0.5
LATENCIES = st.sampled_from([0.01, 0.1, 0.6, 3.0])
SETTINGS = st.builds(
    PolicySettings,
    failure_threshold=st.sampled_from([1.0, 2.5, 5.0]),
    success_threshold=st.integers(1, 3),
    probes=st.integers(1, 3),
    minimum_calls=st.sampled_from([2, 5]),
    window_calls=st.sampled_from([5, 8]),
    window_s=st.sampled_from([3.0, 60.0]),
    slow_rate=st.sampled_from([0.0, 0.5]),
    slow_open_rate=st.sampled_from([0.0, 0.75]),
    recovery_timeout_s=st.just(5.0),
    ramp=st.sampled_from([0, 1, 3]),
)


@dataclass(eq=False)
class Held:
    """A permit, and what the model knows of it."""

    permit: Permit
    era: int
    kind: str
    ends: float


class CircuitAgainstTheText(RuleBasedStateMachine):
    """Calls ask, end and are given up in any order; time passes; somebody has a hand in it."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.era = self.proved = self.ramp = 0
        self.failures, self.successes, self.score, self.timeouts = 0.0, 0, 0, 0
        self.outcomes: list[tuple[float, bool, bool]] = []
        self.latencies: list[float] = []
        self.out: list[Held] = []
        self.replaced: list[Held] = []
        """Probes after whose lease somebody has asked."""
        self.told: list[Transition] = []
        self.mode = Mode.AUTOMATIC

    @initialize(settings=SETTINGS, seed=st.integers(0, 9))
    def begin(self, settings: PolicySettings, seed: int) -> None:
        self.settings = settings
        self.circuit = Circuit(settings, Random(seed))
        self.circuit.slow_over_s = SLOW_OVER_S
        self.circuit.changed = self.told.append
        self.state = C

    # --- the model ------------------------------------------------------------------------------------------------------

    def rates(self) -> list[tuple[float, float] | None]:
        """Shares of failed and slow calls among the newest, for a strict and for a lenient reading of their age."""
        found: list[tuple[float, float] | None] = []
        for lenient in (1.0, 1.1):
            young = [one for one in self.outcomes if one[0] > self.now - lenient * self.settings.window_s]
            newest = young[-self.settings.window_calls :]
            if len(newest) < self.settings.minimum_calls:
                found.append(None)
            else:
                found.append((sum(one[1] for one in newest) / len(newest), sum(one[2] for one in newest) / len(newest)))
        return found

    def next_states(self, rates: tuple[float, float] | None) -> CircuitState:
        """Where an outcome leads by the text, from CLOSED, RESILIENT or ULTRA_RESILIENT."""
        settings, average_s = self.settings, self.average_s()
        failed, slow = rates or (-1.0, -1.0)
        gradual = self.timeouts > 0 and self.score >= 3 and len(self.latencies) >= 3
        if (failed >= settings.failure_rate and self.failures) or 0 < settings.slow_open_rate <= slow:
            return O
        if self.failures >= settings.failure_threshold and not (gradual and self.state is C):
            return O
        if self.state is not U and average_s > settings.ultra_threshold_s and len(self.latencies) >= 3:
            return U
        if self.state is not C:
            return self.state
        warned = (failed >= settings.warning_rate and self.failures) or 0 < settings.slow_rate <= slow
        return R if gradual or warned else C

    def average_s(self) -> float:
        newest = self.latencies[-10:]
        return sum(newest) / len(newest) if newest else 0.0

    def eased(self, state: CircuitState, rates: tuple[float, float] | None) -> CircuitState:
        """Where good calls lead, one step at a time."""
        if state is not self.state or self.successes < self.settings.success_threshold:
            return state
        if state is U and self.average_s() <= 0.8 * self.settings.ultra_threshold_s:
            return R
        failed, slow = rates or (0.0, 0.0)
        low = failed <= self.settings.warning_rate / 2 and slow <= self.settings.slow_rate / 2
        return C if state is R and low and self.score == 0 else state

    def follow(self, allowed: set[CircuitState]) -> None:
        """The circuit is where it may be; the model goes there too."""
        new = self.circuit.state
        assert new in allowed, f"{self.state} -> {new}, allowed {allowed}"
        if new is self.state:
            return
        if new in (O, H) or (new is C and self.state is not R):
            self.forget_calls()
        if new is H:
            self.proved = 0
        if new is O:
            self.ramp = 0
        if new is C and self.state is not R:
            self.close()
        self.failures, self.successes = 0.0, 0
        self.state = new

    def forget_calls(self) -> None:
        self.era += 1

    def close(self) -> None:
        self.outcomes, self.latencies = [], []
        self.score = self.timeouts = 0
        self.ramp = self.settings.ramp

    def counts(self, one: Held) -> bool:
        """Whether what this call ends with is heard."""
        self.out.remove(one)
        if self.mode is Mode.DISABLED or one.era != self.era:
            return False
        return one not in self.replaced

    # --- what happens -----------------------------------------------------------------------------------------------------

    @rule(target=held)
    def a_call_asks(self) -> object:
        taken = {kind: [one for one in self.out if one.kind == kind and one.era == self.era] for kind in ("probe", "ramp")}
        found = self.circuit.ask(self.now, LEASE_S)
        if self.mode is Mode.FORCED_OPEN:
            self.mode = self.circuit.mode
        self.follow({self.state} | ({H} if self.state is O else set()))
        if self.state is H or self.ramp:
            kind = "probe" if self.state is H else "ramp"
            room = min(self.settings.probes, self.settings.success_threshold - self.proved) if self.state is H else self.ramp
            alive = [one for one in taken[kind] if one.ends > self.now and one.era == self.era]
            if kind == "probe" and self.mode is not Mode.DISABLED:
                self.replaced += [one for one in taken[kind] if one not in alive]
            full = len(alive) >= room
        else:
            kind, full = "free", self.state is O
        if self.mode is Mode.DISABLED:
            kind, full = "free", False
        if isinstance(found, Refusal):
            assert full
            assert self.mode in (Mode.AUTOMATIC, Mode.FORCED_OPEN)
            assert found.retry_after_s >= 0
            return multiple()
        assert not full or self.mode is Mode.METRICS_ONLY
        if full:
            kind = "free"
        assert found.probe is (kind == "probe")
        one = Held(found, self.era, kind, self.now + LEASE_S if kind != "free" else NEVER)
        self.out.append(one)
        return one

    @rule(one=consumes(held), latency_s=LATENCIES)
    def it_was_good(self, one: Held, latency_s: float) -> None:
        heard, before = self.counts(one), self.figures()
        said = self.circuit.succeeded(one.permit, latency_s, self.now)
        assert said is heard
        if not heard:
            assert self.figures() == before
            return
        if one.kind == "probe":
            slow = self.settings.slow_open_rate > 0 and latency_s > SLOW_OVER_S
            self.proved += not slow
            self.follow({O} if slow else {C} if self.proved >= self.settings.success_threshold else {H})
            return
        if self.ramp:
            self.ramp = self.ramp + 1 if self.ramp + 1 < RAMP_DONE else 0
        self.successes += 1
        ordinary = not (self.failures or self.score or latency_s > SLOW_OVER_S)
        self.failures = 0.0
        self.score = max(0, self.score - 1)
        self.timeouts = self.timeouts if self.score else 0
        self.heard(failed=False, latency_s=latency_s, known=True)
        if self.state in (C, R, U):
            allowed = {self.eased(self.next_states(rates), rates) for rates in self.rates()}
            self.follow(allowed | ({self.eased(self.state, rates) for rates in self.rates()} if ordinary else set()))

    @rule(one=consumes(held), latency_s=LATENCIES, timeout=st.booleans())
    def it_failed(self, one: Held, latency_s: float, timeout: bool) -> None:
        heard, before = self.counts(one), self.figures()
        said = self.circuit.failed(one.permit, latency_s, self.now, timeout=timeout)
        assert said is heard
        if not heard:
            assert self.figures() == before
            return
        self.successes = 0
        self.failures += 0.5 if timeout else 1.0
        self.score += 1 if timeout else 2
        self.timeouts += timeout
        if self.ramp:
            self.ramp = max(1, self.ramp // 2)
        self.heard(failed=True, latency_s=latency_s, known=timeout)
        if one.kind == "probe":
            self.follow({O})
        elif self.state in (C, R, U):
            self.follow({self.next_states(rates) for rates in self.rates()})

    def figures(self) -> dict[str, object]:
        """All but the permits that are out."""
        return self.circuit.view() | {"permits": 0}

    def heard(self, *, failed: bool, latency_s: float, known: bool) -> None:
        self.outcomes.append((self.now, failed, latency_s > SLOW_OVER_S))
        if known:
            self.latencies.append(latency_s)

    @rule(one=consumes(held))
    def it_was_given_up(self, one: Held) -> None:
        self.out.remove(one)
        before = self.figures()
        self.circuit.released(one.permit)
        assert self.figures() == before

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.5, 10.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(hand=st.sampled_from(["open", "disable", "measure", "reset", "degrade"]))
    def somebody_has_a_hand_in_it(self, hand: str) -> None:
        if hand == "open":
            self.circuit.force_open(self.now, 20.0)
            self.mode = Mode.FORCED_OPEN
            self.era += 1
            self.ramp, self.failures, self.successes, self.state = 0, 0.0, 0, O
        elif hand == "reset":
            self.circuit.reset(self.now)
            self.mode = Mode.AUTOMATIC
            self.close()
            self.era += 1
            self.ramp, self.failures, self.successes, self.state = 0, 0.0, 0, C
        elif hand == "degrade":
            self.circuit.degrade("seen coming", self.now)
            if self.state is C and self.mode in (Mode.AUTOMATIC, Mode.METRICS_ONLY):
                self.follow({R})
        elif hand == "disable":
            self.circuit.disable()
            self.mode = Mode.DISABLED
        else:
            self.circuit.only_measure()
            self.mode = Mode.METRICS_ONLY

    # --- always -------------------------------------------------------------------------------------------------------------

    @invariant()
    def the_figures_are_those_of_the_text(self) -> None:
        view = self.circuit.view()
        assert (view["state"], view["mode"]) == (self.state, self.mode)
        assert (view["failure_count"], view["degradation_score"]) == (self.failures, self.score)
        assert view["success_count"] == self.successes

    @invariant()
    def no_permit_is_over_the_limit_and_none_leaks(self) -> None:
        probes = [one for one in self.out if one.kind == "probe" and one.era == self.era and one.ends > self.now]
        assert len(probes) <= self.settings.probes
        kept = [*self.circuit._probes, *self.circuit._ramped]
        assert self.circuit.view()["permits"] == len(kept)
        assert {id(permit) for permit in kept} <= {id(one.permit) for one in self.out}, "what was given back is forgotten"

    @invariant()
    def it_is_calm_exactly_when_all_calls_go_out_unseen(self) -> None:
        assert self.circuit.calm is (self.state is C and self.mode is Mode.AUTOMATIC and not self.ramp)

    @invariant()
    def what_was_told_is_a_chain_out_of_the_table(self) -> None:
        for change in self.told:
            assert TRANSITIONS[change.old, change.trigger] is change.new
            assert change.why
        for before, after in zip(self.told, self.told[1:], strict=False):
            assert before.new is after.old
        assert not self.told or self.told[-1].new is self.circuit.state


TestCircuitAgainstTheText = CircuitAgainstTheText.TestCase


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 3))
def test_a_probe_holds_one_of_few_permits_however_they_come_back(ends: list[bool], seed: int) -> None:
    circuit, now = Circuit(PolicySettings(probes=2, success_threshold=1000), Random(seed), initial=H), 0.0
    held: list[Permit] = []
    for gives_back in ends:
        now += 0.01
        if gives_back and held:
            circuit.released(held.pop(0))
            continue
        found = circuit.ask(now, 30.0)
        assert isinstance(found, Permit) is (len(held) < 2)
        if isinstance(found, Permit):
            held.append(found)
    for permit in held:
        circuit.released(permit)
    assert circuit._probes == []
