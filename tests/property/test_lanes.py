"""Lanes against a naive model: plain lists, and the rules as a user would say them."""

from collections import Counter, deque
from itertools import takewhile

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.core.event import Delivery
from genesis.layers.prevention.lanes import DELIVERY_BYTES, Lanes

SHARES = (10, 10, 8, 5, 3)
ROUND = 36
FOREVER = 1 << 60
PRIORITIES = st.sampled_from(range(5))
KINDS = st.sampled_from((0, 1))
ADDRESSES = st.sampled_from(("", "box/a", "box/b", "free/a"))
"""No key, two keys, and a key of a component with ``order="skip"``: its pending work holds nothing."""
ROUTES = st.sampled_from(("box:x", "box:y"))
PAYLOADS = st.sampled_from((b"", b"12345"))
WINDOW_BYTES = 3 * DELIVERY_BYTES


def lane_of(delivery: Delivery) -> int:
    return 2 * delivery.priority + (delivery.kind == 0)


def weight_of(delivery: Delivery) -> int:
    return len(delivery.payload) + DELIVERY_BYTES


def delivery_of(
    priority: int, kind: int = 0, *, id: int = 1, address: str = "", route: str = "", payload: bytes = b""
) -> Delivery:
    return Delivery(
        id=id,
        route=route,
        address=address,
        priority=priority,
        kind=kind,
        payload=payload,
        event_id="",
        source="",
        born_at=0.0,
    )


class Fairness:
    """What the last slots were given to, and how long each priority that could run has waited."""

    def __init__(self) -> None:
        self.given: deque[int] = deque(maxlen=ROUND - 1)
        self.all_ready: list[int] = []
        self.waited = [0] * 5

    def judge(self, taken: int, ready: set[int]) -> None:
        for urgent in ready:
            if urgent < taken:
                assert self.given.count(urgent) >= SHARES[urgent], f"{taken} ran while {urgent} was ready and had slots left"
        self.given.append(taken)
        for priority in range(5):
            self.waited[priority] = self.waited[priority] + 1 if priority in ready and priority != taken else 0
            assert self.waited[priority] <= ROUND - SHARES[priority], f"{priority} was ready and passed over too often"
        self.all_ready = [*self.all_ready, taken] if len(ready) == 5 else []
        if len(self.all_ready) >= ROUND:
            assert Counter(self.all_ready[-ROUND:]) == dict(enumerate(SHARES)), "the shares of a round"


