"""`./dev demo`: the worker is killed and heals, the totals are right, the terminal is as it was."""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from examples.flights import worker as worker_module
from examples.flights.desk_process import Arrival, DeskError, DeskProcess
from examples.flights.post import Poster, PostError
from examples.flights.verdict import Totals, differences, untold
from examples.flights.watch import Watch
from examples.flights.worker import Worker, WorkerError
from genesis.engines.outside import Outside

ROOT = Path(__file__).resolve().parents[2]
DEMO = (sys.executable, "-m", "examples.flights.demo")
# The session leader of the terminal: a terminal whose leader ends is reset, whatever the demo left behind.
LEADER = """
trap : INT
stty -g >"$0.before"
sh -c 'echo $$ >"$0.pid"; exec "$@"' "$0" "$@"
echo $? >"$0.code"
stty -g >"$0.after"
"""


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*DEMO, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def is_owned(store: Path) -> bool:
    outside = Outside(store)
    try:
        owner = outside.owner()
    finally:
        outside.close()
    return owner is not None and owner[2]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_two_kills_heal_and_all_totals_are_right(tmp_path: Path) -> None:
    done = run("--full-speed", "--scale", 2, "--kill-at", 1, 2, "--json", "--store", tmp_path / "storm.db")

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["ok"]
    assert [death["by"] for death in told["deaths"]] == ["--kill-at", "--kill-at"]
    assert all(0 < death["healed_s"] < 30 for death in told["deaths"])
    assert told["compared"] == {
        "equal": True,
        "differences": [],
        "airports": 180,
        "boards": 6750,
        "rebookings": 924,
        "seats": 115_338,
        "alerts": 1922,
    }
    ledger = told["ledger"]
    assert ledger["adds_up"]
    assert (ledger["accepted"], ledger["done"], ledger["dead"], ledger["waiting"]) == (19_392, 164_008, 0, 0)
    assert not is_owned(tmp_path / "storm.db")


def test_without_a_terminal_it_prints_plain_lines_and_a_summary(tmp_path: Path) -> None:
    done = run("--full-speed", "--store", tmp_path / "storm.db")

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert re.search(r"^Thu 07 Feb 00:00  born 0 = done 0", done.stdout)
    assert "81,043 deliveries" in done.stdout
    assert "ledger    adds up" in done.stdout
    assert "totals    all equal" in done.stdout
    assert done.stderr == ""


# --- the desk outside -------------------------------------------------------------------------------------------------


def test_each_alert_is_told_once_although_the_desk_is_cut_and_the_worker_killed(tmp_path: Path) -> None:
    store = tmp_path / "storm.db"
    cut = ("--outage-at", 3, "--outage", 4)
    done = run("--speed", 40_000, *cut, "--kill-at", 2, 5, 8, "--json", "--store", store)

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [death["by"] for death in told["deaths"]] == ["--kill-at"] * 3
    assert "CUT for another" in done.stderr
    desk = told["desk"]
    assert (desk["told"], desk["waiting"], desk["outages"], desk["outages_left"]) == (961, 0, 1, [])
    assert desk["while_cut"] > 0
    assert (told["compared"]["equal"], told["compared"]["alerts"]) == (True, 961)
    journal = [json.loads(line) for line in Path(f"{store}.desk").read_text().splitlines()]
    ids = [line["id"] for line in journal if "id" in line]
    assert len(set(ids)) == 961


def test_an_outage_of_the_desk_opens_its_circuit_and_no_alert_dies_of_it(tmp_path: Path) -> None:
    done = run("--speed", 40_000, "--outage-at", 3, "--outage", 6, "--json", "--store", tmp_path / "storm.db")

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "circuit of the desk OPEN" in done.stderr
    assert re.search(r"circuit of the desk CLOSED \(opened once, \d+ s in all\)$", done.stderr, re.MULTILINE)
    circuit = told["desk"]["circuit"]
    assert (circuit["state"], circuit["openings"]) == ("CLOSED", 1)
    assert circuit["open_s"] > 3  # it is cut for 6 s, and opens within three
    assert circuit["refused"] >= 0  # the worker was asked, and has answered
    assert told["ledger"]["dead"] == told["ledger"]["retries"] == 0
    assert told["ledger"]["adds_up"]
    assert (told["desk"]["told"], told["desk"]["again"], told["compared"]["equal"]) == (961, 0, True)


