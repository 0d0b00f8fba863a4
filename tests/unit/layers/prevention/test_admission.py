from typing import Any

import pytest

from genesis.layers.prevention.admission import Admission, AdmissionSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backlog_max": 0}, "backlog_max is 0: at least 1"),
        ({"disk_reserve_bytes": -1}, "disk_reserve_bytes is -1: at least 0"),
        ({"quota_bytes": 1000}, "quota_bytes is 1000: at least 1 MiB"),
    ],
    ids=["backlog", "reserve", "quota"],
)
def test_a_limit_that_makes_no_sense_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdmissionSettings(**settings)


def test_the_first_commit_after_a_long_uptime_says_nothing_of_the_rate() -> None:
    admission = Admission(AdmissionSettings(backlog_max=1))
    admission.tell_done(100, 0, 1_000_000.0)
    assert admission.ask(5000) == ("5000 deliveries wait, expected to become 5000; the limit is 1", 1.0)
    admission.tell_done(100, 0, 1_000_000.1)
    refusal = admission.ask(5000)
    assert refusal is not None
    assert refusal[1] == pytest.approx(0.5)


def test_a_full_store_is_told_in_numbers() -> None:
    admission = Admission(AdmissionSettings(quota_bytes=100 << 20, disk_reserve_bytes=20 << 20))
    admission.tell_usage(70 << 20, 1 << 40)
    assert admission.ask(0) == ("the store has 70 MiB of its quota of 100 MiB", 1.0)
    admission.tell_usage(69 << 20, 19 << 20)
    assert admission.ask(0) == ("19 MiB are left on the disk, the reserve is 20 MiB", 1.0)
