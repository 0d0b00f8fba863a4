import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis.core.event import LANES, PRIORITIES, SEQUENCE_MASK, Delivery, Kind, Priority, lane_of, lane_start

LANE_NUMBERS = st.integers(0, LANES - 1)
SEQUENCES = st.integers(1, SEQUENCE_MASK)


def delivery(kind: Kind = Kind.EXTERNAL, priority: Priority = Priority.NORMAL) -> Delivery:
    return Delivery("box:shop.order", "box/a", "1", "gate", b"{}", 5.0, kind, priority)


def test_a_lower_number_is_more_urgent() -> None:
    assert sorted(Priority) == [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW, Priority.BACKGROUND]


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("kind", Kind)
def test_begun_work_goes_before_external_work_of_its_priority(priority: Priority, kind: Kind) -> None:
    lane = lane_of(priority, kind)
    assert lane == delivery(kind, priority).lane
    assert lane >> 1 == priority
    assert lane & 1 == (kind is Kind.EXTERNAL)


def test_there_is_a_lane_for_begun_and_for_external_work_of_each_priority() -> None:
    assert {lane_of(priority, kind) for priority in Priority for kind in Kind} == set(range(LANES))
    assert LANES == 2 * PRIORITIES


@given(st.lists(st.tuples(st.integers(0, 50), LANE_NUMBERS, SEQUENCES), min_size=2, max_size=2, unique=True))
def test_ids_are_in_the_order_of_partition_lane_and_sequence(places: list[tuple[int, int, int]]) -> None:
    ids = [lane_start(partition, lane) | sequence for partition, lane, sequence in places]
    assert (ids[0] < ids[1]) == (places[0] < places[1])
    assert all(0 < id < 1 << 63 for id in ids), "stores have signed integers"


@given(st.integers(0, 50), LANE_NUMBERS, SEQUENCES)
def test_a_lane_begins_before_its_first_and_ends_before_the_next_lane(partition: int, lane: int, sequence: int) -> None:
    assert lane_start(partition, lane) < lane_start(partition, lane) | sequence < lane_start(partition, lane + 1)


def test_a_delivery_knows_its_component_and_type() -> None:
    assert (delivery().component, delivery().type) == ("box", "shop.order")


def test_what_belongs_to_the_process_is_not_stored() -> None:
    stored = delivery().stored()
    assert stored == ("box:shop.order", "box/a", "1", "gate", b"{}", 5.0, 0, 2, None, "", None)
    assert Delivery(*stored) == delivery()
