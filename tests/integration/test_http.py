"""`genesis run --http` with real processes, signals and kills, and clients that nobody here wrote."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.unit.cli.support import DEADLINE_S, Running, Shop, until

EVENT = {"ce-specversion": "1.0", "ce-source": "/till", "ce-type": "shop.placed", "content-type": "application/json"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path) as found:
        yield found


def opened(shop: Shop, *arguments: str, **variables: str) -> tuple[Running, str]:
    """A process with its door open, and the URL that it prints."""
    running = shop.start("--http", "0", *arguments, **variables)
    return running, re.findall(r"http (http://\S+)", running.said)[-1]


def post(client: httpx.Client, url: str, id: str, sku: str = "tea") -> httpx.Response:
    return client.post(f"{url}/events", headers={**EVENT, "ce-id": id}, json={"sku": sku})


def test_every_route_with_httpx(shop: Shop) -> None:
    running, url = opened(shop)
    with httpx.Client() as client:
        first, again = post(client, url, "1"), post(client, url, "1")
        assert (first.status_code, first.json()["duplicate"], again.headers["genesis-duplicate"]) == (202, False, "true")
        assert client.get(f"{url}/livez").text == client.get(f"{url}/readyz").text == "ok\n"
        assert client.head(f"{url}/readyz").status_code == 200
        assert "genesis_events_accepted_total 1.0" in client.get(f"{url}/metrics").text
        unknown = client.post(f"{url}/ask/shop.plac", json={})
        assert (unknown.status_code, unknown.headers["content-type"]) == (422, "application/problem+json")
        assert "did you mean 'shop.placed'?" in unknown.json()["detail"]
        chunked = client.post(f"{url}/events", headers={**EVENT, "ce-id": "2"}, content=iter([b'{"sku"', b': "tea"}']))
        assert chunked.status_code == 202
        large = client.post(f"{url}/events", headers={**EVENT, "ce-id": "3"}, content=b" " * (3 << 20))
        assert large.status_code == 413
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    assert "accepted 2  done 4" in running.said


def test_the_sdk_of_cloudevents(shop: Shop) -> None:
    _, url = opened(shop)

    def made(id: str) -> CloudEvent:
        attributes = {"type": "shop.placed", "source": "/sdk/äöü", "id": id, "datacontenttype": "application/json"}
        return CloudEvent(attributes=attributes, data={"sku": "tea"})

    with httpx.Client() as client:
        for message in (to_binary_event(made("1 €")), to_structured_event(made("2"))):
            reply = client.post(f"{url}/events", headers=message.headers, content=message.body)
            assert reply.status_code == 202, reply.text
            assert reply.json()["source"] == "/sdk/äöü"
        batch = b"[" + b",".join(JSONFormat().write(made(id)) for id in ("1 €", "2", "3")) + b"]"
        reply = client.post(f"{url}/events", headers={"content-type": "application/cloudevents-batch+json"}, content=batch)
        assert (reply.status_code, reply.json()["accepted"], reply.json()["duplicates"]) == (202, 1, 2)


def test_curl_is_told_before_it_sends_too_much(shop: Shop, require_tool: Callable[[str], str]) -> None:
    curl = require_tool("curl")
    _, url = opened(shop)
    (shop.folder / "large").write_bytes(bytes(20 << 20))
    headers = [f"-H{name}: {value}" for name, value in EVENT.items()]
    command = [curl, "-sS", "-w", "%{http_code} %{size_upload}", *headers, "--data-binary", "@large", "-HExpect: 100-continue"]
    done = subprocess.run([*command, f"{url}/events"], cwd=shop.folder, capture_output=True, timeout=DEADLINE_S, check=True)
    body, _, sent = done.stdout.decode().rpartition("}")
    assert json.loads(f"{body}}}")["type"] == "/problems/too-large"
    assert sent == "413 0"


def test_curl_that_asks_for_http_2_is_answered(shop: Shop, require_tool: Callable[[str], str]) -> None:
    curl = require_tool("curl")
    _, url = opened(shop)
    headers = [f"-H{name}: {value}" for name, value in EVENT.items()]
    command = [curl, "-sS", "-f", "--http2", *headers, "-Hce-id: 1", "-d", '{"sku": "tea"}', f"{url}/events"]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=True)
    assert json.loads(done.stdout)["id"] == "1"


def test_what_was_answered_with_202_is_there_after_a_kill(shop: Shop) -> None:
    running, url = opened(shop)
    accepted: list[str] = []

    def send(first: int) -> None:
        with httpx.Client() as client, suppress(httpx.TransportError):
            for n in range(first, 100_000, 4):
                if post(client, url, str(n)).status_code == 202:
                    accepted.append(str(n))

    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    until(lambda: len(accepted) > 100, "a hundred yeses")
    running.tell(signal.SIGKILL)
    running.ended()
    for sender in senders:
        sender.join(DEADLINE_S)
    _, url = opened(shop)
    with httpx.Client() as client:
        batch = [
            {"specversion": "1.0", "id": id, "source": "/till", "type": "shop.placed", "data": {"sku": "tea"}}
            for id in accepted
        ]
        again = []
        for start in range(0, len(batch), 400):
            headers = {"content-type": "application/cloudevents-batch+json"}
            content = json.dumps(batch[start : start + 400])
            again += client.post(f"{url}/events", headers=headers, content=content).json()["events"]
    assert [receipt["id"] for receipt in again if not receipt["duplicate"]] == []
    status = shop.settled()
    assert status["well"]
    assert status["ledger"]["accepted"] >= len(accepted)


def test_a_drain_under_load_answers_what_it_took(shop: Shop) -> None:
    running, url = opened(shop)
    answers: list[tuple[str, int]] = []
    cut: list[str] = []

    def send(first: int) -> None:
        with httpx.Client() as client:
            for n in range(first, 1_000_000, 8):
                try:
                    answers.append((str(n), post(client, url, str(n)).status_code))
                except httpx.TransportError:
                    cut.append(str(n))
                    return

    senders = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for sender in senders:
        sender.start()
    until(lambda: len(answers) > 200, "traffic")
    running.tell(signal.SIGTERM)
    assert running.ended() == 0
    for sender in senders:
        sender.join(DEADLINE_S)
    yes = [id for id, status in answers if status == 202]
    assert {status for _, status in answers} <= {202, 503}
    ledger = shop.json("status")["ledger"]
    assert ledger["adds_up"]
    assert ledger["accepted"] == len(yes), "a yes for each that was accepted, though the process ended"


def test_a_question_under_way_is_answered_before_the_end(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(
        "import asyncio\nfrom pathlib import Path\nfrom genesis import App, Context, Request, on\n"
        'app = App("shop")\nclass Wait(Request[str], type="wait"): ...\n'
        "@app.component\nclass C:\n    @on(Wait)\n    async def wait(self, m: Wait, ctx: Context) -> str:\n"
        '        Path("begun").touch()\n        while not Path("go").exists(): await asyncio.sleep(0.01)\n'
        '        return "done"\n'
    )
    running, url = opened(shop)
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/ask/wait", json={}, timeout=DEADLINE_S))

    asker = threading.Thread(target=ask)
    asker.start()
    until((shop.folder / "begun").exists, "the handler")
    running.tell(signal.SIGTERM)
    until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "the drain")
    assert httpx.get(f"{url}/livez").status_code == 200
    with httpx.Client() as client:
        refused = post(client, url, "late")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/draining")
    assert int(refused.headers["retry-after"]) >= 1
    (shop.folder / "go").touch()
    asker.join(DEADLINE_S)
    assert (answers[0].status_code, answers[0].json()) == (200, "done")
    assert running.ended() == 0


def test_a_port_that_is_taken(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shop.run("run", "shop:app", "--log", "pretty", "--http", str(port))
    assert done.returncode == 3
    assert done.stderr == f"genesis: cannot listen on port {port} of 127.0.0.1: Address already in use\n"
    assert not shop.store.exists(), "the store was not opened for nothing"
    done = shop.run("run", "shop:app", "--http", "0", "--host", "no.such.host.invalid")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_the_port_may_be_a_setting_and_an_open_host_is_warned_of(shop: Shop) -> None:
    running = shop.start(GENESIS_HTTP="0", GENESIS_HOST="0.0.0.0")
    url = re.findall(r"http (http://\S+)", running.said)[-1]
    assert httpx.get(url.replace("0.0.0.0", "127.0.0.1") + "/readyz").status_code == 200
    assert "nobody is asked for a password" in running.said
