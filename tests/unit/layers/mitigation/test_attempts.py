"""Waits, plans by state, and whether copies help."""

from math import inf, nan
from random import Random
from types import SimpleNamespace

import pytest

from genesis.core.errors import CircuitOpenError
from genesis.layers.mitigation.attempts import HedgeWins, Plan, as_written_plan, backoff_s, parallel_bound, plan, retry_after_of
from genesis.layers.mitigation.settings import PolicySettings

SETTINGS = PolicySettings()
STATES = ("CLOSED", "RESILIENT", "OPEN", "HALF_OPEN", "ULTRA_RESILIENT")


class HighestDraw(Random):
    """Draws the end of each range."""

    def uniform(self, a: float, b: float) -> float:
        return b


# --- waits ------------------------------------------------------------------------------------------------------------


def test_waits_double_up_to_the_longest() -> None:
    waits = [backoff_s(SETTINGS, attempt, HighestDraw()) for attempt in (1, 2, 3, 6, 7, 8, 5000)]
    assert waits == [0.1, 0.2, 0.4, 3.2, 5.0, 5.0, 5.0]


def test_jitter_is_full() -> None:
    waits = [backoff_s(SETTINGS, 1, rng) for rng in [Random(1)] for _ in range(1000)]
    assert min(waits) < 0.001
    assert max(waits) > 0.099


def test_essential_ones_wait_half_as_long() -> None:
    essential = SETTINGS.changed(essential=True)
    assert [backoff_s(essential, attempt, HighestDraw()) for attempt in (1, 2, 9)] == [0.05, 0.1, 2.5]


@pytest.mark.parametrize(
    ("retry_after_s", "floor_s"), [(7.0, 7.0), (0.0, 0.0), (-3.0, 0.0), (nan, 0.0), (inf, 86_400.0), (-inf, 0.0)]
)
def test_a_retry_after_is_a_floor(retry_after_s: float, floor_s: float) -> None:
    rng = Random(1)
    assert all(floor_s <= backoff_s(SETTINGS, 1, rng, retry_after_s=retry_after_s) <= floor_s + 0.1 for _ in range(100))


def http_error(headers: object) -> Exception:
    error = RuntimeError("503")
    error.response = SimpleNamespace(headers=headers)  # type: ignore[attr-defined]
    return error


class UnreadableError(Exception):
    @property
    def response(self) -> object:
        raise RuntimeError("not asked yet")


@pytest.mark.parametrize(
    ("error", "wanted_s"),
    [
        (CircuitOpenError("payments", 2.5), 2.5),
        (CircuitOpenError("payments", -2.5), None),
        (CircuitOpenError("payments", nan), None),
        (CircuitOpenError("payments", True), None),
        (RuntimeError(), None),
        (http_error({"retry-after": "120"}), 120.0),
        (http_error({"retry-after": "9" * 400}), inf),
        (http_error({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
        (http_error({"retry-after": "-1"}), None),
        (http_error({"retry-after": "1e5"}), None),
        (http_error({"retry-after": "²"}), None),
        (http_error({"retry-after": ""}), None),
        (http_error({"retry-after": 5}), None),
        (http_error({}), None),
        (http_error(None), None),
        (UnreadableError(), None),
    ],
)
def test_what_an_error_says_of_when_to_come_back(error: Exception, wanted_s: float | None) -> None:
    assert retry_after_of(error) == wanted_s


# --- plans ------------------------------------------------------------------------------------------------------------


def planned(state: str, settings: PolicySettings = SETTINGS, **changes: object) -> Plan:
    known = {0.75: 0.75, 0.9: 0.9, 0.95: 0.95}
    facts = {"quantile": known.get, "expected_s": 3.0, "idempotent": True, "has_fallback": True, "vetoed": False} | changes
    return plan(settings, state=state, **facts)  # type: ignore[arg-type]


def test_plans_by_state() -> None:
    assert planned("CLOSED") == Plan((0.95,), None)
    assert planned("RESILIENT") == Plan((), 0.75)
    assert planned("ULTRA_RESILIENT") == Plan((0.75, 0.9), 0.95)
    assert planned("OPEN") == planned("HALF_OPEN") == Plan((), None)


def test_without_a_fallback_none_is_planned() -> None:
    assert [planned(state, has_fallback=False).fallback_after_s for state in STATES] == [None] * 5


@pytest.mark.parametrize("change", [{"idempotent": False}, {"vetoed": True}, {"settings": PolicySettings(hedges=0)}])
def test_copies_need_an_idempotent_call_hedges_and_no_veto(change: dict[str, object]) -> None:
    assert [planned(state, **change).copies for state in STATES] == [()] * 5  # type: ignore[arg-type]
    assert planned("ULTRA_RESILIENT", **change).fallback_after_s == 0.95  # type: ignore[arg-type]


def test_copies_need_samples_and_the_fallback_waits_for_what_is_expected() -> None:
    assert [planned(state, quantile=lambda q: None) for state in STATES] == [
        *(Plan(), Plan((), 3.0), Plan(), Plan(), Plan((), 3.0))
    ]
    assert planned("RESILIENT", quantile=lambda q: None, expected_s=None) == Plan()


def test_the_expected_latency_bounds_how_many_run_at_once() -> None:
    bounds = [parallel_bound(expected_s) for expected_s in (None, 0.1, 1.0, 1.01, 2.0, 2.01)]
    assert bounds == [1, 1, 1, 2, 2, 3]
    copies = [len(planned("ULTRA_RESILIENT", expected_s=expected_s).copies) for expected_s in (None, 0.1, 1.5, 2.5)]
    assert copies == [1, 1, 1, 2]
    assert len(planned("ULTRA_RESILIENT", SETTINGS.changed(hedges=10)).copies) == 2


def test_copies_never_begin_at_once() -> None:
    assert planned("CLOSED", quantile=lambda q: 1e-6).copies == (0.001,)
    assert planned("ULTRA_RESILIENT", quantile=lambda q: 0.5).copies == (0.5, 0.501)


def test_as_written_everything_begins_at_once() -> None:
    assert [as_written_plan(state, 3.0, True) for state in STATES] == [
        *(Plan((0.0, 0.0)), Plan((), 0.0), Plan(), Plan(), Plan((0.0, 0.0), 0.0))
    ]
    assert as_written_plan("CLOSED", None, True) == as_written_plan("RESILIENT", 3.0, False) == Plan()


# --- do copies help? --------------------------------------------------------------------------------------------------


def test_copies_that_seldom_win_are_poor_after_twenty() -> None:
    wins = HedgeWins()
    for _ in range(19):
        wins.tell(False)
    assert (wins.poor(), wins.allow()) == (False, True)
    wins.tell(False)
    assert wins.poor()
    assert [wins.allow() for _ in range(100)].count(True) == 2


def test_copies_that_win_one_time_in_five_are_not_poor() -> None:
    wins = HedgeWins()
    for n in range(1000):
        wins.tell(n % 5 == 0)
        assert not wins.poor()


def test_a_poor_one_recovers_by_its_probes() -> None:
    wins, asked = HedgeWins(), 0
    for _ in range(10_000):
        wins.tell(False)
    while wins.poor():
        asked += 1
        if wins.allow():
            wins.tell(True)
    assert asked == 6 * 50
