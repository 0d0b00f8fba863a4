"""The tests of the heart can fail: Genesis with one promise broken on purpose, and the test that must notice.

Each mutant is one change of the text of one file, in a copy. The text must be there exactly once: when the code moves,
this file says so, and the mutant moves with it. Few tests are worth as much as those that were seen to fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import genesis
from tests.mutants.behaviours import BEHAVIOURS, FOLDER, Behaviour

ROOT = Path(__file__).parents[2]
HEART = "tests/torture/test_heart.py"
FAILED = 1
"""Exit code of pytest when tests failed; 2 and above: they could not be run."""
SAMPLE = BEHAVIOURS if os.environ.get("GENESIS_MUTANTS") == "all" else BEHAVIOURS[::11]
"""Behaviours that are broken here: each takes three seconds. Of all of them: ``GENESIS_MUTANTS=all``."""


@dataclass(frozen=True)
class Mutant:
    """A broken promise."""

    name: str
    file: str
    old: str
    new: str
    test: str


def after(line: str, *more: str) -> tuple[str, str]:
    """A line, and the same line with others behind it."""
    return line, "\n".join([line, *more])


MUTANTS = [
    Mutant(
        "the log is not synced",
        "engines/sqlite_schema.py",
        '"synchronous": 2,',
        '"synchronous": 0,',
        "test_the_connection_that_commits_waits_for_the_disk",
    ),
    Mutant(
        "yes before the commit",
        "runtime/pipeline.py",
        *after(
            "        self.group, self.sealed = Group(), group",
            "        for offer in group.offers:",
            "            self._answer_offer(offer, None)",
        ),
        "test_no_yes_before_the_commit_not_even_to_a_duplicate",
    ),
    Mutant(
        "yes to a duplicate before the commit of the first",
        "runtime/intake.py",
        "            offer.waiter = first.echo",
        "            offer.waiter = None",
        "test_no_yes_before_the_commit_not_even_to_a_duplicate",
    ),
    Mutant(
        "yes although the store does not know",
        "runtime/pipeline.py",
        "if answer is Answer.UNKNOWN:",
        "if False:",
        "test_a_commit_that_failed_is_no_yes_and_leaves_nothing",
    ),
    Mutant(
        "emitted events are dispatched before the commit",
        "runtime/pipeline.py",
        *after(
            "        batch.state = self.overlay.seal()",
            "        self.lanes.hand_off(group.by_lane)",
            "        self.wake_slots()",
            "        group.by_lane = []",
        ),
        "test_an_emitted_event_waits_for_the_commit_of_its_parent",
    ),
    Mutant(
        "the fence is ignored",
        "engines/sqlite_rows.py",
        'WHERE partition = ? AND epoch = ?"',
        'WHERE partition = ? AND epoch >= 0 * ?"',
        "test_a_stale_owner_stores_nothing_and_stops",
    ),
    Mutant(
        "the state of a failed attempt stays",
        "runtime/slot.py",
        "            self._failed(context, error)\n        if self._running:",
        "            self._failed(context, error)\n"
        "        body = bound.changed(context, state, row)\n"
        "        self._pipeline.overlay.put(delivery.address, (bound.version, body or row[1]))\n"
        "        if self._running:",
        "test_nothing_of_a_failed_attempt_stays",
    ),
    Mutant(
        "the events of a failed attempt stay",
        "runtime/outcome.py",
        "        judged = verdict(",
        "        self.born(context._emits or [])\n        judged = verdict(",
        "test_nothing_of_a_failed_attempt_stays",
    ),
    Mutant(
        "states outlive a failed commit",
        "runtime/life.py",
        "overlay=Overlay(settings.cache_bytes),",
        'overlay=self.__dict__.setdefault("kept", Overlay(settings.cache_bytes)),',
        "test_a_commit_of_a_handler_that_failed_is_undone_as_a_whole",
    ),
    Mutant(
        "states are not in the commit",
        "runtime/pipeline.py",
        "batch.state = self.overlay.seal()",
        "batch.state = self.overlay.seal() and {}",
        "test_each_commit_holds_the_states_of_the_deliveries_that_it_ends",
    ),
    Mutant(
        "what is done stays in its lane",
        "engines/sqlite_rows.py",
        '_delete_ids(db, "event", batch.done)',
        "pass",
        "test_no_yes_before_the_commit_not_even_to_a_duplicate",
    ),
    Mutant(
        "what is done stays in the pending table",
        "runtime/outcome.py",
        "batch.unpend.append(delivery.id)",
        "pass",
        "test_work_that_was_pending_ends_once",
    ),
    Mutant(
        "the position of a source is not committed",
        "runtime/commit.py",
        'group.batch.put("source", *offer.position)',
        "pass",
        "test_a_source_goes_on_at_its_position",
    ),
    Mutant(
        "ids are not remembered",
        "runtime/pipeline.py",
        'batch.put("dedupe", key, pack_digests(at, marks))',
        "pass",
        "test_ids_are_remembered",
    ),
    Mutant(
        "numbers are used again after a restart",
        "engines/sqlite_rows.py",
        *after(
            "    head.last_epoch, head.epoch, head.commit_id = head.epoch, row[0], row[1]",
            "    head.next_sequence = [1] * LANES",
        ),
        "test_the_number_of_a_delivery_is_never_used_again",
    ),
    Mutant(
        "a timer that fired stays",
        "layers/recovery/timers.py",
        "        _, key = heapq.heappop(self._heap)\n        self._changed[key] = None",
        "        _, key = heapq.heappop(self._heap)",
        "test_a_timer_fires_once",
    ),
    Mutant(
        "the result of a call is used before it is committed",
        "runtime/pipeline.py",
        "        self.group.size += len(body)\n        await self.barrier()",
        "        self.group.size += len(body)\n        self.work.set()",
        "test_a_result_of_the_outside_is_committed_before_it_is_used",
    ),
    Mutant(
        "what runs is not noted",
        "runtime/pipeline.py",
        "head.running = list(self.running)",
        "head.running = []",
        "test_what_ran_when_the_process_died_has_one_attempt_less",
    ),
    Mutant(
        "a key does not wait after a restart",
        "runtime/restart.py",
        "pipeline.lanes.hold(address, rank)",
        "pass",
        "test_a_key_waits_for_its_first_event_across_a_restart",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of Genesis."""
    source = tmp_path_factory.mktemp("mutants")
    shutil.copytree(Path(genesis.__file__).parent, source / "genesis", ignore=shutil.ignore_patterns("__pycache__"))
    return source


