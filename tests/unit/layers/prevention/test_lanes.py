"""What once went wrong, or nearly, each in the fewest steps."""

from collections import Counter

import pytest

from genesis.core.event import Delivery
from genesis.layers.prevention.lanes import DELIVERY_BYTES, QUANTA, Lanes

CRITICAL, HIGH, NORMAL, LOW, BACKGROUND = range(5)


def delivery(id: int, priority: int = NORMAL, *, key: str = "a", route: str = "box:x", begun: bool = False) -> Delivery:
    address = f"box/{key}" if key else ""
    return Delivery(route, address, "e", "s", b"", 0.0, int(begun), priority, id=id)


def offered(lanes: Lanes, *deliveries: Delivery) -> tuple[Delivery, ...]:
    for each in deliveries:
        lanes.offer(each)
    return deliveries


def taken(lanes: Lanes, now: float = 0.0) -> int | None:
    """Take one whose handler waits, and say which."""
    found = lanes.take(now)
    if found is None:
        return None
    lanes.lock(found)
    return found.id


def run_all(lanes: Lanes, now: float = 0.0) -> list[int]:
    """Take and release until nothing is left."""
    order = []
    while (found := lanes.take(now)) is not None:
        order.append(found.id)
        lanes.release(found)
    return order


# --- one key --------------------------------------------------------------------------------------------------------


def test_a_key_that_an_urgent_one_passed_goes_on_in_order() -> None:
    lanes = Lanes()
    first, *_ = offered(lanes, delivery(1), delivery(2), delivery(3))
    assert taken(lanes) == 1
    assert taken(lanes) is None
    lanes.release(first)
    offered(lanes, delivery(4, CRITICAL))
    assert run_all(lanes) == [4, 2, 3]


def test_one_that_comes_up_while_an_urgent_one_of_its_key_runs_stays_the_first() -> None:
    lanes = Lanes()
    first, *_ = offered(lanes, delivery(1), delivery(2), delivery(3))
    assert taken(lanes) == 1
    assert taken(lanes) is None
    lanes.release(first)
    (urgent,) = offered(lanes, delivery(4, CRITICAL))
    assert taken(lanes) == 4
    assert taken(lanes) is None
    lanes.release(urgent)
    assert run_all(lanes) == [2, 3]


def test_a_key_whose_first_waits_for_its_handler_goes_on_in_order_after_an_urgent_one_passed() -> None:
    lanes = Lanes()
    lanes.pause("box:x", 10)
    offered(lanes, delivery(1, route="box:x"))
    assert taken(lanes) is None
    offered(lanes, delivery(2, HIGH, route="box:y"), delivery(3, route="box:y"))
    assert run_all(lanes) == [2]
    lanes.resume("box:x")
    assert run_all(lanes) == [1, 3]


def test_an_urgent_one_that_waited_for_its_handler_is_not_behind_a_lesser_one_of_its_key() -> None:
    lanes = Lanes()
    lanes.pause("box:x", 10)
    offered(lanes, delivery(1, LOW), delivery(2, HIGH))
    assert taken(lanes) is None
    lanes.resume("box:x")
    assert run_all(lanes) == [2, 1]


def test_what_is_set_aside_leaves_in_order_though_some_of_it_was_blocked() -> None:
    lanes = Lanes()
    first, *_ = offered(lanes, delivery(1), delivery(2))
    assert taken(lanes) == 1
    assert taken(lanes) is None
    lanes.hold("box/a", NORMAL)
    offered(lanes, delivery(3))
    assert taken(lanes) is None
    assert [d.id for d in lanes.to_hold] == [2, 3]
    lanes.release(first)
    assert not any(lane.bytes for lane in lanes.lanes)