def test_settings_say_what_an_alert_is_and_what_the_desk_takes(tmp_path: Path) -> None:
    (tmp_path / "genesis.toml").write_text("[app.alerts]\nlate_min = 60\n")
    settings = {"GENESIS_CONFIG": str(tmp_path / "genesis.toml"), "GENESIS_APP_ALERTS_DESK_PER_S": "80"}
    done = run("--full-speed", "--json", "--store", tmp_path / "storm.db", **settings)

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (told["desk"]["told"], told["compared"]["alerts"]) == (895 + 178, 895 + 178)
    assert told["desk"]["too_fast"] > 0
    assert told["desk"]["circuit"]["openings"] == 0  # a limit is no failure


def test_a_setting_that_does_not_fit_is_said_before_anything_starts(tmp_path: Path) -> None:
    done = run("--store", tmp_path / "storm.db", GENESIS_APP_ALERTS_LATE_MIN="soon")

    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert "GENESIS_APP_ALERTS_LATE_MIN is 'soon'" in done.stderr
    assert not (tmp_path / "storm.db").exists()


def test_the_desk_knows_ids_and_says_when_it_can_take_no_more(tmp_path: Path) -> None:
    def tell(*ids: int) -> tuple[int, str]:
        alerts = [{"id": f"alert-{id}", "number": id, "flight": "UA1", "kind": "late"} for id in ids]
        answer = httpx.post(f"{desk.url}/alerts", json=alerts)
        return answer.status_code, answer.headers.get("retry-after", "")

    with DeskProcess(tmp_path / "journal", per_second=0.001) as desk:
        assert tell(1, 2) == (200, "")
        status, after_s = tell(3)
        assert status == 429
        assert 1900 < int(after_s) < 2000  # it has taken two in advance, at one in a thousand seconds
    with DeskProcess(tmp_path / "journal", per_second=1000) as desk:
        assert tell(2, 3) == (200, "")  # it remembers
        assert desk.cut(60)
        assert not desk.cut(60)
        while (answer := tell(4))[0] == 200:  # it reads that it is cut
            pass
        assert answer == (503, "")
        told = desk.stop()

    assert [arrival.number for arrival in told.first][:3] == [1, 2, 3]
    assert (told.too_fast, told.while_cut) == (0, 1)  # of this run
    assert told.again >= 1


def test_a_desk_that_dies_ends_the_demo(tmp_path: Path) -> None:
    with DeskProcess(tmp_path / "journal", 100) as desk:
        os.kill(desk.pid, signal.SIGKILL)
        with pytest.raises(DeskError, match="the desk died"):
            look_for_ever(desk.look)


def look_for_ever(look: Callable[[], object]) -> NoReturn:
    while True:
        look()


# --- workers that do not work -----------------------------------------------------------------------------------------


def test_a_worker_that_cannot_start_ends_the_demo_with_what_it_said(tmp_path: Path) -> None:
    done = run("--full-speed", "--store", tmp_path / "missing" / "storm.db")

    assert done.returncode == 1
    assert "the worker does not start (exit code 3)" in done.stderr
    assert "its folder does not exist" in done.stderr
    assert done.stderr.count("Genesis") <= 1  # one start


def test_a_worker_that_dies_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_CRASH", "append:1")  # before its first commit, each time
    monkeypatch.setattr(worker_module, "WAITS_S", (0.0, 0.0, 0.0))
    store = tmp_path / "storm.db"

    with (
        Watch(store, 1) as watch,
        Worker(store, inf, 1, watch.commit) as worker,
        pytest.raises(WorkerError, match="3 times without a commit"),
    ):
        tend(worker, seconds=30)

    assert [fall.by for fall in worker.falls] == ["signal 9", "signal 9"]


