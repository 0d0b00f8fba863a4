"""`genesis bench`: the built-in job and a job of one's own; what it leaves alone; how it ends."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genesis.cli.main import main
from tests.unit.cli.support import DEADLINE_S, Shop, until

SHORT = ("--seconds", "0.2")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        (tmp_path / "orders.jsonl").write_text('{"sku": "tea"}\n\n{"sku": "mint", "qty": 2}\n')
        yield found


def files(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file() and p.suffix != ".pyc"}


def check(found: dict[str, Any]) -> None:
    assert found["events"] > 10
    assert found["events_per_s"] == pytest.approx(2 * found["offered_per_s"], rel=0.01)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    assert 0 < found["sync_ms"]["p50"] <= found["sync_ms"]["p99"]
    assert found["disk_bytes"] > 10_000


def test_the_job_that_is_built_in(shop: Shop) -> None:
    found = shop.json("bench", *SHORT)
    check(found)
    assert (found["app"], found["type"], found["dead"]) == ("bench", "bench.added", 0)


def test_a_job_of_ones_own_leaves_the_store_of_the_application_alone(shop: Shop) -> None:
    shop.send("tea", "--app", "shop:app")
    before = files(shop.folder)
    found = shop.json("bench", "shop:app", "shop.placed", "orders.jsonl", *SHORT, GENESIS_STORE="shop.db")
    check(found)
    assert (found["app"], found["type"]) == ("shop", "shop.placed")
    assert found["machine"]["folder"] == str(shop.folder)
    assert files(shop.folder) == before
    assert not list(shop.folder.glob(".genesis-*"))


def test_it_measures_while_the_application_runs_and_takes_messages_from_stdin(shop: Shop) -> None:
    shop.start()
    check(shop.json("bench", "shop:app", "shop.placed", "-", *SHORT, stdin='{"sku": "tea"}\n'))
    assert shop.json("status")["ledger"]["accepted"] == 0


def test_people_get_a_table_and_progress_on_stderr(shop: Shop) -> None:
    done = shop.run("bench", *SHORT)
    assert done.returncode == 0
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[1:]] == [
        "FIGURE",
        "events a second",
        "p50",
        "p99",
        "a sync of the disk",
        "on disk",
    ]
    assert [line.split(" s ")[0] for line in done.stderr.splitlines()] == ["0.2", "0.2"]


def test_sources_are_not_started_and_resources_may_be_others(shop: Shop) -> None:
    with (shop.folder / "shop.py").open("a") as module:
        module.write(
            "\n\n@app.source\nasync def wild(position: int | None):\n"
            "    Path('source-ran').touch()\n    yield 1, Placed('tea')\n"
            "class Bank: pass\nclass Fake(Bank): pass\n"
            "@app.resource\nasync def bank() -> AsyncIterator[Bank]:\n    Path('bank-opened').touch()\n    yield Bank()\n"
            "@app.component\nclass Payer:\n    def __init__(self, bank: Bank) -> None: pass\n"
            "    @on(Placed)\n    async def pay(self, order: Placed, ctx: Context) -> None: pass\n"
            "fakes = {Bank: Fake()}\n"
        )
    text = (shop.folder / "shop.py").read_text()
    (shop.folder / "shop.py").write_text(f"from collections.abc import AsyncIterator\n{text}")
    job = ("bench", "shop:app", "shop.placed", "orders.jsonl", *SHORT)
    check(shop.json(*job, "--resources", "fakes"))
    assert not (shop.folder / "bank-opened").exists()
    check(shop.json(*job))
    assert (shop.folder / "bank-opened").exists()
    assert not (shop.folder / "source-ran").exists()


def test_events_that_fail_are_said_and_are_no_success(shop: Shop) -> None:
    (shop.folder / "bad.jsonl").write_text('{"sku": "bad"}')
    done = shop.run("bench", "shop:app", "shop.placed", "bad.jsonl", *SHORT)
    assert done.returncode == 1
    assert "dead letters, such as: rejected: Reject: no such sku" in done.stderr
    assert "failed" in done.stdout


def test_events_that_do_not_end_are_no_rate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis.cli.load.QUIET_S", 0.5)
    monkeypatch.chdir(shop.folder)
    monkeypatch.syspath_prepend(str(shop.folder))
    (shop.folder / "waiting.py").write_text((shop.folder / "shop.py").read_text())
    Path("down.jsonl").write_text('{"sku": "down"}')
    before = sys.getswitchinterval()
    done = CliRunner().invoke(main, ["bench", "waiting:app", "shop.placed", "down.jsonl", *SHORT])
    sys.setswitchinterval(before)  # the command sets it for its process, which is ours here
    assert done.exit_code == 1
    assert "nothing ended for 0.5 s" in done.stderr
    assert "inventory:shop.placed waits for what is unavailable" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("shop:app", 2, "genesis bench shop:app TYPE FILE; types: shop.placed, shop.slow"),
        ("shop:app shop.placd orders.jsonl", 1, "nobody handles 'shop.placd'; did you mean 'shop.placed'?"),
        ("shop:app shop.placed gone.jsonl", 2, "gone.jsonl cannot be read: No such file or directory"),
        ("shop:app shop.placed wrong.jsonl", 2, "wrong.jsonl:2: Placed (shop.placed): Expected `str`, got `int`"),
        ("shop:app shop.placed none.jsonl", 2, "none.jsonl has no messages"),
        ("--folder nowhere", 1, "nowhere cannot be written: No such file or directory; name another with --folder"),
        ("--resources fakes", 2, "--resources are those of an application"),
        ("--seconds 0", 2, "Invalid value for '--seconds'"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(arguments: str, code: int, said: str, shop: Shop) -> None:
    (shop.folder / "wrong.jsonl").write_text('{"sku": "tea"}\n{"sku": 7}\n')
    (shop.folder / "none.jsonl").write_text("\n")
    done = shop.run("bench", *arguments.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_left(number: signal.Signals, shop: Shop) -> None:
    said = shop.folder / "said.txt"
    with said.open("wb") as stderr:
        command = [sys.executable, "-m", "genesis", "bench", "--seconds", "60"]
        process = subprocess.Popen(command, cwd=shop.folder, env=shop.environment(), stdout=stderr, stderr=stderr)
    try:
        until(lambda: "as fast as it goes" in said.read_text(), "the first load")
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.wait(DEADLINE_S)
    assert "Traceback" not in said.read_text()
    assert not list(shop.folder.glob(".genesis-*"))
