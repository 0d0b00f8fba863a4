"""The budget against the list of all calls and extras, and time-outs against their bounds."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from genesis.layers.mitigation.budget import PART_S, Budget, Kind
from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.timeouts import timeout_as_written_s, timeout_s

SETTINGS = st.builds(
    PolicySettings,
    budget_share=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    budget_floor=st.integers(0, 4),
    hedge_share=st.sampled_from([0.0, 0.05, 0.3]),
    ultra_share=st.sampled_from([0.0, 0.2, 1.0]),
)
KINDS = st.sampled_from(["retry", "hedge"])
SPAN_S = 10.0


class BudgetAgainstLists(RuleBasedStateMachine):
    """Calls come, want extras, and give some back unused, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.calls: list[float] = []
        self.extras: list[tuple[float, Kind]] = []
        """What was granted and not given back."""
        self.booked: list[tuple[float, Kind]] = []
        """The same as the budget sees it, which does not know which one is given back."""

    @initialize(settings=SETTINGS)
    def begin(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.budget = Budget(settings)

    def spent(self, kind: Kind | None, since: float) -> int:
        return sum(since <= at and kind in (None, one) for at, one in self.extras)

    def seen(self, kind: Kind | None, since: float) -> int:
        return sum(since <= at and kind in (None, one) for at, one in self.booked)

    @rule(count=st.integers(1, 60))
    def calls_come(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit(self.now)
            self.calls.append(self.now)

    @rule(kind=KINDS, ultra=st.booleans(), wanted=st.integers(1, 30))
    def extras_are_wanted(self, kind: Kind, ultra: bool, wanted: int) -> None:
        settings = self.settings
        share = settings.ultra_share if ultra else settings.hedge_share
        for _ in range(wanted):
            granted = self.budget.take(kind, self.now, ultra=ultra)
            # Never over the bounds in the ten seconds that end here, both ends of which count.
            calls = sum(self.now - SPAN_S <= at for at in self.calls)
            extras = self.spent(None, self.now - SPAN_S)
            if granted:
                self.extras.append((self.now, kind))
                self.booked.append((self.now, kind))
                assert extras + 1 <= settings.budget_share * calls + settings.budget_floor
                assert kind == "retry" or extras + 1 <= share * calls + 1
                assert kind == "retry" or extras + 1 <= max(1, (settings.budget_share * calls + settings.budget_floor) / 2)
                continue
            # Never refused when even eleven seconds of extras and nine of calls leave room.
            calls = sum(self.now - SPAN_S + PART_S <= at for at in self.calls)
            extras = self.seen(None, self.now - SPAN_S - PART_S)
            all_of_them = settings.budget_share * calls + settings.budget_floor
            assert extras + 1 > all_of_them or (
                kind == "hedge" and (not share or extras > share * calls or extras + 1 > max(1, all_of_them / 2))
            )

    @rule(data=st.data())
    def one_never_started(self, data: st.DataObject) -> None:
        young = [one for one in self.extras if one[0] >= self.now - SPAN_S]
        if young:
            one = data.draw(st.sampled_from(young))
            self.extras.remove(one)
            self.budget.give_back(one[1], self.now)
            oldest = self.now // PART_S * PART_S - SPAN_S
            self.booked.remove(next((at, kind) for at, kind in self.booked if kind == one[1] and at >= oldest))

    @rule(settings=SETTINGS)
    def it_is_tuned(self, settings: PolicySettings) -> None:
        self.settings = settings
        self.budget.tune(settings)

    @rule(step=st.sampled_from([0.001, 0.4, 0.999, 1.0, 2.5, 9.0, 10.0, 11.0, 5000.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @invariant()
    def the_figures_add_up(self) -> None:
        view = self.budget.view()
        assert min(view.values()) >= 0
        assert view["retries"] >= self.spent("retry", self.now - SPAN_S)
        assert view["hedges"] >= self.spent("hedge", self.now - SPAN_S)


TestBudget = BudgetAgainstLists.TestCase

SECONDS = st.floats(1e-6, 1e4)


@given(SECONDS, st.none() | SECONDS, st.none() | SECONDS, st.floats(-10, 1e4) | st.just(float("inf")))
def test_a_timeout_keeps_to_what_is_left_and_is_not_under_the_literal_rule_within_the_bound(
    base_s: float, expected_s: float | None, p99_s: float | None, remaining_s: float
) -> None:
    settings = PolicySettings()
    seconds = timeout_s(settings, base_s, expected_s, p99_s, remaining_s)
    assert 0 <= seconds <= max(0, remaining_s)
    assert seconds <= max(base_s, settings.timeout_max_s)
    assert seconds >= min(timeout_as_written_s(base_s, expected_s), max(base_s, settings.timeout_max_s), max(0, remaining_s))
    if p99_s is not None:
        assert seconds >= min(1.3 * p99_s, settings.timeout_max_s, max(0, remaining_s))
