import msgspec

from genesis.core.event import LANES, PRIORITIES
from genesis.core.ports import BATCH_BYTES, BATCH_RECORDS, GROUP_ROWS, Batch, Head, Ledger


def test_a_fresh_head_has_a_place_for_every_lane_and_priority() -> None:
    head = Head.fresh()
    assert head.next_sequence == [1] * LANES
    assert head.waiting_by_lane == [0] * LANES
    assert head.born_by_priority == head.ended_by_priority == [0] * PRIORITIES
    assert (head.epoch, head.commit_id, head.clean, head.running) == (0, 0, True, [])
    assert head.ledger == Ledger()
    assert head.ledger.imbalance() == ""


def test_two_heads_share_nothing() -> None:
    one, other = Head.fresh(), Head.fresh()
    one.next_sequence[0] += 1
    one.ledger.offered += 1
    one.running.append(5)
    assert other == Head.fresh()


def test_a_head_survives_the_store() -> None:
    head = Head.fresh()
    head.ledger.offered, head.running = 3, [1, 2]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(head), type=Head) == head


def test_a_batch_keeps_the_last_word_on_a_row() -> None:
    batch = Batch()
    batch.put("fact", "a", b"1")
    batch.put("fact", "b", b"2")
    batch.put("fact", "a", None)
    batch.put("once", "a", b"3")
    assert batch.tables == {"fact": {"a": None, "b": b"2"}, "once": {"a": b"3"}}
    assert Batch().tables == {}


def test_what_one_call_may_add_fits_into_a_group() -> None:
    assert BATCH_RECORDS <= GROUP_ROWS
    assert BATCH_BYTES <= 1 << 20, "what the strictest engine takes in one step"
