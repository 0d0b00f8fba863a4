"""What is given to a sink, against a plain account of the rules: batches, attempts, one by one, pace."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from genesis.core.errors import Reject, UnavailableError
from genesis.layers.recovery.failure import Again, Dead, Retry
from genesis.layers.recovery.outbox import Outbox

Calls = list[tuple[int, ...]]


@dataclass
class Elsewhere:
    """A system that some items trouble: always (bad), or the first so many times (flaky); some it rejects."""

    bad: frozenset[int]
    rejected: frozenset[int]
    flaky: dict[int, int]
    down: list[int]
    """Numbers of the calls at which it is down."""
    calls: int = 0

    def take(self, items: tuple[int, ...]) -> Exception | None:
        self.calls += 1
        if self.calls in self.down:
            return UnavailableError("elsewhere", 3.0)
        for item in items:
            if item in self.rejected:
                return Reject("never")
            left = self.flaky.get(item, 0)
            self.flaky[item] = left - 1
            if item in self.bad or left > 0:
                return ConnectionError("not now")
        return None


def by_the_rules(items: tuple[int, ...], elsewhere: Elsewhere, attempts: int, told: Calls) -> tuple[list[int], list[int]]:
    """Give these; if that fails for good, give each alone. Returns what was taken, and what died."""
    failed = 0
    while True:
        told.append(items)
        error = elsewhere.take(items)
        if error is None:
            return list(items), []
        if isinstance(error, UnavailableError):
            continue
        failed += 1
        if failed < attempts and not isinstance(error, Reject):
            continue
        if len(items) == 1:
            return [], list(items)
        parts = [by_the_rules((item,), elsewhere, attempts, told) for item in items]
        return [item for taken, _ in parts for item in taken], [item for _, dead in parts for item in dead]


def by_the_machine(items: list[int], elsewhere: Elsewhere, outbox: Outbox, told: Calls, times: list[float]) -> list[list[int]]:
    """The same, as the runtime does it."""
    taken, dead, now, rng = list[int](), list[int](), 100.0, Random(1)
    while items:
        rows, items = items[: outbox.at_once], items[outbox.at_once :]
        outbox.filled(len(rows))
        while rows:
            now = max(now, outbox.due) + 0.001
            count = outbox.give(now)
            told.append(tuple(rows[:count]))
            times.append(now)
            error = elsewhere.take(tuple(rows[:count]))
            if error is None:
                outbox.took()
                taken += rows[:count]
                del rows[:count]
            elif isinstance(judged := outbox.failed(now, error, rng), Dead):
                assert count == 1
                dead.append(rows.pop(0))
            elif isinstance(judged, Again):
                assert outbox.due >= now + judged.delay_s
                assert judged.counted is not isinstance(error, UnavailableError)
    return [taken, dead]


NUMBERS = st.frozensets(st.integers(0, 11), max_size=3)


@example(12, 4, 2, 3.5, frozenset([1]), frozenset([6]), {3: 1}, [2])
@given(
    st.integers(0, 12),
    st.integers(1, 6),
    st.integers(1, 4),
    st.none() | st.floats(0.2, 50),
    NUMBERS,
    NUMBERS,
    st.dictionaries(st.integers(0, 11), st.integers(0, 5), max_size=4),
    st.lists(st.integers(1, 30), max_size=8),
)
def test_calls_and_ends_are_those_of_the_rules(
    count: int,
    batch: int,
    attempts: int,
    per_second: float | None,
    bad: frozenset[int],
    rejected: frozenset[int],
    flaky: dict[int, int],
    down: list[int],
) -> None:
    items, retry = list(range(count)), Retry(attempts=attempts)
    wanted, told, times = list[tuple[int, ...]](), list[tuple[int, ...]](), list[float]()
    outbox = Outbox(batch, per_second, retry)
    at_once = batch if per_second is None else min(batch, max(1, int(per_second)))
    taken, dead = list[int](), list[int]()
    naive = Elsewhere(bad, rejected, dict(flaky), down)
    for begin in range(0, count, at_once):
        some = by_the_rules(tuple(items[begin : begin + at_once]), naive, attempts, wanted)
        taken += some[0]
        dead += some[1]
    ended = by_the_machine(items, Elsewhere(bad, rejected, dict(flaky), down), outbox, told, times)
    assert (told, ended) == (wanted, [taken, dead])
    assert sorted(taken + dead) == items
    assert taken == sorted(taken)
    if per_second is not None:
        for call, now, after in zip(told, times, times[1:], strict=False):
            assert after - now >= len(call) / per_second - 1e-9


@given(st.integers(1, 20), st.data())
def test_items_that_ended_without_a_call_are_not_given(count: int, data: st.DataObject) -> None:
    outbox, waiting = Outbox(20, None, Retry(attempts=1)), count
    outbox.filled(count)
    outbox.failed(0.0, ConnectionError(), Random(1)) if outbox.give(0.0) > 1 else outbox.took()
    if count == 1:
        return
    while waiting:
        dropped = data.draw(st.integers(0, waiting))
        outbox.dropped(dropped)
        waiting -= dropped
        if waiting:
            assert outbox.give(0.0) == 1, "each alone"
            outbox.took()
            waiting -= 1
    outbox.filled(7)
    assert outbox.give(0.0) == 7
