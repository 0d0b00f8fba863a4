"""Limits against plain lists: no grant too many, no place lost, nobody passed over."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from genesis.layers.prevention.limits import Bulkhead, RateLimit, Throttle


@given(st.floats(0.1, 1000), st.integers(1, 10), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_time_has_more_grants_than_burst_and_rate_allow(rate_per_s: float, burst: int, pauses: list[float]) -> None:
    limit, now, grants = RateLimit(rate_per_s, burst), 1000.0, list[float]()
    for pause in pauses:
        now += pause
        wait_s = limit.ask(now)
        if wait_s == 0.0:
            grants.append(now)
            for first, begin in enumerate(grants):
                assert len(grants) - first <= burst + rate_per_s * (now - begin) + 1e-6
        else:
            assert 0 < wait_s <= 1 / rate_per_s + 1e-9
            assert limit.ask(now + wait_s / 2) > 0, "not earlier than said"
            now += wait_s
            assert limit.ask(now) == 0.0, "and then"
            grants.append(now)


class BulkheadAgainstLists(RuleBasedStateMachine):
    """Attempts come, wait, end and give up, and the limits change."""

    def __init__(self) -> None:
        super().__init__()
        self.bulkhead: Bulkhead[int] = Bulkhead(2, 3)
        self.limits = 2, 3
        self.tickets = 0
        self.inside: list[int] = []
        self.woken: list[int] = []
        """Those that have a place and do not know it yet."""
        self.queue: list[int] = []

    def places(self) -> float:
        return self.limits[0] or float("inf")

    def wake(self, ticket: int | None) -> None:
        """The one to wake is the first of the queue, and somebody is woken if there is a place."""
        wanted = self.queue.pop(0) if self.queue and len(self.inside) + len(self.woken) < self.places() else None
        assert ticket == wanted
        if ticket is not None:
            self.woken.append(ticket)

    @rule()
    def one_comes(self) -> None:
        self.tickets += 1
        has_place = not self.queue and len(self.inside) + len(self.woken) < self.places()
        assert self.bulkhead.enter() == has_place
        if has_place:
            self.inside.append(self.tickets)
            return
        has_room = len(self.queue) < self.limits[1]
        assert self.bulkhead.wait(self.tickets) == has_room
        if has_room:
            self.queue.append(self.tickets)

    @precondition(lambda self: self.woken)
    @rule()
    def one_wakes(self) -> None:
        self.inside.append(self.woken.pop(0))

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        self.inside.remove(data.draw(st.sampled_from(self.inside)))
        self.wake(self.bulkhead.leave())

    @precondition(lambda self: self.queue or self.woken)
    @rule(data=st.data())
    def one_gives_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.queue + self.woken))
        if ticket in self.queue:
            self.queue.remove(ticket)
            assert self.bulkhead.forget(ticket) is None
        else:
            self.woken.remove(ticket)
            self.wake(self.bulkhead.forget(ticket))

    @rule(concurrency=st.integers(0, 4), queue=st.integers(0, 4))
    def it_is_tuned(self, concurrency: int, queue: int) -> None:
        self.limits = concurrency, queue
        for ticket in self.bulkhead.tune(concurrency, queue):
            self.wake(ticket)
        self.wake(None)

    @invariant()
    def no_place_is_lost_and_nobody_waits_beside_a_free_one(self) -> None:
        assert self.bulkhead.busy == len(self.inside) + len(self.woken)
        assert len(self.bulkhead) == len(self.queue)
        assert not self.queue or self.bulkhead.busy >= self.places()


TestBulkhead = BulkheadAgainstLists.TestCase


class ThrottleAgainstAList(RuleBasedStateMachine):
    """Calls ask, end well or not, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.throttle, self.factor, self.now = Throttle(2.0), 2.0, 1000.0
        self.calls: list[tuple[float, bool]] = []

    def young(self) -> list[bool]:
        return [good for at, good in self.calls if at // 6.0 > self.now // 6.0 - 20]

    @rule(good=st.booleans(), count=st.integers(1, 20))
    def calls_end(self, good: bool, count: int) -> None:
        for _ in range(count):
            self.throttle.tell(good, self.now)
            self.calls.append((self.now, good))

    @rule(seed=st.integers(0, 1000))
    def one_asks(self, seed: int) -> None:
        young = self.young()
        reject = max(0.0, (len(young) - self.factor * sum(young)) / (len(young) + 1)) if self.factor else 0.0
        refused = self.throttle.ask(self.now, Random(seed))
        assert refused == (Random(seed).random() < reject)
        if refused:
            self.calls.append((self.now, False))

    @rule(factor=st.sampled_from([0.0, 1.0, 1.5, 2.0]))
    def it_is_tuned(self, factor: float) -> None:
        self.factor = factor
        self.throttle.tune(factor)

    @rule(step=st.sampled_from([0.5, 6.0, 50.0, 119.0, 1e6]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.throttle.ask(self.now, Random(1)) and self.calls.append((self.now, False))

    @invariant()
    def figures_are_those_of_the_list(self) -> None:
        young = self.young()
        assert (self.throttle.requests, self.throttle.accepts) == (len(young), sum(young))


TestThrottle = ThrottleAgainstAList.TestCase


def test_a_dependency_that_takes_a_tenth_of_the_load_gets_a_fifth_of_it() -> None:
    throttle, rng, sent, took = Throttle(2.0), Random(7), 0, [0] * 600
    for n in range(600 * 100):
        second = n // 100
        if not throttle.ask(n / 100, rng):
            sent += second >= 300
            took[second] += (good := took[second] < 10)
            throttle.tell(good, n / 100)
    assert sent / (300 * 100) == pytest.approx(0.2, abs=0.02)
