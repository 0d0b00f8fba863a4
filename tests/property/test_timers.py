"""Timers against a dict, with a store that is read in tiny pages and commits that may fail."""

from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.core.event import Timer
from genesis.layers.recovery import timers as machine
from genesis.layers.recovery.timers import TimerId, Timers

PAGE = 2
ADDRESSES = st.sampled_from(("box/a", "box/b", "box/c"))
NAMES = st.sampled_from(("x", "y"))
DELAYS = st.integers(-2, 15)


class TimersAgainstADict(RuleBasedStateMachine):
    """Handlers set and cancel timers; what is due fires; groups are committed, or fail and everything is loaded anew."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[Any] = [patch.object(machine, "WHEEL_MAX", 4), patch.object(machine, "WHEEL_S", 8.0)]
        for limit in self.limits:
            limit.start()
        self.timers = Timers()
        self.wall = 100
        self.sequence = 0
        self.armed: dict[TimerId, Timer] = {}
        """What is set, as the application sees it."""
        self.stored: dict[TimerId, Timer] = {}
        self.open: dict[TimerId, Timer | None] = {}
        self.sealed: dict[TimerId, Timer | None] | None = None
        self.fired_open: list[str] = []
        self.fired_sealed: list[str] = []
        self.fired: list[str] = []
        """Ids of timers that fired for good."""

    def teardown(self) -> None:
        self.everything_due_fires()
        assert len(self.fired) == len(set(self.fired)), "one fired twice"
        for limit in self.limits:
            limit.stop()

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(address=ADDRESSES, name=NAMES, delay=DELAYS, period=st.sampled_from((None, None, 3)))
    def a_handler_sets_one(self, address: str, name: str, delay: int, period: float | None) -> None:
        self.sequence += 1
        self.set(Timer(address, name, self.wall + delay, "t", b"", 2, f"{self.sequence}", period))

    def set(self, timer: Timer) -> None:
        key = (timer.address, timer.name)
        self.armed[key] = self.open[key] = timer
        self.timers.set(timer)

    @rule(address=ADDRESSES, name=NAMES)
    def a_handler_cancels_one(self, address: str, name: str) -> None:
        key = (address, name)
        self.armed.pop(key, None)
        self.open[key] = None
        self.timers.cancel(key)

    @rule(step=st.integers(0, 6))
    def time_passes(self, step: int) -> None:
        self.wall += step

    @rule()
    def what_is_due_fires(self) -> None:
        """What the runtime's loader does in one pass."""
        while self.timers.wants_load(self.wall):
            upto = self.wall + machine.WHEEL_S
            page = sorted((t for t in self.stored.values() if t.due <= upto), key=lambda t: t.due)[:PAGE]
            before = self.timers.loaded_to
            self.timers.load(page, upto, PAGE)
            if len(page) < PAGE or self.timers.loaded_to <= before:
                break
        while (timer := self.timers.wake_one(self.wall)) is not None:
            key = (timer.address, timer.name)
            assert timer.due <= self.wall, "too early"
            assert self.armed.pop(key, None) is timer, "it was cancelled, replaced, or fired before"
            self.open[key] = None
            self.fired_open.append(timer.event_id)
            if timer.every_s is not None:
                self.sequence += 1
                self.set(Timer(*key, self.wall + timer.every_s, "t", b"", 2, f"{self.sequence}", timer.every_s))
        late = [timer for timer in self.armed.values() if timer.due <= self.wall]
        assert all(timer.due >= self.timers.loaded_to for timer in late), "it was in memory and did not fire"

    @precondition(lambda self: self.sealed is None)
    @rule()
    def a_group_is_sealed(self) -> None:
        assert self.timers.seal() == self.open, "each change is in one batch"
        self.sealed, self.open = self.open, {}
        self.fired_sealed, self.fired_open = self.fired_open, []

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def it_is_committed(self) -> None:
        self.store()
        self.fired += self.fired_sealed
        self.fired_sealed = []
        self.sealed = None
        self.timers.settle()

    def store(self) -> None:
        for key, timer in (self.sealed or {}).items():
            if timer is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = timer

    @precondition(lambda self: self.sealed is not None)
    @rule(stored=st.booleans())
    def the_store_fails(self, stored: bool) -> None:
        """Whether the commit under way was stored or not: the partition is dropped and loaded anew."""
        if stored:
            self.store()
            self.fired += self.fired_sealed
        self.fired_sealed, self.fired_open = [], []
        self.sealed, self.open = None, {}
        self.armed = dict(self.stored)
        self.timers = Timers()

    @rule()
    def everything_due_fires(self) -> None:
        if self.sealed is not None:
            self.it_is_committed()
        self.what_is_due_fires()
        while self.open:
            self.a_group_is_sealed()
            self.it_is_committed()
            self.what_is_due_fires()
        assert all(timer.due > self.wall for timer in self.armed.values()), "one is due and did not fire"

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_clock_is_set_to_no_dead_timer(self) -> None:
        wake_at = self.timers.wake_at()
        assert wake_at is None or wake_at in {timer.due for timer in self.armed.values()}


TestTimers = TimersAgainstADict.TestCase
TestTimers.settings = settings(max_examples=2 * settings().max_examples)
