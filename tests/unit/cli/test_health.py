import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genesis.cli import status
from genesis.cli.health import Counted, Health, for_programs
from genesis.cli.main import main
from genesis.core.event import LANES
from genesis.core.ports import Head, Ledger


def head(*, clean: bool = True, **ledger: int) -> Head:
    found = Head.fresh()
    found.clean = clean
    found.commit_id = 1
    found.ledger = Ledger(**ledger)
    return found


def health(**given: Any) -> Health:
    fields: dict[str, Any] = {
        "path": Path("shop.db"),
        "owner": (7, "vm", True),
        "head": head(),
        "written_at": 1_800_000_000.0,
        "counted": Counted([0] * LANES, 0),
        "reasons": {},
        "dead": 0,
        "sources": {},
        "told": {"app": "shop", "pid": 7},
    }
    return Health(**{**fields, **given})


@pytest.mark.parametrize(
    ("owner", "stored", "state", "well"),
    [
        ((7, "vm", True), head(clean=False), "running", True),
        ((7, "vm", False), head(clean=True), "stopped", True),
        ((7, "vm", False), head(clean=False), "died", False),
        (None, None, "new", True),
    ],
)
def test_states(owner: tuple[int, str, bool] | None, stored: Head | None, state: str, well: bool) -> None:
    found = health(owner=owner, head=stored)
    assert (found.state, found.well) == (state, well)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"head": head(offered=2, accepted=1)}, "offered 2 != accepted + refused + duplicate 1"),
        ({"head": head(external=2, done=1)}, "born 2 != done + expired + dead + waiting 1"),
        ({"counted": Counted([1] + [0] * 9, 0)}, "rows in lanes"),
        ({"counted": Counted([0] * LANES, 3)}, "pending rows 3 != in_pending 0"),
        ({"counted": Counted([0] * LANES, 0, 2)}, "outbox rows 2 != in_outbox 0"),
    ],
)
def test_what_does_not_add_up_is_named(given: dict[str, Any], wrong: str) -> None:
    found = health(**given)
    assert wrong in found.imbalance
    assert not found.well
    assert "DOES NOT ADD UP" in "\n".join(status._screen(found, for_programs(found)))


def test_rows_that_could_not_be_counted_prove_nothing() -> None:
    assert health(counted=None).well
    assert health(counted=Counted([0] * LANES, None), head=head(external=5, in_pending=5)).well
    assert not for_programs(health(counted=None))["ledger"]["rows_counted"]


def test_what_an_earlier_process_told_is_not_shown_as_of_now() -> None:
    told = {"app": "shop", "pid": 7, "paused": {"a:b": 3.0}, "latency_s": {"HIGH": {"p50": 0.1, "p99": 0.2, "max": 1.0}}}
    now, before = for_programs(health(told=told)), for_programs(health(told={**told, "pid": 6}))
    assert now["paused_s"] == {"a:b": 3.0}
    assert now["latency_s"] == told["latency_s"]
    assert before["paused_s"] == {}
    assert before["latency_s"] is None


def test_the_screen_is_one_screen() -> None:
    stored = head(offered=5, accepted=3, refused=1, duplicate=1, external=3, done=1, in_lanes=1, in_pending=1, retries=4)
    stored.waiting_by_lane[3] = 1
    found = health(
        head=stored,
        counted=Counted(stored.waiting_by_lane, 1),
        reasons={"parked": 1},
        dead=2,
        sources={"feed": 41},
        told={
            "app": "shop",
            "pid": 7,
            "paused": {"inventory:shop.placed": 61.0},
            "stuck": 2,
            "sources": {"feed": {"state": "failed", "error": "OSError: gone\x1b[2J"}},
            "latency_s": {"HIGH": {"p50": 0.002, "p99": 1.5, "max": 2.0}},
        },
    )
    lines = status._screen(found, for_programs(found))
    text = "\n".join(lines)
    assert len(lines) <= 24
    for part in (
        "RUNNING  shop  shop.db  pid 7 on vm",
        "ledger   adds up (rows counted)",
        "offered 5 = accepted 3 + refused 1 + duplicate 1",
        "done 1 + expired 0 + dead 0 + waiting 2 (lanes 1, pending 1, outbox 0); retries 4",
        "waiting  CRITICAL 0   HIGH 1   NORMAL 0",
        "pending  parked 1",
        "dead     2 letters kept",
        "source   feed failed  at 41  OSError: gone\\x1b[2J",
        "paused   inventory:shop.placed: tried again in 1 min 1 s",
        "stuck    2 handlers",
        "p50/p99  HIGH 2 ms / 1.5 s",
        "next     genesis dlq list",
    ):
        assert part in text


def test_doctor_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENESIS_STORE", raising=False)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["schema"], found["well"]) == (0, 1, True)
    assert [check["name"] for check in found["checks"]] == ["python", "libraries", "settings", "store", "disk", "sync"]


def test_doctor_says_what_to_do_next(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("my letters")
    result = CliRunner(env={"GENESIS_SLOTS": "0"}).invoke(main, ["doctor", "--store", str(tmp_path / "text.db")])
    assert result.exit_code == 1
    wrong = [line for line in result.stdout.splitlines() if line.startswith("[!!]")]
    assert [line.split()[1] for line in wrong] == ["settings", "store"]
    assert result.stdout.count(" -> ") == 2
    assert (tmp_path / "text.db").read_text() == "my letters"