def run(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests with the copy: those of the heart, or others by the path of their file."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "--tb=short", "-o", f"cache_dir={copy}/cache"]
    env = os.environ | {"PYTHONPATH": str(copy), "HEART_LIMIT_S": "5", "PYTHONDONTWRITEBYTECODE": "1"}
    names = [test if "::" in test else f"{HEART}::{test}" for test in tests]
    return subprocess.run([*command, *names], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_the_tests_pass_with_a_copy_that_is_not_changed(copy: Path) -> None:
    result = run(copy, *sorted({mutant.test for mutant in MUTANTS}))
    assert result.returncode == 0, result.stdout + result.stderr
    show = [sys.executable, "-c", "import genesis; print(genesis.__file__)"]
    env = os.environ | {"PYTHONPATH": str(copy)}
    used = subprocess.run(show, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(used).is_relative_to(copy), "the copy is not what was tested"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(mutant: Mutant, copy: Path) -> None:
    result = broken(copy, mutant, mutant.test)
    assert result.returncode == FAILED, result.stdout + result.stderr
    assert "1 failed" in result.stdout, result.stdout


def broken(copy: Path, mutant: Mutant | Behaviour, test: str) -> subprocess.CompletedProcess[str]:
    """Run a test with the copy, broken."""
    file = copy / "genesis" / mutant.file
    text = file.read_text()
    file.write_text(text.replace(mutant.old, mutant.new))
    try:
        return run(copy, test)
    finally:
        file.write_text(text)


def test_what_a_mutant_changes_is_there_once() -> None:
    for mutant in (*MUTANTS, *BEHAVIOURS):
        text = (Path(genesis.__file__).parent / mutant.file).read_text()
        assert text.count(mutant.old) == 1, f"{mutant.file} has changed: {mutant.old!r} is there {text.count(mutant.old)} times"


@pytest.mark.parametrize("behaviour", SAMPLE, ids=lambda behaviour: str(behaviour.number))
def test_a_broken_behaviour_is_noticed(behaviour: Behaviour, copy: Path) -> None:
    result = broken(copy, behaviour, behaviour.node)
    assert result.returncode == FAILED, result.stdout + result.stderr


def test_every_behaviour_has_a_test_of_its_number() -> None:
    numbers = [one.number for one in BEHAVIOURS]
    assert numbers == sorted(set(numbers))
    written = {
        f"{file.name}::{name}"
        for file in (ROOT / FOLDER).glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_b\d+_\w+)", file.read_text(), re.MULTILINE)
    }
    assert {one.test for one in BEHAVIOURS} <= written
    assert {int(re.findall(r"test_b(\d+)_", name)[0]) for name in written} == set(numbers)
    assert all(f"::test_b{one.number}_" in one.test for one in BEHAVIOURS)
