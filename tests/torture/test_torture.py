"""An application that is killed again and again keeps its promises. By hand, and longer: ``python -m tests.torture``."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.torture.drive import POINTS, torture


@pytest.mark.timeout(240)
@pytest.mark.parametrize("http", [False, True], ids=["socket", "http"])
def test_twenty_kills_lose_nothing_double_nothing_and_keep_the_order(http: bool) -> None:
    seed = int(os.environ.get("TORTURE_SEED") or Random().randrange(10**6))
    kills = [*POINTS, *POINTS, *["random"] * 8, "stop", "stop"]
    Random(seed).shuffle(kills)
    report = torture(kills, seed, http=http)
    assert report.good, f"TORTURE_SEED={seed}\n{report.text()}"
    assert report.kills == {**dict.fromkeys(POINTS, 2), "random": 8, "stop": 2}
    assert report.facts()["accepted"] > 100
    assert bool(report.history.batches) == http
