"""The FastAPI example under a real uvicorn, with kills and signals, and in process without a server."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.fastapi.api import api, lifespan
from tests.unit.cli.support import DEADLINE_S, Shop, until

ROOT = Path(__file__).parents[2]
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/till", "ce-type": "shop.order.placed"}


class Service(Shop):
    """A folder with the store of the service, and uvicorn there."""

    def serve(self) -> tuple[subprocess.Popen[bytes], httpx.Client]:
        """A process that answers, and a client of it."""
        said = self.folder / f"said-{len(self._processes)}.txt"
        command = [sys.executable, "-m", "uvicorn", "examples.fastapi.api:api", "--app-dir", str(ROOT), "--port", "0"]
        with said.open("wb") as stderr:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment(), stderr=stderr, stdout=stderr)
        self._processes.append(process)
        running = re.compile(r"running on (http://\S+)")
        until(lambda: running.search(said.read_text()) or process.poll() is not None, "the start")
        found = running.search(said.read_text())
        assert found is not None, said.read_text()
        return process, httpx.Client(base_url=found[1])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as found:
        yield found


def place(client: httpx.Client, key: str, qty: int = 1) -> httpx.Response:
    return client.post("/orders", json={"sku": "tea", "qty": qty}, headers={"Idempotency-Key": key})


def test_every_endpoint(service: Service) -> None:
    _, client = service.serve()
    with client:
        sent = place(client, "order-17", 3)
        assert (sent.status_code, sent.json()) == (202, {"id": "order-17", "duplicate": False})
        assert place(client, "order-17", 3).json() == {"id": "order-17", "duplicate": True}
        now = client.post("/orders/now", json={"sku": "tea"}).json()
        assert (now["duplicate"], now["left"]) == (False, 96)
        reserve = {"url": "/reservations", "json": {"sku": "tea", "qty": 6}, "headers": {"Idempotency-Key": "r-1"}}
        assert [client.post(**reserve).json() for _ in range(2)] == [{"left": 90}, {"left": 90}]
        assert client.get("/stock/tea").json() == {"left": 90, "backorders": 0}
        assert place(client, "r-1").json() == {"id": "r-1", "duplicate": False}, "an order is no reservation"
        event = client.post("/genesis/events", headers=EVENT, json={"sku": "mint", "qty": 200})
        assert (event.status_code, event.json()["id"]) == (202, "1")
        until(lambda: client.get("/stock/mint").json() == {"left": 0, "backorders": 100}, "the event of the door")
        assert "genesis_events_accepted_total 6.0" in client.get("/genesis/metrics").text
        assert client.get("/genesis/readyz").status_code == 200


def test_what_was_committed_is_there_after_a_kill_and_the_same_order_is_a_duplicate(service: Service) -> None:
    process, client = service.serve()
    with client:
        assert place(client, "order-17", 3).status_code == 202
        assert client.post("/orders/now", json={"sku": "tea"}).json()["left"] == 96
    process.kill()
    process.wait(DEADLINE_S)
    _, client = service.serve()
    with client:
        assert client.get("/stock/tea").json()["left"] == 96
        assert place(client, "order-17", 3).json() == {"id": "order-17", "duplicate": True}
        assert client.post("/orders/now", json={"sku": "tea"}).json()["left"] == 95


def test_sigterm_answers_what_is_under_way_and_closes_in_order(service: Service) -> None:
    process, client = service.serve()
    accepted: list[str] = []

    def send(first: int) -> None:
        with httpx.Client(base_url=client.base_url) as own, suppress(httpx.TransportError):
            for n in range(first, 1_000_000, 4):
                if place(own, str(n)).status_code == 202:
                    accepted.append(str(n))

    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    until(lambda: len(accepted) > 100, "traffic")
    process.terminate()
    assert process.wait(DEADLINE_S) in (0, -signal.SIGTERM), "uvicorn passes the signal on when all is closed"
    for sender in senders:
        sender.join(DEADLINE_S)
    status = service.json("status")
    assert status["state"] == "stopped"
    assert status["ledger"]["adds_up"]
    assert status["ledger"]["accepted"] == status["ledger"]["done"] == len(accepted)


def test_a_second_process_on_the_store_is_told_whose_it_is(service: Service) -> None:
    process, client = service.serve()
    client.close()
    with pytest.raises(AssertionError, match=f"StoreInUseError: shop.db is in use by process {process.pid} on"):
        service.serve()


# --- in process ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENESIS_STORE", "memory:")
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)  # the service sets it for its process, which is ours here


def called(*requests: tuple[str, Any]) -> list[httpx.Response]:
    """What the API answers to POSTs, without a server."""

    async def call() -> list[httpx.Response]:
        async with lifespan(api), httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://shop") as client:
            return [await client.post(path, json=body) for path, body in requests]

    return asyncio.run(call())


def problem(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["detail"]
    return reply.status_code, str(reply.json()["type"]).removeprefix("/problems/")


@pytest.mark.usefixtures("in_memory")
def test_each_test_has_a_shop_of_its_own() -> None:
    for _ in range(2):
        now, door = called(("/orders/now", {"sku": "tea", "qty": 3}), ("/genesis/ask/shop.stock.left", {"sku": "tea"}))
        assert (now.json()["left"], door.json()) == (97, 97)


@pytest.mark.usefixtures("in_memory")
def test_errors_are_problems_with_their_kind() -> None:
    invalid, rejected, malformed = called(
        ("/orders", {"sku": "tea", "qty": 0}), ("/reservations", {"sku": "tea", "qty": 101}), ("/orders", {"qty": 1})
    )
    assert problem(invalid) == (422, "invalid-event")
    assert problem(rejected) == (422, "ask-rejected")
    assert "100 of tea are left" in rejected.json()["detail"]
    assert malformed.status_code == 422, "FastAPI's own answer"


@pytest.mark.usefixtures("in_memory")
def test_a_full_intake_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_STORE", "shop.db")
    monkeypatch.setenv("GENESIS_DISK_RESERVE_BYTES", str(1 << 60))
    (full,) = called(("/orders", {"sku": "tea"}))
    assert problem(full) == (503, "intake-full")
    assert int(full.headers["retry-after"]) >= 1


def test_the_api_describes_itself() -> None:
    assert set(api.openapi()["paths"]) == {"/orders", "/orders/now", "/reservations", "/stock/{sku}"}
