"""Processes that die: what killed them is found and put aside, everything else happens once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json, os, signal, sys
import msgspec
from genesis import App, Context, DeadLetter, Message, Retry, State, on

HOW, STORE = sys.argv[1:]

class Job(Message, type="job"):
    key: str = "a"
    n: int = 0

class Poison(Message, type="poison"):
    key: str = "p"

class Log(State):
    seen: list[int] = []

app = App("shop")

@app.component(key="key", state=Log)
class Till:
    @on(Job)
    async def serve(self, job: Job, log: Log, ctx: Context) -> None:
        if job.n % 5 == 0:
            await asyncio.sleep(0.01)
        log.seen.append(job.n)
        ctx.emit(Job(f"{job.key}-copy", 1000 + job.n)) if job.n < 1000 else None

    @on(Poison)
    async def die(self, poison: Poison, log: Log, ctx: Context) -> None:
        if HOW == "exit at once":
            os._exit(13)
        await asyncio.sleep(0.02)
        if HOW == "exit":
            os._exit(13)
        os.kill(os.getpid(), signal.SIGKILL)

async def main() -> None:
    async with app.running(store=STORE) as node:
        for n in range(60):
            await node.send(Job("abc"[n % 3], n), id=f"job-{n}")
            if n == 30:
                await node.send(Poison(), id="poison")
                await node.send(Job("p", 7), id="behind")
        async with asyncio.timeout(30):
            while node.status().ledger.waiting:
                await asyncio.sleep(0.005)
        pipeline = node._ready()
        await pipeline.last_commit()
        rows = await pipeline.engine.scan(0, "dead", "", 100)
        letters = [msgspec.msgpack.decode(body, type=DeadLetter) for _, body in rows]
        status = node.status()
        print(json.dumps({
            "states": {key: log.seen async for key, log in node.scan(Till)},
            "dead": [[d.delivery.event_id, d.reason, d.attempts] for d in letters],
            "imbalance": status.imbalance,
            "done": status.ledger.done,
            "accepted": status.ledger.accepted,
        }))

asyncio.run(main())
"""


def start(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@pytest.mark.parametrize("how", ["exit at once", "exit", "kill"])
def test_an_event_that_kills_the_process_ends_as_a_crashed_dead_letter_and_harms_no_other(how: str, tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    store = str(tmp_path / "shop.db")
    starts = 0
    while True:
        ended = start(program, how, store)
        starts += 1
        if ended.returncode == 0:
            break
        assert ended.returncode == (-signal.SIGKILL if how == "kill" else 13), ended.stderr
        assert starts < 7, "five attempts, at most one that nobody had noted before, and the start that finds out"
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["dead"] == [["poison", "crashed", 5]]
    for offset, key in enumerate("abc"):
        assert found["states"][key] == list(range(offset, 60, 3))
        assert sorted(found["states"][f"{key}-copy"]) == [1000 + n for n in range(offset, 60, 3)]
    assert found["states"]["p"] == [7], "the key of the poison goes on"
    assert found["imbalance"] == ""
    assert (found["accepted"], found["done"]) == (62, 60 + 60 + 2)


def test_the_same_seed_gives_the_same_world_in_another_process(tmp_path: Path) -> None:
    program = tmp_path / "story.py"
    program.write_text(
        "import asyncio, sys\nfrom tests.unit.runtime.test_simulation import story\nprint(asyncio.run(story(7)))\n"
    )
    told = set()
    for seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": seed}
        ended = subprocess.run(
            [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        told.add(ended.stdout)
    assert len(told) == 1
    assert len(told.pop()) > 1000
