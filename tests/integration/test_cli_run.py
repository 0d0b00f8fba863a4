"""`genesis run`, `send` and `status` with real processes, signals and kills."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genesis.core.ports import CrashPoint
from tests.unit.cli.support import DEADLINE_S, Shop, until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


# --- run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_in_order(shop: Shop, number: signal.Signals, code: int) -> None:
    running = shop.start()
    shop.send("tea")
    shop.settled()
    running.tell(number)
    assert running.ended() == code
    first, last = running.said.splitlines()
    assert first == f"Genesis 0.1.0  shop  store shop.db  pid {running.process.pid}"
    assert last == "shop stopped  accepted 1  done 2  expired 0  dead 0  waiting 0  the ledger adds up"
    status = shop.json("status")
    assert (status["state"], status["well"], status["owner"]["alive"]) == ("stopped", True, False)


def test_a_running_handler_is_given_back_when_the_drain_is_over(shop: Shop) -> None:
    running = shop.start("--drain", "0.05")
    assert shop.run("send", "shop.slow", '{"sku": "tea"}').returncode == 0
    until((shop.folder / "begun").exists, "the handler")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    assert "waiting 1  the ledger adds up" in running.said


def test_the_second_signal_stops_at_once(shop: Shop) -> None:
    running = shop.start()
    assert shop.run("send", "shop.slow", '{"sku": "tea"}').returncode == 0
    until((shop.folder / "begun").exists, "the handler")
    running.tell(signal.SIGTERM)

    def ended() -> bool:
        running.tell(signal.SIGTERM)  # the first one may be on its way still: two that wait become one
        return running.process.poll() is not None

    until(ended, "the end")
    assert running.ended() == 130
    assert running.said.endswith("genesis: stopped at once; what was running runs again at the next start\n")
    status = shop.run("status")
    assert status.returncode == 1
    assert status.stdout.startswith("DIED  shop")


def test_a_handler_that_hangs_in_a_thread_does_not_keep_the_process(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(
        "import time\nfrom pathlib import Path\nfrom genesis import App, Context, Message, on\n"
        'app = App("shop")\nclass A(Message, type="a"): ...\n'
        "@app.component\nclass C:\n    @on(A)\n    def a(self, m: A, ctx: Context) -> None:\n"
        '        Path("begun").touch(); time.sleep(600)\n'
    )
    running = shop.start("--drain", "0.05")
    assert shop.run("send", "a", "{}").returncode == 0
    until((shop.folder / "begun").exists, "the handler")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    assert "left behind, still running: genesis-handler_0" in running.said


def test_two_processes_on_one_store(shop: Shop) -> None:
    running = shop.start()
    second = shop.run("run", "shop:app", "--log", "pretty")
    assert second.returncode == 3
    host = socket.gethostname()
    owner = f"in use by process {running.process.pid} on {host}"
    assert second.stderr == f"genesis: shop.db is {owner}; stop it, or send through it\n"
    assert running.process.poll() is None


def test_logs_go_to_stderr_at_the_level_that_is_asked_for(shop: Shop) -> None:
    running = shop.start(GENESIS_LOG="debug")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    assert " DEBUG    asyncio: Using selector" in running.said


def test_where_a_program_reads_it_all_of_the_log_is_json(shop: Shop) -> None:
    running = shop.start("--log", "json")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    first, last = (json.loads(line) for line in running.said.splitlines())
    assert first["message"] == f"Genesis 0.1.0  shop  store shop.db  pid {running.process.pid}"
    assert last["message"].startswith("shop stopped  accepted 0")


def test_a_store_that_is_none_is_left_as_it_is(shop: Shop) -> None:
    shop.store.write_text("my letters")
    done = shop.run("run", "shop:app")
    assert done.returncode == 3
    assert "not a store of Genesis" in done.stderr
    assert done.stderr.count("\n") == 1
    assert shop.store.read_text() == "my letters"


def test_a_component_that_cannot_be_made_is_no_bug_of_genesis(shop: Shop) -> None:
    with (shop.folder / "shop.py").open("a") as source:
        source.write('    def __init__(self) -> None:\n        raise RuntimeError("no database")\n')
    done = shop.run("run", "shop:app")
    assert done.returncode == 1
    assert "shop.py:" in done.stderr
    assert "RuntimeError: no database" in done.stderr


# --- kill -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_kill_at_any_point_of_the_commit_path_loses_and_doubles_nothing(shop: Shop, point: CrashPoint) -> None:
    running = shop.start(GENESIS_CRASH=f"{point}:6")
    sent = 0
    while running.process.poll() is None:
        sent += 1
        shop.run("send", "shop.placed", '{"sku": "tea"}', "--id", str(sent), "--timeout", "1")
        assert sent < 20
    assert running.ended() == -signal.SIGKILL
    died = shop.run("status")
    assert (died.returncode, died.stdout.split()[0]) == (1, "DIED")
    again = shop.start()
    receipts = [shop.json("send", "shop.placed", '{"sku": "tea"}', "--id", str(id)) for id in range(1, sent + 1)]
    assert {receipt["id"] for receipt in receipts} == {str(id) for id in range(1, sent + 1)}
    status = shop.settled()
    assert status["ledger"]["accepted"] == sent
    assert status["ledger"]["done"] == 2 * sent
    assert status["well"]
    assert shop.json("state", "get", "inventory", "tea")["state"] == {"left": 100 - sent}
    again.tell(signal.SIGTERM)
    assert again.ended() == 0


# --- send -----------------------------------------------------------------------------------------------------------


def test_a_receipt_is_printed_and_a_second_one_is_a_duplicate(shop: Shop) -> None:
    shop.start()
    event = ("send", "shop.placed", '{"sku": "tea", "qty": 3}', "--id", "1", "--source", "till", "--priority", "Low")
    receipt = shop.json(*event)
    assert receipt == {"schema": 1, "id": "1", "source": "till", "duplicate": False, "deliveries": 2}
    again = shop.run(*event)
    assert again.stdout == "duplicate  shop.placed  id 1: it had been accepted before\n"
    assert again.returncode == 0
    assert shop.settled()["ledger"]["duplicate"] == 1
    state = shop.json("state", "get", "inventory", "tea")
    assert state == {"schema": 1, "component": "inventory", "key": "tea", "version": 1, "state": {"left": 97}}


def test_lines_are_sent_each_and_the_wrong_ones_named(shop: Shop) -> None:
    shop.start()
    lines = '{"sku": "a"}\n\nnot json\n{"sku": 3}\n[]\n{"sku": "b"}\n\xff\n'
    done = shop.run("send", "shop.placed", "-", "--json", stdin=lines)
    assert done.returncode == 1
    assert [json.loads(line)["deliveries"] for line in done.stdout.splitlines()] == [2, 2]
    for part in ("line 3: this is not JSON", "line 4: Placed (shop.placed): Expected `str`", "line 5: the fields", "line 7: "):
        assert part in done.stderr
    assert done.stderr.endswith("genesis: 4 of 6 events were not accepted\n")
    assert shop.settled()["ledger"]["accepted"] == 2


def test_many_lines(shop: Shop) -> None:
    shop.start()
    done = shop.run("send", "shop.placed", stdin="".join(f'{{"sku": "{n}"}}\n' for n in range(300)))
    assert (done.returncode, done.stdout.count("accepted  shop.placed")) == (0, 300)
    assert shop.settled()["ledger"]["done"] == 600
    store = shop.run("state", "list", "inventory", "--limit", "1000")
    assert store.stdout.count('{"left":99}') == 300


def test_a_line_is_sent_when_it_comes(shop: Shop) -> None:
    shop.start()
    with subprocess.Popen(
        [sys.executable, "-m", "genesis", "send", "shop.placed", "--json"],
        cwd=shop.folder,
        env=shop.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b'{"sku": "tea"}\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["deliveries"] == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130


def test_events_are_sent_although_nobody_reads_the_receipts(shop: Shop) -> None:
    shop.start()
    with subprocess.Popen(
        [sys.executable, "-m", "genesis", "send", "shop.placed"],
        cwd=shop.folder,
        env=shop.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(b'{"sku": "tea"}\n' * 200, DEADLINE_S)
    assert (process.returncode, said) == (0, b"")
    assert shop.settled()["ledger"]["accepted"] == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop.placd", "{}"], "genesis: nobody handles 'shop.placd'; did you mean 'shop.placed'?\n"),
        (["shop.placed", '{"skuu": "tea"}'], "missing required field `sku`"),
        (["shop.placed", '{"sku": "tea", "qty": "x"}'], "Expected `int`, got `str` - at `$.qty`"),
        (["shop.placed", '{"sku": "' + "x" * 600 + '"}'], "genesis: "),
    ],
)
def test_what_is_refused_exits_1(shop: Shop, arguments: list[str], said: str) -> None:
    shop.start()
    done = shop.run("send", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nobody_runs(shop: Shop) -> None:
    shop.start().tell(signal.SIGKILL)
    done = shop.run("send", "shop.placed", '{"sku": "tea"}')
    assert done.returncode == 4
    assert done.stderr.startswith("genesis: nobody runs shop.db: start it with `genesis run MODULE:APP --store shop.db`")


def test_nobody_answers(shop: Shop) -> None:
    running = shop.start()
    running.tell(signal.SIGSTOP)  # also while it commits: then the store is locked
    try:
        done = shop.run("send", "shop.placed", '{"sku": "tea"}', "--timeout", "0.2", "--id", "7")
        assert done.returncode == 4
        assert f"process {running.process.pid} did not answer: " in done.stderr
        assert "--id 7" in done.stderr
    finally:
        running.tell(signal.SIGCONT)
    shop.send("tea")
    assert shop.settled()["ledger"]["offered"] == 1


def test_a_store_that_nobody_runs_is_opened_with_its_application(shop: Shop) -> None:
    receipt = shop.json("send", "shop.placed", '{"sku": "tea"}', "--app", "shop:app")
    assert receipt["deliveries"] == 2
    assert shop.store.exists()
    done = shop.run("send", "shop.placed", "--app", "shop:app", stdin='{"sku": "tea"}\n' * 5)
    assert done.stdout.count("accepted") == 5
    status = shop.json("status")
    assert (status["state"], status["ledger"]["accepted"]) == ("stopped", 6)
    shop.start()
    shop.settled()
    assert shop.json("state", "get", "inventory", "tea")["state"] == {"left": 94}
    assert shop.json("send", "shop.placed", '{"sku": "tea"}', "--app", "shop:app")["deliveries"] == 2  # asks that process


def test_opening_a_store_to_send_starts_no_source(shop: Shop) -> None:
    with (shop.folder / "shop.py").open("a") as source:
        source.write('@app.source\nasync def feed(position: int | None):\n    yield 0, Placed(sku="fed")\n')
    assert shop.run("send", "shop.placed", '{"sku": "tea"}', "--app", "shop:app").returncode == 0
    status = shop.json("status")
    assert (status["ledger"]["accepted"], status["sources"]) == (1, {})


# --- status ---------------------------------------------------------------------------------------------------------


def test_status_tells_everything_once(shop: Shop) -> None:
    shop.start()
    for sku in ("tea", "bad", "boom", "park", "park", "down"):
        shop.send(sku)
    status = until(lambda: found if (found := shop.settled())["paused_s"] else None, "the pause")
    ledger = status["ledger"]
    assert status["schema"] == 1
    assert (ledger["accepted"], ledger["born"], ledger["dead"]) == (6, 12, 2)
    assert ledger["born"] == ledger["done"] + ledger["expired"] + ledger["dead"] + ledger["waiting"]
    assert ledger["adds_up"]
    assert ledger["rows_counted"]
    assert status["pending"] == {"total": 3, "reasons": {"held": 1, "parked": 1, "unavailable": 1}}
    assert status["dead_letters"] == 2
    assert set(status["waiting"]) == {"CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"}
    assert list(status["paused_s"]) == ["inventory:shop.placed"]
    assert set(status["latency_s"]["HIGH"]) == {"p50", "p99", "max"}
    screen = shop.run("status")
    assert screen.returncode == 0
    assert screen.stderr == ""
    assert screen.stdout.splitlines()[0].startswith("RUNNING  shop  shop.db  pid ")
    assert "\x1b" not in screen.stdout
    assert "next     genesis dlq list" in screen.stdout


def test_status_of_what_is_no_store(shop: Shop) -> None:
    (shop.folder / "cut.db").write_bytes(b"SQLite format 3\0".ljust(68, b"\0") + b"GENS" + bytes(28))
    for store in ("nope.db", "shop.py", ".", "cut.db", "nowhere/x.db"):
        done = shop.run("status", "--store", store)
        assert (done.returncode, done.stdout) == (3, ""), store
        assert done.stderr.startswith(f"genesis: {store}: "), store
        assert done.stderr.count("\n") == 1, store


def test_what_is_still_opening_is_interrupted_by_a_stop(shop: Shop) -> None:
    module = shop.folder / "shop.py"
    module.write_text(f"""{module.read_text()}

@app.resource
async def far() -> AsyncIterator[Path]:
    Path("begun").touch()
    await asyncio.sleep(3600)
    yield Path()
""")
    module.write_text("from collections.abc import AsyncIterator\n" + module.read_text())
    process = subprocess.Popen(
        [sys.executable, "-m", "genesis", "run", "shop:app", "--log", "pretty"],
        cwd=shop.folder,
        env=shop.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until((shop.folder / "begun").exists, "the opening")
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read() if process.stderr else ""
    assert (process.returncode, said) == (0, "shop stopped before it was open\n")


def test_a_resource_that_cannot_be_opened_is_told_in_a_line(shop: Shop) -> None:
    module = shop.folder / "shop.py"
    module.write_text(f"""from collections.abc import AsyncIterator
{module.read_text()}

@app.resource
async def far() -> AsyncIterator[Path]:
    raise ConnectionRefusedError("nobody listens")
    yield Path()
""")
    done = shop.run("run", "shop:app", "--log", "pretty")
    assert done.returncode == 1
    assert re.fullmatch(r"genesis: resource far \(.*shop.py:\d+\) could not be opened: .*: nobody listens\n", done.stderr)
