"""`genesis dlq`, `state` and `doctor` with real processes."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.support import DEADLINE_S, Shop, until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


def letters(shop: Shop) -> list[Any]:
    found: list[Any] = shop.json("dlq", "list")["letters"]
    return found


def with_letters(shop: Shop, *skus: str) -> list[str]:
    """Run the shop until each of the events is a letter. Returns their keys."""
    for sku in skus:
        shop.send(sku)
    until(lambda: len(letters(shop)) == len(skus), "the letters")
    return [letter["key"] for letter in letters(shop)]


# --- dead letters ---------------------------------------------------------------------------------------------------


def test_letters_are_listed_and_shown_whole(shop: Shop) -> None:
    shop.start()
    assert letters(shop) == []
    assert shop.run("dlq", "list").stderr == "no dead letters\n"
    with_letters(shop, "bad", "boom", "park")
    found = {letter["reason"]: letter for letter in letters(shop)}
    assert set(found) == {"rejected", "failed", "parked"}
    assert found["rejected"]["detail"] == "no such sku"
    failed = shop.json("dlq", "show", found["failed"]["key"])
    assert failed["schema"] == 1
    assert failed["payload"] == {"sku": "boom", "qty": 1}
    assert (failed["error"], failed["attempts"], failed["address"]) == ("ValueError", 1, "inventory/boom")
    assert (failed["app_version"], failed["state_version"], failed["kind"]) == ("1.2", 1, "external")
    assert 'raise ValueError("boom' in failed["traceback"]
    shown = shop.run("dlq", "show", failed["key"].lstrip("0"))
    assert shown.returncode == 0
    assert '"sku": "boom"' in shown.stdout
    assert "ValueError: boom \\x1b[31m" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert shop.json("dlq", "show", found["parked"]["key"])["state"] == "parked"
    listed = shop.run("dlq", "list", "--limit", "2")
    assert len(listed.stdout.splitlines()) == 3
    assert listed.stderr == "2 of 3; earlier ones: --skip 2, or all with --limit 3\n"


def test_replay_brings_back_and_drop_removes(shop: Shop) -> None:
    shop.start()
    keys = with_letters(shop, "boom", "park")
    (shop.folder / "mended").touch()
    done = shop.run("dlq", "replay", *keys)
    assert (done.returncode, done.stdout) == (0, "replayed 2 dead letters\n")
    status = until(lambda: found if not (found := shop.settled())["ledger"]["waiting"] else None, "the end")
    assert (status["ledger"]["replay"], status["dead_letters"]) == (1, 0)
    assert shop.json("state", "get", "inventory", "boom")["state"] == {"left": 99}
    assert shop.json("state", "get", "ledger", "park")["state"] == {"left": 99}
    (shop.folder / "mended").unlink()
    key, _ = with_letters(shop, "bad", "park")
    assert shop.json("dlq", "drop", key, "--yes") == {"schema": 1, "done": [key], "missing": []}
    assert shop.run("dlq", "drop", "--all", "--yes").stdout == "dropped 1 dead letter\n"
    status = shop.settled()
    assert (status["dead_letters"], status["ledger"]["waiting"], status["well"]) == (0, 0, True)


def test_all_of_many(shop: Shop) -> None:
    shop.start()
    assert shop.run("send", "shop.placed", stdin='{"sku": "bad"}\n' * 230).returncode == 0
    until(lambda: shop.json("status")["dead_letters"] == 230, "the letters")
    assert len(shop.json("dlq", "drop", "--all", "--yes")["done"]) == 230
    assert letters(shop) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["replay"], 2, "name the keys of dead letters"),
        (["replay", "1", "--all"], 2, "name the keys of dead letters"),
        (["replay", "1"], 1, "there is no dead letter 0000000000000001"),
        (["show", "zz"], 1, "'zz' is no key of a dead letter"),
        (["drop", "zz", "--yes"], 1, "'zz' is no key of a dead letter"),
        (["list", "--store", "nope.db"], 3, "nope.db: there is no store"),
    ],
)
def test_what_is_not_there(shop: Shop, arguments: list[str], code: int, said: str) -> None:
    shop.start()
    done = shop.run("dlq", *arguments)
    assert done.returncode == code
    assert done.stderr.startswith(f"genesis: {said}")
    assert done.stdout == ""


def test_nothing_to_do_is_done_at_once(shop: Shop) -> None:
    shop.start().tell(signal.SIGKILL)
    assert shop.run("dlq", "drop", "--all").stdout == "dropped 0 dead letters\n"


def test_acting_needs_an_owner(shop: Shop) -> None:
    running = shop.start()
    key, *_ = with_letters(shop, "boom", "bad")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    assert len(letters(shop)) == 2
    for act in (["replay", key], ["drop", "--all", "--yes"]):
        done = shop.run("dlq", *act)
        assert done.returncode == 4
        assert "--app MODULE:APP" in done.stderr
    (shop.folder / "mended").touch()
    assert shop.run("dlq", "replay", key, "--app", "shop:app").returncode == 0
    assert shop.run("dlq", "drop", "--all", "--yes", "--app", "shop:app").returncode == 0
    assert letters(shop) == []
    assert shop.json("status")["ledger"]["replay"] == 1


def test_drop_asks_a_person_and_nobody_else(shop: Shop) -> None:
    shop.start()
    with_letters(shop, "bad", "boom")
    done = shop.run("dlq", "drop", "--all")
    assert done.returncode == 2
    assert done.stderr == "genesis: this would drop 2 dead letters for good: say --yes\n"
    assert _typed(shop, "n\n", "dlq", "drop", "--all") == 1
    assert len(letters(shop)) == 2
    assert _typed(shop, "y\n", "dlq", "drop", "--all") == 0
    assert letters(shop) == []


def _typed(shop: Shop, text: str, *arguments: str) -> int:
    """Exit code of a command whose stdin is a terminal at which somebody types."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "genesis", *arguments],
            cwd=shop.folder,
            env=shop.environment(),
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            os.write(ours, text.encode())
            _, said = process.communicate(timeout=DEADLINE_S)
        assert b"Drop 2 dead letters for good?" in said
        return process.returncode
    finally:
        os.close(ours)
        os.close(theirs)


