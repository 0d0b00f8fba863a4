"""The production app in simulated worlds: nothing is lost, doubled or out of order, whatever goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genesis.chaos import faults
from tests.simulation.run import run

ROOT = Path(__file__).parents[2]
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
BLOCK = 10
SEEDS = 500 if os.environ.get("CI") else 40
SQLITE_SEEDS = 60 if os.environ.get("CI") else 10
"""Each with a thousand events and 24 faults; by hand: ``python -m tests.simulation 0:10000 --jobs 2``."""


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_in_every_world(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run(seed)
        assert not outcome.complaints, f"python -m tests.simulation {seed}: {outcome.complaints}"
        assert outcome.events >= 1000
        assert outcome.injected.total() >= 20


@pytest.mark.usefixtures("shared_sqlite")
@pytest.mark.parametrize("first", range(0, SQLITE_SEEDS, BLOCK))
def test_every_promise_is_kept_on_a_disk_that_breaks(first: int) -> None:
    for seed in range(first, first + BLOCK):
        outcome = run(seed, store="sqlite")
        assert not outcome.complaints, f"python -m tests.simulation {seed} --store sqlite: {outcome.complaints}"
        assert outcome.events >= 1000
        assert outcome.injected.total() >= 20


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_seed_that_ever_failed_does_not_fail_again(path: Path, request: pytest.FixtureRequest) -> None:
    kept = json.loads(path.read_text())
    schedule = faults.from_json(json.dumps(kept["schedule"]))
    if kept.get("store") == "sqlite":
        request.getfixturevalue("shared_sqlite")
    options = {name: kept[name] for name in ("events", "nodes", "store") if name in kept}
    outcome = run(kept["seed"], schedule=schedule, **options)
    assert not outcome.complaints, kept["found"]


def test_the_same_seed_is_the_same_world_in_every_process() -> None:
    """With other hash seeds, and other objects at other addresses."""
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulation", "0:50", "--events", "96", "--digests", "--clutter", clutter],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed, clutter in (("1", "0"), ("2", "54321"))
    ]
    one, other = (process.communicate()[0].splitlines() for process in begun)
    assert len(one) == 50
    assert one == other
    assert len(set(one)) == 50
