"""`genesis run --http` as a process of its own, and what of it can be seen from outside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.unit.cli.support import Running, Shop, until

MORE = """

import gc

from genesis import Request


class Level(Request[int], type="shop.level"):
    sku: str


class Tasks(Request[int], type="shop.tasks"):
    pass


@app.component(key="sku", state=Stock)
class Shelf:
    @on(Level, read_only=True)
    async def level(self, level: Level, stock: Stock, ctx: Context) -> int:
        return stock.left


@app.component
class Watch:
    @on(Tasks, read_only=True)
    async def tasks(self, ask: Tasks, ctx: Context) -> int:
        gc.collect()
        return len(asyncio.all_tasks())
"""


class Target:
    """A shop behind its door."""

    def __init__(self, shop: Shop) -> None:
        module = shop.folder / "shop.py"
        module.write_text(module.read_text() + MORE)
        self.shop = shop
        self.running: Running = shop.start("--http", "0")
        self.url: str = re.findall(r"http (http://\S+)", self.running.said)[-1]
        self._proc = Path(f"/proc/{self.running.process.pid}")

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def files(self) -> int:
        """Files and sockets that it has open."""
        return len(list((self._proc / "fd").iterdir()))

    def resident_bytes(self) -> int:
        """Memory that it holds."""
        return int(re.findall(r"VmRSS:\s+(\d+) kB", (self._proc / "status").read_text())[0]) << 10

    def tasks(self) -> int:
        """Tasks of its event loop while it answers one question."""
        with httpx.Client() as client:
            return int(client.post(f"{self.url}/ask/shop.tasks", json={}).json())

    def accepts(self, id: str) -> bool:
        """Whether a good event is answered with 202."""
        headers = {"ce-specversion": "1.0", "ce-id": id, "ce-source": "/good", "ce-type": "shop.placed"}
        with httpx.Client() as client:
            return client.post(f"{self.url}/events", headers=headers, json={"sku": "tea"}).status_code == 202

    def metric(self, name: str) -> float:
        with httpx.Client() as client:
            found = re.findall(rf"^{name} (\S+)$", client.get(f"{self.url}/metrics").text, re.MULTILINE)
        return float(found[0])

    def ledger(self) -> Any:
        """The ledger of a service that is well, once nothing waits in the lanes."""
        status = self.shop.settled()
        assert status["well"], status
        return status["ledger"]

    def calm(self, files: int, tasks: int) -> None:
        """Wait until no more is open, and no more tasks are there, than these."""
        until(lambda: self.files() <= files and self.tasks() <= tasks, f"no more than {files} files and {tasks} tasks")

    def complaints(self) -> list[str]:
        """What it logged that nobody wants to read."""
        return [line for line in self.running.said.splitlines() if re.search(r"Traceback|ERROR|CRITICAL|Exception", line)]
