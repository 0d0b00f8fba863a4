"""What the tests of the command line share: a shop in a folder, and real processes that run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genesis

SOURCE = str(Path(genesis.__file__).parents[1])
DEADLINE_S = 30.0
SHOP = """
import asyncio
from pathlib import Path

from genesis import App, Context, Message, Priority, Reject, Retry, State, UnavailableError, on

app = App("shop", version="1.2")


class Placed(Message, type="shop.placed", priority=Priority.HIGH):
    sku: str
    qty: int = 1


class Slow(Message, type="shop.slow"):
    sku: str


class Stock(State, version=1):
    left: int = 100


@app.component(key="sku", state=Stock)
class Inventory:
    @on(Placed, retry=Retry(attempts=1))
    async def placed(self, order: Placed, stock: Stock, ctx: Context) -> None:
        if order.sku == "bad":
            raise Reject("no such sku")
        if order.sku == "boom" and not Path("mended").exists():
            raise ValueError("boom \\x1b[31m")
        if order.sku == "down":
            raise UnavailableError("warehouse", 60.0)
        stock.left -= order.qty

    @on(Slow)
    async def slow(self, order: Slow, stock: Stock, ctx: Context) -> None:
        Path("begun").touch()
        await asyncio.sleep(60)


@app.component(key="sku", state=Stock, order="park")
class Ledger:
    @on(Placed, retry=Retry(attempts=1))
    async def placed(self, order: Placed, stock: Stock, ctx: Context) -> None:
        if order.sku == "park" and not Path("mended").exists():
            raise ValueError("parked")
        stock.left -= order.qty
"""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.01)
    return found


class Running:
    """A process of `genesis run` that has opened its store."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process, self._said = process, said
        until(lambda: "pid" in self.said or process.poll() is not None, "the start")
        assert process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self._said.read_text()

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(DEADLINE_S)


class Shop:
    """A folder with a shop in it, and the command line there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "shop.db"
        self._processes: list[subprocess.Popen[bytes]] = []
        (folder / "shop.py").write_text(SHOP)

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE_S)

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GENESIS_")}
        return {**kept, "PYTHONPATH": SOURCE, **variables}

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "genesis", *arguments],
            cwd=self.folder,
            env=self.environment(**variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def json(self, *arguments: str, **more: str) -> Any:
        done = self.run(*arguments, "--json", **more)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str, **variables: str) -> Running:
        said = self.folder / f"said-{len(self._processes)}.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "genesis", "run", "shop:app", "--log", "pretty", *arguments],
                cwd=self.folder,
                env=self.environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._processes.append(process)
        return Running(process, said)

    def send(self, sku: str, *arguments: str) -> None:
        done = self.run("send", "shop.placed", json.dumps({"sku": sku}), *arguments)
        assert done.returncode == 0, done.stderr

    def settled(self) -> Any:
        """The status once nothing is left in the lanes."""

        def look() -> Any:
            found = self.json("status")
            return found if not found["ledger"]["in_lanes"] else None

        return until(look, "empty lanes")