def tend(worker: Worker, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        worker.tend()
        time.sleep(0.01)


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_each_difference_is_named() -> None:
    expected: Totals = {"airports": {"EWR": {"late": 2, "gust": 1.5}}, "boards": {"arrived": 3}, "rebookings": {}, "seats": 0}
    found: Totals = {
        "airports": {"EWR": {"late": 3, "gust": 1.5}, "JFK": {"late": 0}},
        "boards": {"arrived": 2, "delayed": 1},
        "rebookings": {"UA1": 150},
        "seats": 150,
    }

    assert differences(expected, expected) == []
    assert differences(expected, found) == [
        "airport EWR late: 3, expected 2",
        "boards arrived: 2, expected 3",
        "boards delayed: 1, expected 0",
        "seats rebooked of UA1: 150, expected 0",
        "seats rebooked: 150, expected 0",
    ]


def test_each_alert_that_is_not_told_once_is_named() -> None:
    told = [Arrival("a", 1, "UA1", "late"), Arrival("b", 3, "UA2", "late"), Arrival("c", 2, "UA2", "late")]

    assert list(untold({"UA1": "late"}, told[:1])) == []
    assert list(untold({"UA1": "late", "UA2": "late", "UA3": "cancelled"}, told)) == [
        "alert late of UA2: 2 times at the desk, expected 1",
        "alert cancelled of UA3: 0 times at the desk, expected 1",
        "alert of UA2: number 2 came to the desk behind 3",
    ]


# --- in a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of 80 columns and 24 rows in which the demo runs."""

    def __init__(self, files: Path, *arguments: str) -> None:
        self._files = files
        self._master, slave = os.openpty()
        self._open = True
        termios.tcsetwinsize(slave, (24, 80))
        self._leader = subprocess.Popen(
            ["sh", "-c", LEADER, str(files), *DEMO, *arguments],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str, seconds: float = 30.0, after: int = 0) -> None:
        """Read what is shown until `text` is part of it, behind the first `after` characters."""
        end = time.monotonic() + seconds
        while text not in self.shown[after:]:
            assert time.monotonic() < end, f"no {text!r} in {self.shown[-4000:]!r}"
            self.read()

    def read(self) -> bool:
        """Read what there is. Returns False when the demo is gone."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            self.shown += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # Linux says so when nobody has the other end open
            return False
        return True

    def url(self) -> str:
        """Where events come in over HTTP, when it is shown."""
        self.until("restarts 0, http://127.0.0.1:")
        self.until("\n", after=self.shown.rindex("http://127.0.0.1:"))
        return re.findall(r"http://127\.0\.0\.1:\d+", self.shown)[-1]

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self._master, key.encode())

    def signal(self, number: int) -> None:
        """Send a signal to the demo alone."""
        os.kill(int(self.note("pid")), number)

    def end(self) -> int:
        """Read to the end, and return the exit code of the demo."""
        while self.read():
            pass
        self._leader.wait(10)
        return int(self.note("code"))

    def note(self, name: str) -> str:
        """What the leader wrote down."""
        return Path(f"{self._files}.{name}").read_text().strip()

    def close(self) -> None:
        """Hang up."""
        if self._open:
            self._open = False
            os.close(self._master)
            self._leader.wait(30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path / "terminal", "--speed", "3000", "--store", str(tmp_path / "storm.db"))
    try:
        yield opened
    finally:
        opened.close()


def test_keys_kill_the_worker_and_cut_the_desk(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("adds up; accepted 9")
    assert "\x1b[?1049h" in terminal.shown  # its own screen
    terminal.press("k")
    terminal.until("by key k: healed in")
    terminal.press("o")
    terminal.until("CUT for another")
    terminal.press("?")
    terminal.until("goes on from there")
    terminal.press("q")

    assert terminal.end() == 0
    assert terminal.note("after") == terminal.note("before")
    assert "\x1b[?1049l" in terminal.shown
    assert "\x1b[?25h" in terminal.shown  # the cursor is back
    assert not re.search(r"\x1b\[(\d+;)*[349]\d", terminal.shown)  # NO_COLOR
    assert "not compared" in terminal.shown
    assert not is_owned(tmp_path / "storm.db")


def test_a_run_that_was_stopped_in_an_outage_goes_on_with_its_alerts(tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "storm.db"))
    with closing(Terminal(tmp_path / "terminal", "--full-speed", "--outage-at", "0.1", "--outage", "600", *store)) as terminal:
        terminal.until("alerts, which wait for the desk")
        terminal.press("q")
        code = terminal.end()
    assert code == 0
    assert "wait for the next run" in terminal.shown

    done = run("--full-speed", "--json", *store)

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (told["compared"]["equal"], told["desk"]["told"], told["desk"]["again"]) == (True, 961, 0)


def test_what_is_sent_by_hand_is_still_there_after_a_kill(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    require_tool("curl")
    page = (ROOT / "examples/flights/README.md").read_text()
    lines = re.search(r"^```sh\n(curl .*/events .*\n.*)\n(curl .*/ask/.*)\n```", page, re.MULTILINE)
    assert lines is not None
    with closing(Terminal(tmp_path / "terminal", "--speed", "40000", "--store", str(tmp_path / "storm.db"))) as terminal:
        url = terminal.url()
        event = curl(lines[1], url)
        terminal.press("k")
        terminal.until("by key k: healed in")
        answer = curl(lines[2], url)
        code = terminal.end()

    assert event == {"id": "1", "source": "/gates", "duplicate": False, "deliveries": 1}
    assert answer == "C120"
    assert code == 0
    assert "totals    all equal" in terminal.shown
    assert "by hand   1 event beside the feed" in terminal.shown


def test_a_feed_over_http_arrives_once_although_its_answers_are_lost(tmp_path: Path) -> None:
    done = run("--speed", 40_000, "--over-http", "--kill-at", 2, 4, 6, "--json", "--store", tmp_path / "storm.db")

    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [death["by"] for death in told["deaths"]] == ["--kill-at"] * 3
    assert (told["compared"]["equal"], told["by_hand"], told["ledger"]["accepted"]) == (True, 0, 9696)


def test_a_feed_that_is_refused_ends_the_demo(tmp_path: Path) -> None:
    poster = Poster(inf, 1)
    with (
        DeskProcess(tmp_path / "journal", 100) as desk,  # which takes no events
        poster.posting(lambda: desk.url),
        pytest.raises(PostError, match="answers the feed with 404"),
    ):
        look_for_ever(poster.check)


def test_a_feed_over_http_does_not_go_on_with_a_store(tmp_path: Path) -> None:
    (tmp_path / "storm.db").touch()
    done = run("--over-http", "--store", tmp_path / "storm.db")

    assert done.returncode == 2
    assert "--over-http begins at the beginning" in done.stderr


def curl(line: str, url: str) -> Any:
    """Run a line of the README until the worker, which may be opening its store, takes it."""
    command = line.replace("curl ", "curl -sSf --retry 30 --retry-all-errors --retry-delay 1 ", 1)
    command = command.replace("http://127.0.0.1:8080", url)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_worker_and_leaves_the_terminal_as_it_was(
    terminal: Terminal, tmp_path: Path, number: signal.Signals
) -> None:
    terminal.until("adds up; accepted 9")
    if number is signal.SIGINT:
        terminal.press("\x03")
    else:
        terminal.signal(number)

    assert terminal.end() == 128 + number
    assert terminal.note("after") == terminal.note("before")
    assert f"store     {tmp_path / 'storm.db'}" in terminal.shown
    assert not is_owned(tmp_path / "storm.db")


def test_a_terminal_that_is_closed_takes_the_worker_with_it(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("adds up; accepted 9")

    terminal.close()

    end = time.monotonic() + 20
    while is_owned(tmp_path / "storm.db"):
        assert time.monotonic() < end
        time.sleep(0.1)