class LanesAgainstLists(RuleBasedStateMachine):
    """A partition's lanes, told what the runtime would tell them, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(WINDOW_BYTES)
        for lane in self.lanes.lanes:
            lane.last = FOREVER
        self.now = 0.0
        self.sequence = 0
        self.waiting: list[Delivery] = []
        """Offered and neither taken nor set aside, in the order of arrival."""
        self.running: list[Delivery] = []
        self.table: list[Delivery] = []
        """In the table of pending work."""
        self.ranks: dict[str, int] = {}
        self.paused: dict[str, float] = {}
        self.probes: dict[str, Delivery] = {}
        self.fairness = Fairness()

    # --- the model --------------------------------------------------------------------------------------------------

    def is_held(self, delivery: Delivery) -> bool:
        return not delivery.pending and delivery.priority >= self.ranks.get(delivery.address, 9)

    def is_paused(self, delivery: Delivery) -> bool:
        return delivery.route in self.paused

    def may_be_probe(self, delivery: Delivery) -> bool:
        return self.now >= self.paused[delivery.route] and delivery.route not in self.probes

    def is_locked(self, address: str) -> bool:
        return bool(address) and any(other.address == address for other in self.running)

    def ready(self) -> set[int]:
        """Priorities that could run now."""
        able = {d.priority for d in self.waiting if not d.address and not self.is_paused(d)}
        for address in ("box/a", "box/b", "free/a"):
            if not self.is_locked(address):
                able |= self.ready_of([d for d in self.waiting if d.address == address])
        return able

    def ready_of(self, of_key: list[Delivery]) -> set[int]:
        """The most urgent of a key, unless it, or one before it, is held or waits for its handler."""
        for priority in range(5):
            level = [d for d in of_key if d.priority == priority]
            stuck = [lane_of(d) for d in level if self.is_held(d) or self.is_paused(d)]
            first = [next((d for d in level if lane_of(d) == lane), None) for lane in (2 * priority, 2 * priority + 1)]
            able = [d for d in first if d is not None and not (self.is_held(d) or self.is_paused(d))]
            if any(set(stuck) <= {lane_of(d)} for d in able):
                return {priority}
            if stuck:
                break
        return set()

    def passes_an_earlier_one(self, delivery: Delivery) -> bool:
        before = takewhile(lambda d: d is not delivery, self.waiting)
        return any(d.address == delivery.address and lane_of(d) == lane_of(delivery) and not d.pending for d in before)

    def remove(self, delivery: Delivery) -> None:
        del self.waiting[next(index for index, d in enumerate(self.waiting) if d is delivery)]

    def holds(self, delivery: Delivery) -> bool:
        return delivery.address.startswith("box/")

    def pend(self, delivery: Delivery) -> None:
        """It goes to the table of pending work; later ones of its key wait."""
        delivery.pending = "retry"
        self.table.append(delivery)
        if self.holds(delivery):
            self.hold(delivery.address, delivery.priority)

    def hold(self, address: str, priority: int) -> None:
        self.ranks[address] = min(priority, self.ranks.get(address, 9))
        self.lanes.hold(address, self.ranks[address])

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(priority=PRIORITIES, kind=KINDS, address=ADDRESSES, route=ROUTES, payload=PAYLOADS)
    def offer(self, priority: int, kind: int, address: str, route: str, payload: bytes) -> None:
        self.sequence += 1
        delivery = delivery_of(priority, kind, id=self.sequence, address=address, route=route, payload=payload)
        self.waiting.append(delivery)
        self.lanes.offer(delivery)

    @rule(priority=PRIORITIES, kind=KINDS, address=ADDRESSES, route=ROUTES, count=st.integers(2, 6))
    def offer_many(self, priority: int, kind: int, address: str, route: str, count: int) -> None:
        for _ in range(count):
            self.offer(priority, kind, address, route, b"")

    @precondition(lambda self: self.table)
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        delivery = self.table.pop(data.draw(st.integers(0, len(self.table) - 1)))
        self.waiting.append(delivery)
        self.lanes.offer(delivery)

    @rule()
    def a_slot_takes(self) -> None:
        """And its handler waits: others take meanwhile."""
        taken = self.take()
        if taken is not None:
            self.lanes.lock(taken)

    def take(self) -> Delivery | None:
        ready = self.ready()
        taken = self.lanes.take(self.now)
        self.set_aside(taken)
        if taken is None:
            assert not ready, "something could run and nothing was taken"
            return None
        assert not self.is_locked(taken.address), "two deliveries of one key run at once"
        assert not self.is_held(taken), "its key has pending work that comes first"
        assert not taken.address or taken.pending or not self.passes_an_earlier_one(taken), (
            "an earlier one of its key and lane was passed"
        )
        if self.is_paused(taken):
            assert self.may_be_probe(taken), "a second probe, or one before its time"
            self.probes[taken.route] = taken
        self.fairness.judge(taken.priority, ready)
        self.remove(taken)
        self.running.append(taken)
        return taken

    def release(self, delivery: Delivery) -> None:
        self.lanes.release(delivery)
        if self.probes.get(delivery.route) is delivery:
            del self.probes[delivery.route]

    def set_aside(self, taken: Delivery | None) -> None:
        """The runtime moves what was set aside to the table right after `take`."""
        aside, self.lanes.to_hold = self.lanes.to_hold, []
        for delivery in aside:
            assert self.is_held(delivery), "set aside without a reason"
            assert not self.passes_an_earlier_one(delivery), "an earlier one of its key and lane stayed behind"
            assert taken is None or taken.address != delivery.address or lane_of(taken) != lane_of(delivery) or taken.pending
            self.remove(delivery)
            self.pend(delivery)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(("done", "failed", "unavailable", "expired")), delay=st.integers(0, 3))
    def end(self, data: st.DataObject, outcome: str, delay: int) -> None:
        delivery = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if outcome in ("failed", "unavailable"):
            self.pend(delivery)
        if outcome in ("done", "failed"):
            self.works(delivery.route)
        if outcome == "unavailable":
            self.pause(delivery.route, delay)
        self.release(delivery)

    @precondition(lambda self: self.waiting)
    @rule(count=st.integers(1, ROUND))
    def run_through(self, count: int) -> None:
        """Handlers that do not wait: a key is locked only where others of it are known."""
        for _ in range(count):
            delivery = self.take()
            if delivery is None:
                break
            self.running.remove(delivery)
            if delivery.address in self.lanes.keys or self.lanes.pauses:
                self.release(delivery)

    @rule(address=st.sampled_from(("box/a", "box/b")), priority=PRIORITIES)
    def key_has_pending_work(self, address: str, priority: int) -> None:
        self.hold(address, priority)

    @rule(address=st.sampled_from(("box/a", "box/b")))
    def key_is_free_of_pending_work(self, address: str) -> None:
        self.ranks.pop(address, None)
        self.lanes.unhold(address)

    @rule(route=ROUTES, delay=st.integers(0, 3))
    def pause(self, route: str, delay: int) -> None:
        until = self.now + delay
        self.paused[route] = max(until, self.paused.get(route, until))
        self.lanes.pause(route, until)

    @rule(route=ROUTES)
    def works(self, route: str) -> None:
        self.paused.pop(route, None)
        self.probes.pop(route, None)
        self.lanes.works(route)

    @rule(step=st.integers(0, 3))
    def time_passes(self, step: int) -> None:
        self.now += step
        self.lanes.wake(self.now)

    @precondition(lambda self: any(self.lanes.starved(lane) for lane in range(10)))
    @rule()
    def relieve(self) -> None:
        """A window is full of what cannot run: as the runtime does, it and what blocks it go to the table."""
        for index in range(10):
            if not self.lanes.starved(index):
                continue
            blocked, stopped, addresses = self.lanes.evict(index)
            assert addresses == {d.address for d in blocked} <= {d.address for d in self.running}
            assert all(lane_of(d) == index for d in blocked)
            assert all(self.is_paused(d) for d in stopped)
            assert [d.id for d in blocked] == sorted(d.id for d in blocked)
            for delivery in [d for d in self.running if d.address in addresses and not d.pending]:
                delivery.pending = "slow"
                if self.holds(delivery):
                    self.hold(delivery.address, delivery.priority)
            for delivery in (*blocked, *stopped):
                self.remove(delivery)
                self.pend(delivery)
            left = [d for d in self.waiting if lane_of(d) == index]
            moving = {d.address for lane in self.lanes.lanes for d in lane.ready}
            assert all(d.address in moving for d in left), "something that cannot run stayed in the window"

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_and_everything_is_weighed(self) -> None:
        for index, lane in enumerate(self.lanes.lanes):
            assert lane.bytes == sum(weight_of(d) for d in self.waiting if lane_of(d) == index)
            assert self.lanes.room(index) == (lane.bytes < WINDOW_BYTES)

    @invariant()
    def pauses_are_shown(self) -> None:
        assert self.lanes.paused() == self.paused
        wake_at = self.lanes.wake_at()
        assert wake_at is None or wake_at in self.paused.values()

    def teardown(self) -> None:
        """Once keys are free, what is left comes out: what waits for a paused handler as one probe after the other."""
        for address in list(self.ranks):
            self.key_is_free_of_pending_work(address)
        for delivery in self.running:
            self.lanes.release(delivery)
        self.running.clear()
        self.probes.clear()
        self.now += 10
        while (wake_at := self.lanes.wake_at()) is not None or self.lanes.any_ready:
            assert wake_at is None or wake_at <= self.now
            self.lanes.wake(self.now)
            self.run_through(1)
        assert self.waiting == []
        assert not self.lanes.keys
        assert all(lane.bytes == 0 for lane in self.lanes.lanes)


TestLanes = LanesAgainstLists.TestCase
TestLanes.settings = settings(max_examples=3 * settings().max_examples)


class WindowsAgainstAStore(RuleBasedStateMachine):
    """Commits hand over what fits, the loader reads the rest, slots run it: each once, in the order of its lane."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(WINDOW_BYTES)
        self.stored: list[list[int]] = [[] for _ in range(10)]
        self.sequence = 0
        self.largest = 0
        self.expected: list[list[int]] = [[] for _ in range(10)]
        self.running: list[Delivery] = []

    @rule(groups=st.lists(st.tuples(st.sampled_from((0, 1, 5)), st.integers(1, 5)), max_size=3))
    def a_group_is_committed(self, groups: list[tuple[int, int]]) -> None:
        by_lane: list[list[Delivery]] = [[] for _ in range(10)]
        for lane, count in groups:
            for _ in range(count):
                self.sequence += 1
                delivery = delivery_of(lane >> 1, 1 - lane % 2, id=self.sequence)
                delivery.message = "as it was sent"
                by_lane[lane].append(delivery)
                self.stored[lane].append(delivery.id)
                self.expected[lane].append(delivery.id)
        self.lanes.hand_off(by_lane)
        self.largest = max(self.largest, *map(len, by_lane))
        ready = {d.id for lane in self.lanes.lanes for d in lane.ready}
        assert all((d.message is None) == (d.id not in ready) for lane in by_lane for d in lane)

    @rule(lane=st.sampled_from((0, 1, 5)), page=st.integers(1, 3))
    def the_loader_reads(self, lane: int, page: int) -> None:
        window = self.lanes.lanes[lane]
        while window.behind and self.lanes.room(lane):
            rows = [id for id in self.stored[lane] if id > window.loaded][:page]
            if not rows:
                window.loaded = window.last
            for id in rows:
                window.loaded = id
                self.lanes.offer(delivery_of(lane >> 1, 1 - lane % 2, id=id))

    @rule()
    def a_slot_takes(self) -> None:
        delivery = self.lanes.take(0.0)
        if delivery is not None:
            assert delivery.id == self.expected[lane_of(delivery)].pop(0), "each once, in the order of its lane"
            self.lanes.lock(delivery)
            self.running.append(delivery)

    @precondition(lambda self: self.running)
    @rule()
    def one_ends(self) -> None:
        delivery = self.running.pop()
        self.stored[lane_of(delivery)].remove(delivery.id)
        self.lanes.release(delivery)

    @invariant()
    def windows_are_bounded(self) -> None:
        assert all(lane.bytes < WINDOW_BYTES + max(1, self.largest) * DELIVERY_BYTES for lane in self.lanes.lanes)

    def teardown(self) -> None:
        while self.running or self.lanes.any_ready or self.lanes.hungry():
            self.a_slot_takes()
            if self.running:
                self.one_ends()
            for lane in (0, 1, 5):
                if self.lanes.hungry():
                    self.the_loader_reads(lane, 2)
        assert not any(self.expected), "nobody asks for the rest"