def test_what_is_set_aside_takes_along_one_that_waits_for_its_handler() -> None:
    lanes = Lanes()
    lanes.pause("box:x", 10)
    offered(lanes, delivery(1))
    assert taken(lanes) is None
    lanes.hold("box/a", HIGH)
    offered(lanes, delivery(2, route="box:y"))
    assert taken(lanes) is None
    assert [d.id for d in lanes.to_hold] == [1, 2]
    lanes.resume("box:x")
    assert run_all(lanes) == []


def test_pending_work_itself_is_not_held() -> None:
    lanes = Lanes()
    running, retry, later = offered(lanes, delivery(2), delivery(1), delivery(3))
    retry.pending = "retry"
    assert taken(lanes) == 2
    assert taken(lanes) is None
    lanes.hold("box/a", NORMAL)
    lanes.release(running)
    assert taken(lanes) == 1
    assert lanes.to_hold == []
    lanes.release(retry)
    assert taken(lanes) is None
    assert lanes.to_hold == [later]


def test_pending_work_that_waits_for_its_key_stays_when_later_ones_are_set_aside() -> None:
    lanes = Lanes()
    running, retry, blocked = offered(lanes, delivery(2), delivery(1), delivery(3))
    retry.pending = "retry"
    assert taken(lanes) == 2
    assert taken(lanes) is None
    lanes.hold("box/a", NORMAL)
    (later,) = offered(lanes, delivery(4))
    assert taken(lanes) is None
    assert lanes.to_hold == [blocked, later]
    lanes.release(running)
    assert run_all(lanes) == [1]


# --- paused handlers ------------------------------------------------------------------------------------------------


def test_what_waited_for_a_handler_comes_in_its_order_and_before_what_came_later() -> None:
    lanes = Lanes()
    lanes.pause("box:x", 10)
    offered(lanes, *[delivery(id, key=key) for id, key in enumerate(("a", "", "c", ""), 1)])
    assert taken(lanes) is None
    offered(lanes, delivery(5, key="e"))
    lanes.works("box:x")
    assert run_all(lanes) == [1, 2, 3, 4, 5]
    assert lanes.paused() == {}
    lanes.works("box:x")


def test_a_probe_that_ends_without_a_word_makes_way_for_the_next() -> None:
    """It expired, or could not be decoded: its handler never ran."""
    lanes = Lanes()
    lanes.pause("box:x", 10)
    offered(lanes, *[delivery(id, key=f"{id}") for id in (1, 2, 3)])
    assert taken(lanes, 9) is None
    assert run_all(lanes, 10) == [1, 2, 3]


def test_another_failure_starts_no_second_probe() -> None:
    lanes = Lanes()
    begun_before, *_ = offered(lanes, *[delivery(id, key=f"{id}") for id in (1, 2, 3)])
    assert taken(lanes) == 1
    lanes.pause("box:x", 5)
    assert taken(lanes, 5) == 2
    lanes.pause("box:x", 6)
    lanes.release(begun_before)
    assert taken(lanes, 9) is None
    assert lanes.wake_at() is None


def test_a_probe_that_was_brought_up_too_soon_keeps_its_turn() -> None:
    lanes = Lanes()
    lanes.pause("box:x", 5)
    offered(lanes, delivery(1, key="a"), delivery(2, key="b"))
    assert taken(lanes) is None
    assert lanes.wake_at() == 5
    lanes.wake(5)
    assert lanes.wake_at() is None
    lanes.pause("box:x", 8)
    assert taken(lanes, 5) is None
    assert lanes.wake_at() == 8
    assert taken(lanes, 8) == 1


def test_a_pause_is_never_made_shorter() -> None:
    lanes = Lanes()
    assert not lanes.pauses
    lanes.pause("box:x", 8)
    lanes.pause("box:x", 5)
    assert lanes.pauses
    assert lanes.paused() == {"box:x": 8}


# --- windows --------------------------------------------------------------------------------------------------------


def full(lanes: Lanes, *indexes: int) -> None:
    for index in indexes:
        lanes.lanes[index].last = 1 << 60
        assert lanes.starved(index)