# --- state ----------------------------------------------------------------------------------------------------------


def test_states_are_listed_in_pages(shop: Shop) -> None:
    running = shop.start()
    for sku in ("tea", "toast", "coffee"):
        shop.send(sku)
    shop.settled()
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    first = shop.json("state", "list", "inventory", "--limit", "2")
    assert [state["key"] for state in first["states"]] == ["coffee", "tea"]
    assert (first["schema"], first["more"]) == (1, True)
    last = shop.json("state", "list", "inventory", "--limit", "2", "--after", "tea")
    assert [state["key"] for state in last["states"]] == ["toast"]
    assert last["more"] is False
    some = shop.run("state", "list", "inventory", "--prefix", "t")
    assert some.stdout == 'KEY    VERSION  STATE\ntea    1        {"left":99}\ntoast  1        {"left":99}\n'
    assert shop.run("state", "list", "inventory", "--prefix", "z").returncode == 0
    got = shop.run("state", "get", "inventory", "tea")
    assert (got.stdout, got.stderr) == ('{\n  "left": 99\n}\n', "version 1\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "inventory", "cake"], "nothing is stored of inventory for key 'cake'"),
        (["get", "inventory"], "nothing is stored of inventory without a key"),
        (["get", "inventry", "tea"], "no component 'inventry' keeps state in shop.db; did you mean 'inventory'?"),
        (["list", "xyz"], "no component 'xyz' keeps state in shop.db; there are inventory, ledger"),
    ],
)
def test_states_that_are_not_there(shop: Shop, arguments: list[str], said: str) -> None:
    shop.start()
    done = shop.run("state", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"genesis: {said}")


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_finds_all_well(shop: Shop) -> None:
    shop.start()
    shop.send("tea")
    shop.settled()
    done = shop.run("doctor")
    assert done.returncode == 0, done.stdout
    names = [line.split()[1] for line in done.stdout.splitlines()]
    assert names == [
        "python",
        "libraries",
        "settings",
        "store",
        "integrity",
        "owner",
        "ledger",
        "clock",
        "disk",
        "sync",
    ]
    assert all(line.startswith("[ok]") for line in done.stdout.splitlines())
    assert shop.json("doctor")["well"]


def test_doctor_finds_a_death(shop: Shop) -> None:
    running = shop.start()
    shop.send("tea")
    shop.settled()
    running.tell(signal.SIGKILL)
    running.ended()
    found = shop.json("doctor")
    assert [check["name"] for check in found["checks"] if not check["ok"]] == ["owner"]


def test_doctor_finds_damage(shop: Shop) -> None:
    running = shop.start()
    shop.run("send", "shop.placed", stdin="".join(f'{{"sku": "{n}"}}\n' for n in range(300)))
    shop.settled()
    running.tell(signal.SIGTERM)
    running.ended()
    place = shop.store.read_bytes().index(b"inventory/150")  # a page of states in the middle: opening does not read it
    with shop.store.open("r+b") as file:
        file.seek(place // 4096 * 4096)
        file.write(os.urandom(4096))
    done = shop.run("doctor")
    assert done.returncode == 1
    wrong = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("[!!]")]
    assert wrong[0] == "integrity"
    assert "restore the store from a copy" in done.stdout
    assert done.stderr == ""
