"""The checker finds what is wrong with a store: a run that kept every promise is tampered with, one thing at a time."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.torture.check import check
from tests.torture.drive import Torture

LEVEL = 2
"""The priority with most events."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one kill that kept every promise."""
    folder = tmp_path_factory.mktemp("good")
    report = Torture(folder, 1, rate=700.0, say=lambda line: None).run(["answer:300"])
    assert report.good, report.text()
    assert report.verdict.unexpected == report.verdict.lost == 0
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for name in ("torture.db", "producer.log", "outside"):
        shutil.copy(good / name, tmp_path)
    return tmp_path


def broken(folder: Path) -> str:
    """The promises that the checker calls broken."""
    verdict, _ = check(folder / "torture.db", folder / "producer.log", folder / "outside")
    assert verdict.good == (not any(row.broken for row in verdict.rows))
    return " | ".join(row.promise for row in verdict.rows if row.broken)


def sql(folder: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(folder / "torture.db", isolation_level=None)) as db:
        return db.execute(statement, values).fetchall()


def lists_of(folder: Path, component: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for address, body in sql(folder, "SELECT address, body FROM state WHERE address GLOB ?", f"{component}/*"):
        yield address, msgspec.msgpack.decode(body)


def change(folder: Path, component: str, how: Callable[[list[str]], object]) -> None:
    """Change the first list that is long enough."""
    for address, state in lists_of(folder, component):
        if len(state["order"][LEVEL]) > 4:
            how(state["order"][LEVEL])
            sql(folder, "UPDATE state SET body = ? WHERE address = ?", msgspec.msgpack.encode(state), address)
            return
    raise AssertionError("no list is long enough")


def swap(order: list[str]) -> None:
    """First and last: one link offers in order, and four in a row are of one link, or not in its order."""
    order[:] = order[::-1]


def set_head(folder: Path, name: str, value: object) -> None:
    ((body,),) = sql(folder, "SELECT body FROM head")
    head = msgspec.msgpack.decode(body)
    head[name] = value
    sql(folder, "UPDATE head SET body = ?", msgspec.msgpack.encode(head))


def rewrite(folder: Path, pattern: str, by: str) -> None:
    """Change the producer's log, one line of it."""
    log = folder / "producer.log"
    text, found = re.subn(pattern, by, log.read_text(), count=1, flags=re.MULTILINE)
    assert found == 1
    log.write_text(text)


def test_a_good_run_is_good(folder: Path) -> None:
    assert not broken(folder)


@pytest.mark.parametrize(
    ("component", "how", "promise"),
    [
        ("accounts", lambda order: order.pop(), "accounts: none lost"),
        ("accounts", lambda order: order.append(order[0]), "accounts: none doubled"),
        ("accounts", lambda order: order.append("9-9"), "accounts: none unexpected"),
        ("accounts", swap, r"accounts \(hold\): as offered"),
        ("mirror", lambda order: order.pop(), "mirror: none lost"),
        ("mirror", lambda order: order.append(order[0]), "mirror: none doubled"),
        ("mirror", swap, r"mirror \(skip\): as offered"),
        ("trail", lambda order: order.pop(), "emitted: none lost"),
        ("trail", lambda order: order.append(order[0]), "emitted: none doubled"),
        ("trail", swap, r"trail \(hold\): as accepted.*trail: as emitted"),
    ],
)
def test_a_changed_effect_is_found(folder: Path, component: str, how: Callable[[list[str]], object], promise: str) -> None:
    change(folder, component, how)
    assert re.search(promise, broken(folder))


@pytest.mark.parametrize(
    ("statement", "promise"),
    [
        ("DELETE FROM dead WHERE key = (SELECT min(key) FROM dead)", "accounts: none lost"),
        ("DELETE FROM dedupe WHERE key = (SELECT min(key) FROM dedupe)", "ids of all accepted are remembered"),
        ("DELETE FROM state WHERE address = 'total/'", "emitted: total"),
        ("DELETE FROM state WHERE address = 'steps/'", "source: position"),
        ("DELETE FROM state WHERE address GLOB 'alarms/*'", "timers: none lost"),
        ("INSERT INTO once VALUES (0, 'x/call', x'c0')", "calls: journal"),
        ("INSERT INTO event VALUES (1, NULL, x'c0')", "table event is empty"),
        ("INSERT INTO pending VALUES (1, 'a', 'held', NULL, 0, x'c0')", "table pending is empty"),
        ("INSERT INTO timer VALUES (0, 'a', 'n', 1.0, x'c0')", "table timer is empty"),
    ],
)
def test_a_changed_table_is_found(folder: Path, statement: str, promise: str) -> None:
    sql(folder, statement)
    assert promise in broken(folder)


@pytest.mark.parametrize("place", range(13))
def test_a_changed_counter_is_found(folder: Path, place: int) -> None:
    ((body,),) = sql(folder, "SELECT body FROM head")
    ledger = msgspec.msgpack.decode(body)["ledger"]
    ledger[place] += 1
    set_head(folder, "ledger", ledger)
    assert "ledger" in broken(folder)


@pytest.mark.parametrize(
    ("name", "value"), [("clean", False), ("running", [1]), ("waiting_by_lane", [1] * 10), ("next_sequence", [1] * 10)]
)
def test_a_changed_head_is_found(folder: Path, name: str, value: object) -> None:
    set_head(folder, name, value)
    assert "head" in broken(folder)


@pytest.mark.parametrize(
    ("pattern", "by", "promise"),
    [
        (r"^Y .*\n", "", "the producer has every answer"),
        (r"^A (\S+) \d+ ", r"A \1 99999 ", "questions: took effect once"),
        (r"^(A (\S+) )(\d+)( .*)$", r"\1\3\4\n\g<1>77\4", "questions: one answer each"),
        (r"^(S .*)-$", r"\1-o", "calls: at least once"),
    ],
)
def test_a_changed_answer_is_found(folder: Path, pattern: str, by: str, promise: str) -> None:
    rewrite(folder, pattern, by)
    assert promise in broken(folder)


@pytest.mark.parametrize(
    ("by", "promise"),
    [
        (r"\1 \2 \3 \4\n\1 \2 \3 0000", "calls: the last result counts.*calls: again only after a death"),
        (r"\1 \2 \3 \4\n\1 other 1 \4", "calls: one key"),
        (r"\1 \2 \3 \4\n9-9 x 1 y", "calls: none unexpected"),
    ],
)
def test_a_changed_call_is_found(folder: Path, by: str, promise: str) -> None:
    outside, rejected = folder / "outside", r"^(\S+) (\S+) (\S+) (\S+)$"
    kept = {token for _, state in lists_of(folder, "accounts") for token in state["tokens"]}
    lines = sorted(outside.read_text().splitlines(), key=lambda line: line.split()[0] not in kept)
    outside.write_text(re.sub(rejected, by, "\n".join(lines) + "\n", count=1, flags=re.MULTILINE))
    assert re.search(promise, broken(folder))


def test_a_damaged_file_is_found(folder: Path) -> None:
    ((page,),) = sql(folder, "SELECT rootpage FROM sqlite_master WHERE name = 'state'")
    ((size,),) = sql(folder, "PRAGMA page_size")
    with (folder / "torture.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with suppress(sqlite3.DatabaseError):  # that is found, too
        assert broken(folder)
