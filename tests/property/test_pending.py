"""The table of pending work against a dict of rows, with a store that is read in tiny pages."""

from copy import copy
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.core.event import Delivery, Pending, Reason
from genesis.layers.recovery import pending as machine
from genesis.layers.recovery.pending import PendingWork

PAGE = 2
ADDRESSES = ("", "box/a", "box/b", "free/a")
"""No key, two keys, and a key of a component with ``order="skip"``."""
DELAYS = st.integers(-1, 12)
TIMED = (Reason.RETRY, Reason.UNAVAILABLE)
UNTIMED = (Reason.HELD, Reason.HELD, Reason.SLOW, Reason.PARKED, Reason.SUSPECT)
RUNNING = (Reason.SLOW, Reason.SUSPECT)


class PendingAgainstRows(RuleBasedStateMachine):
    """Deliveries go to the table, come up, fail again or end; groups are committed later; the process may die."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[Any] = [patch.object(machine, "WHEEL_MAX", 6), patch.object(machine, "WHEEL_S", 8.0)]
        for limit in self.limits:
            limit.start()
        self.pending = PendingWork(skipping={"free"})
        self.wall = 100
        self.sequence = 0
        self.table: dict[int, Pending] = {}
        """Every row as it will be when the open group is committed."""
        self.stored: dict[int, Pending] = {}
        self.open: dict[int, Pending | None] = {}
        self.awake: set[int] = set()
        """Rows whose delivery runs, or is on its way to."""
        self.brought_up: set[int] = set()

    def teardown(self) -> None:
        for limit in self.limits:
            limit.stop()

    # --- the model --------------------------------------------------------------------------------------------------

    def waited_for(self, address: str) -> list[Pending]:
        """Rows of a key that its later deliveries wait for."""
        own = (*TIMED, Reason.PARKED) if address.startswith("free/") else ()
        return [row for row in self.table.values() if row.delivery.address == address and row.reason not in own]

    def held(self, address: str) -> list[Pending]:
        rows = self.waited_for(address)
        return [row for row in rows if row.reason is Reason.HELD and row.delivery.id not in self.brought_up]

    def asleep(self) -> list[Pending]:
        return [row for row in self.table.values() if row.delivery.id not in self.awake]

    def timed(self) -> list[Pending]:
        return [row for row in self.asleep() if row.due is not None]

    def put(self, delivery: Delivery, reason: Reason, due: float | None) -> None:
        """As the runtime does: the new row comes first, then the old one leaves."""
        row = Pending(copy(delivery), reason, due)
        old = self.table.get(delivery.id)
        self.pending.add(row)
        if old is not None:
            self.take_out(old, row)
        self.table[delivery.id] = self.open[delivery.id] = row
        (self.awake.add if reason in RUNNING else self.awake.discard)(delivery.id)
        if due is not None:
            self.pending.schedule(row)

    def take_out(self, row: Pending, new: Pending | None = None) -> None:
        delivery_id, address = row.delivery.id, row.delivery.address
        reason = Reason.SLOW if delivery_id in self.brought_up else row.reason
        is_free = self.pending.remove(address, reason, row.delivery.priority)
        self.brought_up.discard(delivery_id)
        del self.table[delivery_id]
        if new is not None:
            self.table[delivery_id] = new
        left = self.waited_for(address)
        assert is_free == (bool(address) and not left), "the key is free when nothing is left that others wait for"

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(address=st.sampled_from(ADDRESSES), priority=st.integers(0, 4), reason=st.sampled_from(TIMED), delay=DELAYS)
    def one_fails(self, address: str, priority: int, reason: Reason, delay: int) -> None:
        self.sequence += 1
        delivery = Delivery("box:x", address, "e", "s", b"", 0.0, priority=priority, id=self.sequence)
        self.put(delivery, reason, self.wall + delay)

    @rule(address=st.sampled_from(ADDRESSES[1:]), priority=st.integers(0, 4), reason=st.sampled_from(UNTIMED))
    def one_is_put_aside(self, address: str, priority: int, reason: Reason) -> None:
        self.sequence += 1
        self.put(Delivery("box:x", address, "e", "s", b"", 0.0, priority=priority, id=self.sequence), reason, None)

    @precondition(lambda self: self.awake)
    @rule(data=st.data(), reason=st.sampled_from(TIMED), delay=DELAYS)
    def one_fails_again(self, data: st.DataObject, reason: Reason, delay: int) -> None:
        row = self.table[data.draw(st.sampled_from(sorted(self.awake)))]
        self.put(row.delivery, reason, self.wall + delay)

    @precondition(lambda self: self.awake)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        delivery_id = data.draw(st.sampled_from(sorted(self.awake)))
        self.awake.remove(delivery_id)
        self.take_out(self.table[delivery_id])
        self.open[delivery_id] = None

    @precondition(lambda self: self.asleep())
    @rule(data=st.data(), delay=st.none() | DELAYS)
    def a_person_drops_or_reschedules_one(self, data: st.DataObject, delay: int | None) -> None:
        row = data.draw(st.sampled_from(self.asleep()))
        if delay is not None:
            self.put(row.delivery, Reason.RETRY, self.wall + delay)
            return
        self.pending.forget(row.delivery.id)
        self.take_out(row)
        self.open[row.delivery.id] = None

    def next_held(self, address: str) -> Pending | None:
        """The first held one, unless something of its priority or a more urgent one runs by itself."""
        held = self.held(address)
        first = min(held, key=lambda row: (row.delivery.priority, row.delivery.id), default=None)
        others = [row for row in self.waited_for(address) if row not in held]
        if first is None or any(row.delivery.priority <= first.delivery.priority for row in others):
            return None
        return first

    @precondition(lambda self: any(map(self.next_held, ADDRESSES[1:])))
    @rule()
    def the_next_of_a_key_is_brought_up(self) -> None:
        for address in ADDRESSES[1:]:
            first = self.next_held(address)
            if first is not None:
                self.pending.brought_up(address, first.delivery.priority)
                self.brought_up.add(first.delivery.id)
                self.awake.add(first.delivery.id)

    @rule()
    def the_group_is_committed(self) -> None:
        for delivery_id, row in self.open.items():
            if row is None:
                self.stored.pop(delivery_id, None)
            else:
                self.stored[delivery_id] = row
        self.open.clear()

    @rule()
    def the_process_dies_and_begins_anew(self) -> None:
        self.pending = PendingWork(skipping={"free"})
        self.table = dict(self.stored)
        self.open.clear()
        self.brought_up.clear()
        self.awake = {row.delivery.id for row in self.table.values() if row.reason in RUNNING}
        for row in self.table.values():
            self.pending.add(row)

    @rule(step=st.integers(0, 5))
    def time_passes(self, step: int) -> None:
        self.wall += step
        while self.load_and_wake():
            pass
        assert all(place(row)[0] > self.wall for row in self.timed()), "something is due and did not come up"

    def load_and_wake(self) -> bool:
        """What the runtime's loader does in one pass. Returns whether anything came up."""
        while self.pending.wants_load(self.wall):
            before, upto = self.pending.loaded_to, self.wall + machine.WHEEL_S
            timed = [row for row in self.stored.values() if row.due is not None and row.due <= upto]
            page = sorted((row for row in timed if place(row) > before), key=place)[:PAGE]
            fresh = [row for row in page if row.delivery.id not in self.open]
            self.pending.load(fresh, page[-1] if len(page) == PAGE else None, upto)
            for row in self.open.values():
                if row is not None and row.due is not None and place(row) > before:
                    self.pending.schedule(row)
            if len(page) < PAGE:
                break
        due = self.pending.wake(self.wall)
        for row in due:
            assert row is self.table.get(row.delivery.id), "an old row of it came up"
            assert row.due is not None
            assert row.due <= self.wall, "too early"
            assert row.delivery.id not in self.awake, "it came up twice"
            self.awake.add(row.delivery.id)
        return bool(due)

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def the_clock_is_set_to_the_next_one_in_memory(self) -> None:
        near = [place(row)[0] for row in self.timed() if place(row) <= self.pending.loaded_to]
        assert self.pending.wake_at() == min(near, default=None)

    @invariant()
    def keys_are_counted(self) -> None:
        for address in ADDRESSES[1:]:
            own = [row for row in self.table.values() if row.delivery.address == address]
            assert self.pending.count(address) == len(own)
            priorities = [row.delivery.priority for row in self.waited_for(address)]
            assert self.pending.rank(address) == min(priorities, default=None)
            first = self.next_held(address)
            assert self.pending.next_held(address) == (first.delivery.priority if first is not None else None)
        addresses = {row.delivery.address for row in self.table.values()} - {""}
        assert set(self.pending.addresses()) == addresses
        assert bool(self.pending.keys) == bool(addresses)
        assert self.pending.parked == sum(row.reason is Reason.PARKED for row in self.table.values())


def place(row: Pending) -> tuple[float, int]:
    return (0.0 if row.due is None else row.due, row.delivery.id)


TestPendingWork = PendingAgainstRows.TestCase
TestPendingWork.settings = settings(max_examples=2 * settings().max_examples)
