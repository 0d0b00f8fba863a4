"""What once went wrong with due times, each in the fewest steps."""

from genesis.core.event import Delivery, Pending, Reason
from genesis.layers.recovery.pending import PendingWork


def row(due: float, attempt: int = 1) -> Pending:
    return Pending(Delivery("box:x", "box/a", "e", "s", b"", 0.0, id=5, attempt=attempt), Reason.RETRY, due)


def pending_until(time: float) -> PendingWork:
    pending = PendingWork()
    pending.load([], None, time)
    return pending


def test_one_that_is_put_off_beyond_the_time_in_memory_does_not_come_up_at_the_old_time() -> None:
    pending = pending_until(60)
    pending.schedule(row(10))
    pending.schedule(row(100))
    assert pending.wake_at() is None
    assert pending.wake(60) == []


def test_one_that_is_put_off_to_the_same_time_comes_up_as_it_is_now() -> None:
    pending = pending_until(60)
    pending.schedule(row(10, attempt=1))
    pending.schedule(row(10, attempt=2))
    assert pending.wake(10) == [row(10, attempt=2)]
    assert pending.wake(60) == []


def test_one_that_was_forgotten_may_come_back_with_the_same_time() -> None:
    pending = pending_until(60)
    pending.schedule(row(10))
    pending.forget(5)
    assert pending.wake_at() is None
    pending.schedule(row(10))
    pending.schedule(row(10))
    assert pending.wake(10) == [row(10)]
    assert pending.wake(60) == []
