"""The example of protected calls: two real uvicorns, of which one is killed in the middle."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.cli.support import DEADLINE_S, Shop, until

ROOT = Path(__file__).parents[2]


class Services(Shop):
    """Processes of the example."""

    def serve(self, module: str, port: int = 0, **variables: str) -> tuple[subprocess.Popen[bytes], str]:
        """One of them, and its URL."""
        said = self.folder / f"said-{len(self._processes)}.txt"
        command = [sys.executable, "-m", "uvicorn", f"examples.protected.{module}:api", "--app-dir", str(ROOT)]
        with said.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--port", str(port)], cwd=self.folder, env=self.environment(**variables), stderr=out, stdout=out
            )
        self._processes.append(process)
        running = re.compile(r"running on (http://\S+)")
        until(lambda: running.search(said.read_text()) or process.poll() is not None, "the start")
        found = running.search(said.read_text())
        assert found is not None, said.read_text()
        return process, found[1]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with Services(tmp_path) as found:
        yield found


def price(client: httpx.Client, **headers: str) -> Any:
    """The service always answers."""
    reply = client.get("/prices/tea", headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert reply.status_code == 200, reply.text
    return reply.json()


def state(client: httpx.Client) -> str:
    return str(client.get("/pricing").json()["state"])


def test_the_service_answers_while_its_upstream_is_flaky_dead_and_back(services: Services) -> None:
    upstream, url = services.serve("upstream")
    _, own = services.serve("service", PRICES_URL=url)
    with httpx.Client(base_url=own) as client:
        fresh = [price(client) for _ in range(60)]
        assert {found["cents"] for found in fresh if found["fresh"]} == {450}
        assert sum(found["fresh"] for found in fresh) >= 50, "one in seven is a 503, and is tried again as the budget allows"
        assert 0 < price(client, grpc_timeout="750m").get("left_s", 0.7) <= 0.75, "the deadline travels to the upstream"
        late = client.get("/prices/tea", headers={"grpc-timeout": "0n"})
        assert (late.status_code, late.json()["type"]) == (504, "/problems/deadline-exceeded")
        assert client.post("/orders", json={"sku": "tea"}).status_code == 201

        upstream.kill()
        upstream.wait(DEADLINE_S)
        until(lambda: (price(client), state(client))[1] == "OPEN", "the circuit is open")
        assert (found := price(client))["fresh"] is False, found
        assert found["cents"] == 450, "the last one that was seen"
        refused = client.post("/orders", json={"sku": "tea"}, headers={"Idempotency-Key": "order-17"})
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")
        assert int(refused.headers["retry-after"]) >= 1

        services.serve("upstream", port=int(url.rpartition(":")[2]))
        until(lambda: (price(client), state(client))[1] == "CLOSED", "the circuit is closed")
        until(lambda: price(client)["fresh"], "a fresh price")
        until(lambda: client.post("/orders", json={"sku": "tea"}).status_code == 201, "an order")


def test_without_an_upstream_from_the_start_it_answers_too(services: Services) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        _, own = services.serve("service", PRICES_URL=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with httpx.Client(base_url=own) as client:
            assert price(client) == {"sku": "tea", "cents": 500, "fresh": False}
