"""The checker finds what is wrong with a batch: a run over HTTP that kept every promise is tampered with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from tests.torture.drive import Torture
from tests.torture.history import History
from tests.torture.test_check import broken, lists_of, sql


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one kill that kept every promise."""
    folder = tmp_path_factory.mktemp("good")
    report = Torture(folder, 1, rate=700.0, say=lambda line: None, http=True).run(["answer:300"])
    assert report.good, report.text()
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for name in ("torture.db", "producer.log", "outside"):
        shutil.copy(good / name, tmp_path)
    return tmp_path


def a_batch(folder: Path) -> list[str]:
    """Events of a batch that was accepted, and of which none is planned to be rejected."""
    history = History.read(folder / "producer.log")
    events = history.events
    return next(b for b in history.batches if all(events[e].said_yes and "r" not in events[e].plan for e in b))


def undo(folder: Path, event: str) -> None:
    """Take back what an event did in `accounts`."""
    for address, state in lists_of(folder, "accounts"):
        for order in state["order"]:
            if event in order:
                order.remove(event)
                sql(folder, "UPDATE state SET body = ? WHERE address = ?", msgspec.msgpack.encode(state), address)
                return
    raise AssertionError(f"{event} did nothing")


def test_a_good_run_is_good(folder: Path) -> None:
    assert not broken(folder)
    assert len(History.read(folder / "producer.log").batches) > 10


def test_half_a_batch_is_found_though_nobody_was_told_that_it_was_accepted(folder: Path) -> None:
    first, *others = a_batch(folder)
    log = folder / "producer.log"
    text = log.read_text()
    for event in (first, *others):
        text = re.sub(rf"^Y {event} .*\n", "", text, flags=re.MULTILINE) + f"L {event} unanswered\n"
    log.write_text(text)
    assert not broken(folder), "all of it is there"
    undo(folder, first)
    found = broken(folder)
    assert "batches: all or nothing" in found
    assert "accounts: none lost" not in found


def test_an_answer_that_says_of_a_part_that_it_is_new_is_found(folder: Path) -> None:
    log = folder / "producer.log"
    log.write_text(re.sub(rf"^(Y {a_batch(folder)[0]}) 0 ", r"\1 1 ", log.read_text(), flags=re.MULTILINE))
    assert broken(folder) == "batches: one answer for all"
