"""`genesis status --why`: what stands in the way, read while the owner runs and after it died."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.support import Shop, until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


def why(shop: Shop, what: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = shop.json("status", "--why")["why"]
    return next((obstacle for obstacle in found if obstacle["what"] == what), None)


def test_what_waits_for_people_and_for_others_is_named_with_what_to_do(shop: Shop) -> None:
    running = shop.start()
    for sku in ("bad", "park", "down"):
        shop.send(sku)
    paused = until(lambda: why(shop, "paused"), "a paused handler")
    assert paused["text"].startswith("inventory:shop.placed is paused since ")
    assert "because what it needs is down; it is tried again at " in paused["text"]
    assert paused["since"] < paused["until"]
    parked = why(shop, "parked")
    assert parked is not None
    assert parked["text"] == "parked, and their keys with them: ledger/park"
    assert shop.run("dlq", "show", parked["next"].split()[3]).returncode == 0
    dead = why(shop, "dead")
    assert dead is not None
    assert dead["text"].startswith("dead letters: 1 rejected; the newest of ")
    assert dead["next"] == "genesis dlq list --store shop.db"
    assert why(shop, "down") is None
    running.process.kill()
    running.ended()
    down = why(shop, "down")
    assert down is not None
    assert down["text"].startswith("the process died (last write ")
    assert down["next"] == "start it: genesis run MODULE:APP --store shop.db"
    assert why(shop, "paused") is None
    shown = shop.run("status", "--why")
    assert shown.returncode == 1
    assert shown.stdout.startswith("DIED  shop")
    assert "\n- parked, and their keys with them: ledger/park\n  -> genesis dlq show " in shown.stdout


def test_an_intake_that_is_full_says_why(shop: Shop) -> None:
    shop.start(GENESIS_DISK_RESERVE_BYTES=str(1 << 60))
    full = until(lambda: why(shop, "intake"), "a full intake")
    assert "MiB are left on the disk, the reserve is " in full["text"]
    assert full["next"] == "make room on the disk"


def test_nothing_stands_in_the_way_of_one_that_runs(shop: Shop) -> None:
    shop.start()
    shop.send("tea")
    shop.settled()
    assert shop.run("status", "--why").stdout.splitlines()[1:] == ["nothing stands in the way"]
