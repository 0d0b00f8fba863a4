"""Old results against a plain list of them."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from genesis.layers.mitigation.fallback import Stale
from genesis.layers.mitigation.settings import PolicySettings

KEYS = st.integers(0, 6)


class StaleAgainstAList(RuleBasedStateMachine):
    """Results come and are asked for, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = PolicySettings(stale_s=10.0, stale_entries=3)
        self.stale: Stale[int, str] = Stale(self.settings)
        self.now = 100
        self.kept: list[tuple[int, str, int]] = []
        """The one used longest ago first."""

    def used(self, key: int, value: str, at: int) -> None:
        self.kept = [one for one in self.kept if one[0] != key] + [(key, value, at)]
        self.kept = self.kept[-self.settings.stale_entries :]

    @rule(key=KEYS, value=st.text(max_size=2))
    def a_result_comes(self, key: int, value: str) -> None:
        self.stale.put(key, value, self.now)
        if self.settings.stale_s:
            self.used(key, value, self.now)

    @rule(key=KEYS)
    def one_is_asked_for(self, key: int) -> None:
        found = next((one for one in self.kept if one[0] == key), None)
        if found and self.now - found[2] <= self.settings.stale_s:
            assert self.stale.get(key, self.now) == (found[1], self.now - found[2])
            self.used(*found)
        else:
            assert self.stale.get(key, self.now) is None
            self.kept = [one for one in self.kept if one[0] != key]

    @rule(stale_s=st.sampled_from([0.0, 5.0, 10.0]), entries=st.integers(1, 5))
    def it_is_tuned(self, stale_s: float, entries: int) -> None:
        self.settings = PolicySettings(stale_s=stale_s, stale_entries=entries)
        self.stale.tune(self.settings)
        self.kept = self.kept[-entries:] if stale_s else []

    @rule(step=st.integers(1, 6))
    def time_passes(self, step: int) -> None:
        self.now += step

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.stale) == len(self.kept) <= self.settings.stale_entries


TestStale = StaleAgainstAList.TestCase
