"""Load that nobody here wrote: wrk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.door.target import Target
from tests.unit.cli.support import DEADLINE_S, Shop, until

CONNECTIONS, THREADS = 64, 2
SCRIPT = Path(__file__).with_name("wrk.lua")


def load(wrk: str, url: str, *arguments: str) -> dict[str, int]:
    """Two seconds of events. Returns what wrk counted."""
    shape = [f"--threads={THREADS}", f"--connections={CONNECTIONS}", "--duration=2s"]
    command = [wrk, *shape, f"--script={SCRIPT}", f"{url}/events", "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_answer_that_wrk_counts_is_an_accepted_event(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    wrk = require_tool("wrk")
    with Shop(tmp_path) as shop:
        target = Target(shop)
        first = load(wrk, target.url)
        assert (first["errors"], first["duplicates"]) == (0, 0)
        ledger = target.ledger()
        assert first["answers"] <= ledger["accepted"] <= first["answers"] + CONNECTIONS, "some were cut off before their answer"
        known = first["made_by_each"] // 2  # the last ones may have been cut off
        again = load(wrk, target.url, str(known))
        assert (again["errors"], again["duplicates"]) == (0, again["answers"])
        assert again["answers"] > 0
        # Counted at once, and stored once a second: a duplicate alone is worth no commit.
        until(lambda: target.ledger()["duplicate"] >= again["answers"], "all duplicates are counted")
        assert target.ledger()["accepted"] == ledger["accepted"]
        assert target.complaints() == []
