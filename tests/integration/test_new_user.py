"""The way of somebody new, as `./dev bench new_user` measures it. How long it takes is recorded, and no reason to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.new_user import FIGURES, walk


def test_from_nothing_to_a_state_that_holds_an_event(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    steps = walk(tmp_path)
    assert set(steps) == {figure.name for figure in FIGURES}
    for name, seconds in steps.items():
        print(f"{name} {seconds:.2f}")
        record_property(name, round(seconds, 3))