TestWindows = WindowsAgainstAStore.TestCase


ARRIVALS = st.tuples(*[st.sampled_from((0, 0, 4, 45))] * 5)


@given(st.lists(st.tuples(ARRIVALS, st.integers(1, 2 * ROUND)), min_size=2, max_size=6))
def test_each_priority_gets_its_share_and_waits_a_round_at_most(story: list[tuple[tuple[int, ...], int]]) -> None:
    lanes, fairness, waiting = Lanes(), Fairness(), [0] * 5
    for arrivals, slots in story:
        for priority, count in enumerate(arrivals):
            waiting[priority] += count
            for _ in range(count):
                lanes.offer(delivery_of(priority))
        for _ in range(slots):
            taken = lanes.take(0.0)
            if taken is None:
                assert waiting == [0] * 5
                break
            fairness.judge(taken.priority, {p for p in range(5) if waiting[p]})
            waiting[taken.priority] -= 1
            lanes.release(taken)


@given(st.integers(0, 80), st.sampled_from((0, 1)))
def test_under_full_load_a_round_is_ten_ten_eight_five_three(skipped: int, kind: int) -> None:
    lanes = Lanes()
    for priority in range(5):
        for _ in range(200):
            lanes.offer(delivery_of(priority, kind))
    taken = [delivery.priority for _ in range(skipped + ROUND) if (delivery := lanes.take(0.0)) is not None]
    assert Counter(taken[skipped:]) == dict(enumerate(SHARES))
