"""The states in memory against a store in a dict."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.core.ports import StateRow
from genesis.layers.recovery.overlay import ABSENT, ROW_BYTES, Overlay

CACHE_BYTES = 4 * ROW_BYTES
KEYS = tuple(f"box/{key}" for key in "abcdefgh")
ADDRESSES = st.sampled_from(KEYS)
BODIES = st.sampled_from((b"", b"small", b"x" * ROW_BYTES, b"x" * CACHE_BYTES))


class OverlayAgainstAStore(RuleBasedStateMachine):
    """Attempts put states, commits take them, reads fill the cache, and a failed commit drops it all."""

    def __init__(self) -> None:
        super().__init__()
        self.overlay = Overlay(CACHE_BYTES)
        self.version = 0
        self.store: dict[str, StateRow] = {}
        self.sealed: dict[str, StateRow] = {}
        self.open: dict[str, StateRow] = {}

    def newest(self, address: str) -> StateRow:
        return {**self.store, **self.sealed, **self.open}.get(address, ABSENT)

    @rule(address=ADDRESSES, body=BODIES)
    def an_attempt_succeeds(self, address: str, body: bytes) -> None:
        self.version += 1
        self.open[address] = (self.version, body)
        self.overlay.put(address, self.open[address])

    @rule(address=ADDRESSES)
    def a_handler_reads(self, address: str) -> None:
        if self.overlay.get(address) is None:
            self.overlay.cache(address, self.store.get(address, ABSENT))
            self.the_cache_is_bounded()
        assert self.overlay.get(address) == self.newest(address), "the newest, at once after it was read"

    @rule(addresses=st.lists(ADDRESSES, unique=True))
    def a_window_is_filled(self, addresses: list[str]) -> None:
        for address in addresses:
            was_known = self.overlay.get(address) is not None
            self.overlay.cache(address, self.store.get(address, ABSENT))
            if not was_known:
                self.the_cache_is_bounded()

    @precondition(lambda self: not self.sealed)
    @rule()
    def a_group_is_sealed(self) -> None:
        assert self.overlay.seal() == self.open, "what changed since the last group"
        self.sealed, self.open = self.open, {}

    @rule()
    def it_is_committed(self) -> None:
        self.store.update(self.sealed)
        self.sealed = {}
        self.overlay.settle()
        self.the_cache_is_bounded()

    @rule()
    def it_fails(self) -> None:
        self.sealed, self.open = {}, {}
        self.overlay = Overlay(CACHE_BYTES)

    def the_cache_is_bounded(self) -> None:
        cached = {address: row for address in KEYS if (row := self.overlay.get(address)) is not None}
        committed = cached.keys() - self.open.keys() - self.sealed.keys()
        size = sum(len(row[1]) + ROW_BYTES for row in cached.values())
        assert size <= CACHE_BYTES or len(committed) <= 1, "only what is not committed, and one more, goes over the bound"

    @invariant()
    def nothing_old_is_shown(self) -> None:
        for address in KEYS:
            assert self.overlay.get(address) in (None, self.newest(address))
            assert self.overlay.committed(address) in (None, self.store.get(address, ABSENT))

    @invariant()
    def what_is_not_committed_is_in_memory(self) -> None:
        assert all(self.overlay.get(address) is not None for address in (*self.open, *self.sealed))


TestOverlay = OverlayAgainstAStore.TestCase
