"""How long an attempt may take."""

from math import inf

import pytest

from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.timeouts import timeout_as_written_s, timeout_s


@pytest.mark.parametrize(
    ("base_s", "expected_s", "p99_s", "remaining_s", "wanted_s"),
    [
        (1.0, None, None, inf, 1.0),
        (1.0, 0.1, 0.2, inf, 1.0),
        (1.0, 0.8, 1.0, inf, 2.0),
        (1.0, 0.8, 4.0, inf, 5.2),
        (1.0, None, 4.0, inf, 5.2),
        (1.0, 0.8, None, inf, 2.0),
        (1.0, 20.0, 100.0, inf, 30.0),
        (60.0, 20.0, 100.0, inf, 60.0),
        (60.0, 20.0, 100.0, 7.0, 7.0),
        (1.0, 0.1, 0.2, -1.0, 0.0),
    ],
)
def test_timeouts(base_s: float, expected_s: float | None, p99_s: float | None, remaining_s: float, wanted_s: float) -> None:
    assert timeout_s(PolicySettings(), base_s, expected_s, p99_s, remaining_s) == pytest.approx(wanted_s)


def test_as_written() -> None:
    assert [timeout_as_written_s(1.0, expected_s) for expected_s in (None, 0.1, 0.4, 3.0)] == [1.0, 1.0, 1.0, 7.5]
