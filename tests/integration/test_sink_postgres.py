"""The recipe of examples/postgres with a real PostgreSQL: exactly once, though workers are killed and the server goes away."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import do_without
from tests.unit.cli.support import DEADLINE_S, Running, Shop, until

ROOT = Path(__file__).parents[2]
EVENT = {"ce-specversion": "1.0", "ce-source": "/plant", "ce-type": "plant.reading", "content-type": "application/json"}
KILLS = 5


class Server:
    """A PostgreSQL of its own, reached through a socket in its folder, and by nobody else."""

    def __init__(self) -> None:
        self._bin = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
        if self._bin is None or not (self._bin / "initdb").exists():
            do_without("postgresql", "PostgreSQL is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the name of a socket has some hundred characters
        self._other: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            self._other = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self._process: subprocess.Popen[bytes] | None = None
        command = [self._bin / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "plant", "-E", "UTF8"]
        subprocess.run(command, **self._other, cwd=self.folder, check=True, capture_output=True, timeout=DEADLINE_S)

    @property
    def conninfo(self) -> str:
        return f"host={self.folder} user=plant dbname=postgres"

    def start(self) -> None:
        assert self._bin is not None
        command = [self._bin / "postgres", "-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses="]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, **self._other, cwd=self.folder, stdout=log, stderr=log)
        until(self._answers, "PostgreSQL")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # at once: those who are connected are sent away
            self._process.wait(DEADLINE_S)
            self._process = None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo) as db:
            return db.execute(query.encode()).fetchall()

    def count(self) -> int:
        (found,) = self.rows("SELECT to_regclass('alert') IS NOT NULL")
        return int(self.rows("SELECT count(*) FROM alert")[0][0]) if found[0] else 0


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)


class Plant:
    """The worker of the recipe, and stations that send until each reading is accepted, whichever worker is there."""

    def __init__(self, shop: Shop, server: Server) -> None:
        self._shop, self._server = shop, server
        (shop.folder / "shop.py").write_text("from examples.postgres.app import app as app\n")
        self.worker = self.start()
        self.accepted: list[str] = []
        self._over = threading.Event()
        self._senders = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]

    def start(self) -> Running:
        path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        variables = {"PYTHONPATH": path, "GENESIS_APP_CONNINFO": self._server.conninfo}
        self.worker = self._shop.start("--http", "0", "--store", str(self._shop.store), **variables)
        self._url = re.findall(r"http (http://\S+)", self.worker.said)[-1]
        return self.worker

    def __enter__(self) -> Plant:
        for sender in self._senders:
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        for sender in self._senders:
            sender.join(DEADLINE_S)

    def _send(self, first: int) -> None:
        with httpx.Client() as client:
            number = first
            while not self._over.is_set():
                try:
                    headers = {**EVENT, "ce-id": f"r{number}"}
                    reply = client.post(
                        f"{self._url}/events", headers=headers, json={"station": f"s{first}", "celsius": 90.5 + number}
                    )
                except httpx.TransportError:
                    self._over.wait(0.02)
                    continue
                if reply.status_code == 202:
                    self.accepted.append(f"r{number}")
                    number += len(self._senders)

    def status(self) -> Any:
        return self._shop.json("status")


@pytest.fixture
def plant(tmp_path: Path, server: Server) -> Iterator[Plant]:
    with Shop(tmp_path) as shop, Plant(shop, server) as found:
        yield found


def all_is_there_once(plant: Plant, server: Server) -> None:
    """Every reading that was accepted has one row, the rows came in the order of their numbers, and each counted once."""
    plant.stop()
    until(lambda: server.count() >= len(plant.accepted) and not plant.status()["ledger"]["waiting"], "all rows")
    rows = server.rows("SELECT reading, number, xmin::text::bigint FROM alert ORDER BY number")
    assert sorted(reading for reading, _, _ in rows) == sorted(plant.accepted)
    assert len({number for _, number, _ in rows}) == len(rows)
    transactions = [transaction for _, _, transaction in rows]
    assert transactions == sorted(transactions), "rows came in the order of their numbers"
    assert sum(count for _, count in server.rows("SELECT name, alerts FROM station")) == len(rows)
    status = plant.status()
    assert (status["well"], status["dead_letters"], status["ledger"]["dead"]) == (True, 0, 0)


def test_each_alert_is_one_row_though_the_worker_is_killed_again_and_again(plant: Plant, server: Server) -> None:
    rng, seen = Random(), 0
    for _ in range(KILLS):
        more = seen + rng.randint(1, 200)
        until(lambda more=more: server.count() > more, "more rows")
        plant.worker.tell(signal.SIGKILL)
        plant.worker.ended()
        seen = server.count()
        plant.start()
    until(lambda: server.count() > seen + 50, "the last rows")
    all_is_there_once(plant, server)


def test_nothing_is_lost_or_dies_while_the_server_is_away(plant: Plant, server: Server) -> None:
    until(lambda: server.count() > 50, "the first rows")
    server.stop()
    begin = len(plant.accepted)
    until(lambda: len(plant.accepted) > begin + 200, "readings are accepted all the same")
    until(lambda: plant.status()["sinks"]["to-postgres"]["state"] == "failed", "the sink says that it fails")
    assert plant.status()["sinks"]["to-postgres"]["waiting"] > 0
    server.start()
    all_is_there_once(plant, server)
