"""The ids of late against lists of them."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.layers.prevention import horizon as machine
from genesis.layers.prevention.horizon import DIGEST_BYTES, Horizon

KEEP_S = 10.0
KEEP_IDS = 5
IDS = st.integers(0, 30)
WORDS = st.text(st.sampled_from("01:ab\udcff"), max_size=4)


class HorizonAgainstLists(RuleBasedStateMachine):
    """Events come, are stored in groups or withdrawn, and the process starts anew."""

    def __init__(self) -> None:
        super().__init__()
        self.horizon = Horizon(KEEP_S, KEEP_IDS)
        self.now = 100
        self.commits = 0
        self.open: list[bytes] = []
        self.stored: dict[str, tuple[int, list[bytes]]] = {}

    def mark(self, event: int) -> bytes:
        mark = self.horizon.marker("gate")(f"{event}")
        assert isinstance(mark, bytes)
        return mark

    def known(self) -> list[bytes]:
        """Oldest first."""
        return [mark for _, marks in self.stored.values() for mark in marks] + self.open

    def is_within(self, key: str) -> bool:
        """Whether a group is young enough, and fewer ids than are kept came after it."""
        at, marks = self.stored[key]
        known = self.known()
        return self.now - at < KEEP_S and len(known) - known.index(marks[-1]) - 1 < KEEP_IDS

    @rule(events=st.lists(IDS, min_size=1, max_size=4))
    def events_come(self, events: list[int]) -> None:
        for event in events:
            mark = self.mark(event)
            if mark not in self.horizon:
                self.horizon.add(mark)
                self.open.append(mark)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def one_is_withdrawn(self, data: st.DataObject) -> None:
        mark = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.horizon.discard(mark)
        assert mark not in self.horizon, "it may come again"

    @precondition(lambda self: self.open)
    @rule(limit=st.integers(1, 3))
    def a_group_is_stored(self, limit: int) -> None:
        self.commits += 1
        key = f"{self.commits:016x}"
        self.horizon.seal(key, self.now, list(self.open))
        self.stored[key] = (self.now, self.open)
        self.open = []
        self.some_are_forgotten(limit)

    @rule(limit=st.integers(1, 3))
    def some_are_forgotten(self, limit: int) -> None:
        gone = self.horizon.forget(self.now, limit)
        assert len(gone) <= limit, "a few at a time"
        for key in gone:
            assert key == next(iter(self.stored)), "the oldest first"
            assert not self.is_within(key), "it is within the horizon"
            del self.stored[key]
        if len(gone) < limit:
            assert all(map(self.is_within, self.stored)), "what fell out of the horizon is forgotten"
            oldest = next((marks for _, marks in self.stored.values()), [])
            assert len(self.horizon) < KEEP_IDS + max(1, len(oldest)) + len(self.open), "memory is bounded"

    @rule()
    def the_process_starts_anew(self) -> None:
        self.horizon = Horizon(KEEP_S, KEEP_IDS)
        self.open = []
        for key, (at, marks) in self.stored.items():
            self.horizon.restore(key, at, b"".join(marks))

    @rule(step=st.integers(1, 6))
    def time_passes(self, step: int) -> None:
        self.now += step

    @invariant()
    def duplicates_are_known_and_nothing_else(self) -> None:
        known = self.known()
        assert {event for event in range(31) if self.mark(event) in self.horizon} == {
            event for event in range(31) if self.mark(event) in known
        }
        assert len(self.horizon) == len(known)


TestHorizon = HorizonAgainstLists.TestCase


@given(st.lists(st.tuples(WORDS, WORDS), min_size=2))
def test_two_events_have_one_mark_only_if_source_and_id_are_the_same(events: list[tuple[str, str]]) -> None:
    one, other, unstored = Horizon(), Horizon(), Horizon(stored=False)
    digests = [one.marker(source)(event_id) for source, event_id in events]
    assert all(len(digest) == DIGEST_BYTES for digest in digests)
    assert len(set(digests)) == len(set(events))
    assert digests == [other.marker(source)(event_id) for source, event_id in events], "in every process alike"
    assert len({unstored.marker(source)(event_id) for source, event_id in events}) == len(set(events))


def test_digests_stay_the_same_with_more_sources_than_are_remembered() -> None:
    horizon = Horizon()
    before = horizon.marker("first")("1")
    for source in range(machine.SOURCES_MAX + 5):
        horizon.marker(f"{source}")("1")
    assert horizon.marker("first")("1") == before
