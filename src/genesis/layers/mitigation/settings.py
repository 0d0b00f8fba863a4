"""The settings of a policy: one flat, frozen table, so that code, `genesis.toml` and a change at run time say the same names.

Durations are seconds, shares and rates are fractions of 1. Each default stands beside its reason.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any

from genesis.core.errors import SettingsError

NEVER = float("inf")
ORDERED = (
    ("minimum_calls", "window_calls"),  # else there is never a rate
    ("warning_rate", "failure_rate"),  # else there is never a warning
    ("recovery_timeout_s", "recovery_max_s"),
    ("backoff_s", "backoff_max_s"),
)
"""Settings of which the first may not be over the second."""


def _setting(default: Any, meaning: str, low: float = 0.0, high: float = NEVER, *, open_low: bool = False) -> Any:
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "open": open_low})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """All settings of one policy. Raises SettingsError when one is out of range."""

    # --- circuit (specification section 1; window and open time: research of the peers) --------------------------------
    failure_threshold: float = _setting(5.0, "Failures in a row that open the circuit; a timeout counts half", 0.5)
    success_threshold: int = _setting(3, "Probes in a row that must succeed to close it again", 1, 1000)
    recovery_timeout_s: float = _setting(5.0, "How long it stays open the first time", open_low=True)
    recovery_max_s: float = _setting(300.0, "How long it stays open at the most, after doubling", open_low=True)
    window_s: float = _setting(60.0, "Age at which a call no longer counts", open_low=True)
    window_calls: int = _setting(30, "Newest calls over which rates are taken", 2, 100_000)
    minimum_calls: int = _setting(20, "Calls below which there is no rate", 1, 100_000)
    failure_rate: float = _setting(0.5, "Share of failed calls that opens the circuit", 0.0, 1.0, open_low=True)
    warning_rate: float = _setting(0.25, "Share of failed calls that makes it RESILIENT", 0.0, 1.0, open_low=True)
    slow_rate: float = _setting(0.5, "Share of slow calls that makes it RESILIENT; 0: never", 0.0, 1.0)
    slow_open_rate: float = _setting(
        0.0, "Share of slow calls that opens it. 0: never, since it would turn slow answers into none", 0.0, 1.0
    )
    slow_factor: float = _setting(2.5, "How many times the healthy p95 a call takes to be slow", 1.0)
    ultra_threshold_s: float = _setting(2.0, "Average latency that makes it ULTRA_RESILIENT", open_low=True)
    probes: int = _setting(1, "Probes that may be under way at once while HALF_OPEN", 1, 1000)
    ramp: int = _setting(2, "Calls that may be under way at once after recovery, one more a success; 0: no ramp", 0, 10_000)

    # --- time (specification section 2) ---------------------------------------------------------------------------------
    timeout_s: float = _setting(1.0, "Base timeout of an attempt", open_low=True)
    timeout_resilient_s: float = _setting(1.5, "The same while RESILIENT, if that is longer", open_low=True)
    timeout_ultra_s: float = _setting(3.0, "The same while ULTRA_RESILIENT, if that is longer", open_low=True)
    timeout_max_s: float = _setting(30.0, "Longest timeout that is learned", open_low=True)
    latency_factor: float = _setting(2.5, "Timeout in expected latencies", 1.0)
    p99_factor: float = _setting(1.3, "Timeout in learned p99", 1.0)
    deadline_s: float = _setting(NEVER, "Time for a call with all attempts; the caller's own is kept if nearer", open_low=True)

    # --- attempts ---------------------------------------------------------------------------------------------------------
    attempts: int = _setting(3, "Tries one after the other, of an operation that may be repeated; 1: no retry", 1, 100)
    backoff_s: float = _setting(0.1, "Longest wait before the second try; doubles, drawn in full", open_low=True)
    backoff_max_s: float = _setting(5.0, "Longest wait between two tries", open_low=True)
    hedges: int = _setting(1, "Copies of a slow attempt that may start; one more while ULTRA_RESILIENT; 0: none", 0, 10)
    hedge_share: float = _setting(0.05, "Hedges for each call, at most", 0.0, 10.0)
    ultra_share: float = _setting(0.2, "The same while ULTRA_RESILIENT", 0.0, 10.0)
    budget_share: float = _setting(0.1, "Retries and hedges together for each call, at most", 0.0, 100.0)
    budget_floor: int = _setting(3, "Retries that are granted in ten seconds without any traffic", 0, 100_000)
    essential: bool = _setting(False, "Whether it is never abandoned, and retried sooner")
    abandon_below: float = _setting(0.3, "Success probability below which it is abandoned unless essential; 0: never", 0.0, 1.0)

    # --- load (layer Prevention) -------------------------------------------------------------------------------------------
    concurrency: int = _setting(0, "Attempts that may be under way at once; 0: any number", 0, 1_000_000)
    queue: int = _setting(0, "Attempts of async calls that may wait for a place under concurrency", 0, 1_000_000)
    queue_s: float = _setting(NEVER, "How long they may wait", open_low=True)
    rate_per_s: float = _setting(0.0, "Attempts a second, beyond which they are refused; 0: any number", 0.0)
    burst: int = _setting(1, "Attempts at once after a pause, under rate_per_s", 1, 1_000_000)
    throttle: float = _setting(0.0, "Calls for each good one before some are refused (SRE: 2); 0: never, else at least 1", 0.0)

    # --- fallback ------------------------------------------------------------------------------------------------------------
    stale_s: float = _setting(0.0, "How old a result may be that is given instead of an error; 0: none is kept", 0.0)
    stale_entries: int = _setting(1024, "Results kept for that", 1, 10_000_000)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, low, high = getattr(self, one.name), one.metadata["low"], one.metadata["high"]
            kind = type(one.default)
            if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise SettingsError(f"{one.name} is {value!r}: {_fitting(kind)} is needed")
            if kind is bool:
                continue
            if not low <= value <= high or (one.metadata["open"] and value == low) or (value != value):
                above = "over" if one.metadata["open"] else "at least"
                most = "" if not isfinite(high) else f" and at most {high:g}"
                raise SettingsError(f"{one.name} is {value!r}: {above} {low:g}{most} is needed ({one.metadata['meaning']})")
        self._check_pairs()

    def _check_pairs(self) -> None:
        for less, more in ORDERED:
            if getattr(self, less) > getattr(self, more):
                raise SettingsError(f"{less} is {getattr(self, less)}, over {more} ({getattr(self, more)})")
        if 0 < self.throttle < 1:
            raise SettingsError(f"throttle is {self.throttle}: under 1 it refuses calls that are good; 0 turns it off")

    def changed(self, **changes: Any) -> PolicySettings:
        """The same with some settings changed. Raises SettingsError for a name that is unknown or a value out of range."""
        unknown = [name for name in changes if name not in MEANINGS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], MEANINGS, 1)
            hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(MEANINGS)}"
            raise SettingsError(f"a policy has no setting {unknown[0]}{hint}")
        return PolicySettings(**(asdict(self) | changes))


MEANINGS: dict[str, str] = {one.name: one.metadata["meaning"] for one in fields(PolicySettings)}
"""Of each setting, by name."""


def _fitting(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "True or False"}[kind]