def test_a_full_window_lets_go_of_what_waits_for_a_running_one() -> None:
    lanes = Lanes(2 * DELIVERY_BYTES)
    offered(lanes, *[delivery(id) for id in (1, 2, 3)])
    assert taken(lanes) == 1
    assert taken(lanes) is None
    full(lanes, 5)
    waiting, stopped, addresses = lanes.evict(5)
    assert ([d.id for d in waiting], stopped, addresses) == ([2, 3], [], {"box/a"})
    assert lanes.room(5)


def test_letting_go_of_one_that_waits_for_its_handler_does_not_free_the_key_of_a_running_one() -> None:
    lanes = Lanes(DELIVERY_BYTES)
    lanes.pause("box:x", 10)
    offered(lanes, delivery(1))
    assert taken(lanes) is None
    offered(lanes, delivery(2, HIGH, route="box:y"))
    assert taken(lanes) == 2
    full(lanes, 5)
    _, stopped, _ = lanes.evict(5)
    assert [d.id for d in stopped] == [1]
    offered(lanes, delivery(3, CRITICAL, route="box:y"))
    assert taken(lanes) is None


@pytest.mark.parametrize("pending", ["", "unavailable"])
def test_a_full_window_lets_go_of_what_waits_for_a_handler_pending_or_not(pending: str) -> None:
    lanes = Lanes(2 * DELIVERY_BYTES)
    lanes.pause("box:x", 10)
    for each in offered(lanes, delivery(1), delivery(2, key="b")):
        each.pending = pending
    assert taken(lanes) is None
    full(lanes, 5)
    assert [d.id for d in lanes.evict(5)[1]] == [1, 2]
    assert lanes.room(5)


def test_a_full_window_lets_go_of_one_in_another_lane_that_keeps_its_own_waiting() -> None:
    lanes = Lanes(2 * DELIVERY_BYTES)
    lanes.pause("box:x", 10)
    offered(lanes, delivery(1, HIGH), delivery(2, route="box:y"), delivery(3, route="box:y"))
    assert taken(lanes) is None
    full(lanes, 5)
    waiting, stopped, _ = lanes.evict(5)
    assert (waiting, [d.id for d in stopped]) == ([], [1])
    assert run_all(lanes) == [2, 3]


def test_a_window_wants_more_when_it_is_half_empty_or_has_nothing_to_run() -> None:
    lanes = Lanes(4 * DELIVERY_BYTES)
    window = lanes.lanes[5]
    assert not lanes.hungry()
    window.last = 10
    assert lanes.hungry()
    offered(lanes, *[delivery(id) for id in (1, 2, 3)])
    assert not lanes.hungry()
    assert taken(lanes) == 1
    assert taken(lanes) is None
    assert lanes.hungry()
    window.loaded = 10
    assert not lanes.hungry()
    assert not window.behind


# --- shares ---------------------------------------------------------------------------------------------------------


def test_background_work_that_ran_alone_does_not_wait_two_rounds_for_it() -> None:
    lanes = Lanes()
    offered(lanes, *[delivery(id, BACKGROUND, key="") for id in range(1, 10)])
    for _ in range(3):
        taken(lanes)
    for priority in (CRITICAL, HIGH, NORMAL, LOW):
        offered(lanes, *[delivery(100 * priority + id, priority, key="") for id in range(10, 90)])
    order = [found.priority for _ in range(36) if (found := lanes.take(0.0)) is not None]
    assert BACKGROUND in order[:34]
    assert Counter(order) == dict(enumerate(QUANTA))


def test_begun_work_goes_before_external_work_of_its_priority() -> None:
    lanes = Lanes()
    offered(lanes, delivery(1, key="a"), delivery(2, key="b", begun=True), delivery(3, key="c"), delivery(4, begun=True))
    assert run_all(lanes) == [2, 4, 1, 3]
