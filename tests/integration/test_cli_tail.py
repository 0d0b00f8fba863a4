"""`genesis tail` beside real processes that come and go."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from genesis.cli.watch import Watch
from genesis.engines.outside import Outside
from tests.unit.cli.support import DEADLINE_S, Shop, until


class Tail:
    """A process of `genesis tail --jsonl`."""

    def __init__(self, shop: Shop, *arguments: str) -> None:
        self.out = shop.folder / "tail.jsonl"
        with self.out.open("wb") as stdout:
            command = [sys.executable, "-m", "genesis", "tail", "shop.db", "--jsonl", "--every", "0.02", *arguments]
            self.process = subprocess.Popen(
                command, cwd=shop.folder, env=shop.environment(), stdout=stdout, stderr=subprocess.PIPE
            )

    def lines(self, kind: str) -> list[dict[str, Any]]:
        text = self.out.read_text()
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        assert all(line["schema"] == 1 and line["at"].endswith("Z") for line in found)
        return [line for line in found if line["kind"] == kind]

    def saw(self, kind: str, **fields: Any) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None
            return next((line for line in self.lines(kind) if fields.items() <= line.items()), None)

        found: dict[str, Any] = until(look, f"{kind} {fields}")
        return found

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


@pytest.fixture
def tail(shop: Shop) -> Iterator[Tail]:
    shop.send("tea", "--app", "shop:app")
    found = Tail(shop)
    yield found
    found.process.kill()
    found.process.communicate(timeout=DEADLINE_S)


def test_what_happens_is_followed_over_a_stop_a_kill_and_another_store(shop: Shop, tail: Tail) -> None:
    tail.saw("owner", state="stopped")
    running = shop.start()
    tail.saw("owner", pid=running.process.pid, state="runs")
    shop.send("bad", "--id", "e1")
    dead = tail.saw("dead", event_id="e1", component="inventory")
    assert (dead["reason"], dead["detail"], dead["key"]) == ("rejected", "no such sku", "bad")
    assert "payload" not in dead
    assert any(line["moved"].get("dead") == 1 for line in tail.lines("counted"))
    assert shop.run("send", "shop.slow", '{"sku": "tea"}', "--id", "e2").returncode == 0
    assert tail.saw("waiting", event_id="e2")["priority"] == "NORMAL"
    running.process.kill()
    running.ended()
    tail.saw("owner", pid=running.process.pid, state="died")
    for file in shop.folder.glob("shop.db*"):
        file.unlink()
    shop.send("bad", "--app", "shop:app", "--id", "e3")
    tail.saw("dead", event_id="e3")
    assert tail.end() == 130


def test_a_letter_is_shown_once_also_when_others_were_dropped_before_it(shop: Shop, tail: Tail) -> None:
    shop.start()
    for event_id in ("e1", "e2", "e3"):
        shop.send("bad", "--id", event_id)
        newest = tail.saw("dead", event_id=event_id)
    assert shop.run("dlq", "drop", newest["letter"], "--yes").returncode == 0
    for event_id in ("e4", "e5"):  # the first takes the place that the dropped one had in the store
        shop.send("bad", "--id", event_id)
        tail.saw("dead", event_id=event_id)
    assert [line["event_id"] for line in tail.lines("dead")] == ["e1", "e2", "e3", "e4", "e5"]


class Counting(Outside):
    """A store of which is counted how many dead letters were read."""

    letters = 0

    def scan(self, table: str, after: str = "", limit: int = 1000, partition: int = 0) -> list[tuple[str, bytes]]:
        found = super().scan(table, after, limit, partition)
        self.letters += len(found) * (table == "dead")
        return found

    def newest(
        self, table: str, below: int | None = None, limit: int = 1000, partition: int = 0
    ) -> list[tuple[int, str, bytes]]:
        found = super().newest(table, below, limit, partition)
        self.letters += len(found) * (table == "dead")
        return found


def test_a_look_reads_the_letters_that_are_new_and_no_others(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis.cli.watch.LETTERS", 7)  # several pages

    def die(times: int) -> None:
        lines = '{"sku": "bad"}\n' * times
        assert shop.run("send", "shop.placed", "-", "--app", "shop:app", stdin=lines).returncode == 0

    die(50)
    with closing(Counting(shop.store)) as outside:
        watch = Watch(0.0)
        assert sum(news.kind == "dead" for news in watch.look(outside, 0.0)) == 50
        outside.letters = 0
        die(2)
        assert sum(news.kind == "dead" for news in watch.look(outside, 0.0)) == 2
        assert outside.letters <= 4


def test_one_look_shows_what_is_there(shop: Shop) -> None:
    shop.send("bad", "--app", "shop:app")
    shop.send("boom", "--app", "shop:app")
    shown = shop.run("tail", "--once")
    assert shown.returncode == 0
    assert "dead     HIGH       inventory  shop.placed  key bad  id cli-" in shown.stdout
    assert "rejected: Reject: no such sku  (attempt 1)  genesis dlq show " in shown.stdout
    assert "boom \\x1b[31m" in shown.stdout
    assert "accepted +2" in shown.stdout
    assert len(shop.run("tail", "--once", "--limit", "1").stdout.splitlines()) == 1
    (line,) = [line for line in shop.run("tail", "--once", "--payload").stdout.splitlines() if "key bad" in line]
    assert '{"sku":"bad","qty":1}' in line
    assert "key bad" in shop.run("tail", "--once", "--since", "10m").stdout
    assert "key bad" not in shop.run("tail", "--once", "--since", "0s").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere.db"], 3, "nowhere.db: there is no store"),
        (["memory:"], 2, "memory: is seen by its own process only"),
        (["shop.db", "--since", "yesterday"], 2, "'yesterday' is no time: write 30s, 10m, 2h, 1d, or 2027-"),
        (["shop.db", "--since", ""], 2, "'' is no time"),
        (["shop.db", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["shop.db", "--every", "0"], 2, "Invalid value for '--every'"),
        (["shop.py"], 3, "not a store of Genesis"),
    ],
)
def test_bad_input(shop: Shop, arguments: list[str], code: int, said: str) -> None:
    done = shop.run("tail", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert not done.stdout
