"""The production app in simulated worlds: nothing is lost, doubled or out of order, whatever goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from genesis.chaos import faults
from tests.simulation.run import run

ROOT = Path(__file__).parents[2]
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))
BLOCK = 20
SEEDS = 500 if os.environ.get("CI") else 40
SQLITE_SEEDS = 60 if os.environ.get("CI") else 20
"""Each with a thousand events and 24 faults; by hand: ``python -m tests.simulation 0:10000 --jobs 2``."""


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield pool


def check_seeds(workers: Executor, first: int, store: str) -> None:
    for outcome in workers.map(partial(run, store=store), range(first, first + BLOCK)):
        assert not outcome.complaints, f"python -m tests.simulation {outcome.seed} --store {store}: {outcome.complaints}"
        assert outcome.events >= 1000
        assert outcome.injected.total() >= 20


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_in_every_world(first: int, workers: Executor) -> None:
    check_seeds(workers, first, "memory")


@pytest.mark.usefixtures("shared_sqlite")
@pytest.mark.parametrize("first", range(0, SQLITE_SEEDS, BLOCK))
def test_every_promise_is_kept_on_a_disk_that_breaks(first: int, workers: Executor) -> None:
    check_seeds(workers, first, "sqlite")


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
