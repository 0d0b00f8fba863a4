"""`genesis run --reload` with real processes and files."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from genesis.cli.reload import files_in, folder_of
from tests.unit.cli.support import SHOP, Running, Shop, until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


def pids(running: Running) -> list[int]:
    return [int(pid) for pid in re.findall(r"store shop.db  pid (\d+)", running.said)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def write(shop: Shop, source: str) -> None:
    whole = shop.folder / "shop.py.new"
    whole.write_text(source)
    whole.rename(shop.folder / "shop.py")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_change_starts_it_again_in_order_and_one_signal_ends_both(shop: Shop, number: signal.Signals, code: int) -> None:
    running = shop.start("--reload")
    shop.send("tea")
    write(shop, SHOP.replace("stock.left -= order.qty", "stock.left -= 10 * order.qty"))
    until(lambda: len(pids(running)) == 2, "the second start")
    assert "genesis: shop.py changed: started again" in running.said
    assert running.said.count("shop stopped  accepted 1") == 1
    shop.send("tea")
    shop.settled()
    assert shop.json("state", "get", "inventory", "tea")["state"] == {"left": 89}
    running.tell(number)
    assert running.ended() == code
    assert all(gone(pid) for pid in pids(running))
    assert shop.json("status")["state"] == "stopped"


def test_an_error_at_import_is_shown_and_the_next_change_is_waited_for(shop: Shop) -> None:
    running = shop.start("--reload")
    write(shop, "1 / 0\n")
    until(lambda: "it ended with code 3, and is started again when a file changes" in running.said, "the error")
    assert re.search(r"importing shop failed: ZeroDivisionError: division by zero \(.*shop.py:1\)", running.said)
    write(shop, SHOP)
    until(lambda: len(pids(running)) == 2, "the second start")
    write(shop, "1 / 0\n")
    until(lambda: running.said.count("it ended with code 3") == 2, "the second error")
    running.tell(signal.SIGINT)
    assert running.ended() == 130


def test_the_worker_stops_with_the_process_that_watches(shop: Shop) -> None:
    running = shop.start("--reload")
    (worker,) = pids(running)
    running.process.kill()
    running.ended()
    until(lambda: "shop stopped" in running.said, "the stop")
    until(lambda: gone(worker), "the end")


def test_what_no_change_of_a_file_would_mend_ends_it(shop: Shop) -> None:
    done = shop.run("run", "shop", "--reload", "--log", "pretty")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = shop.run("run", "shop:app", "--reload", "--log", "pretty", GENESIS_SLOTS="many")
    assert (done.returncode, done.stderr) == (3, "genesis: GENESIS_SLOTS is 'many': a whole number\n")


def test_only_sources_of_the_application_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    for name in ("pack_x/__init__.py", "pack_x/inner/a.py", ".git/b.py", "env/c.py", "pack_x/__pycache__/d.py", "pack_x/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert folder_of("pack_x.shop") == tmp_path / "pack_x"
    assert folder_of("not_there_yet") == tmp_path
    assert {os.path.relpath(name, tmp_path) for name in files_in(tmp_path)} == {"pack_x/__init__.py", "pack_x/inner/a.py"}
