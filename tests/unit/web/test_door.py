"""The door as a whole: routes, limits of a body, health, metrics, drain, mounting."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from genesis import Policy
from genesis.core.errors import UnavailableError
from genesis.core.event import Priority
from genesis.layers.prevention.admission import AdmissionSettings
from genesis.web.body import BODY_BYTES, BODY_S, PASSED_OVER_BYTES
from genesis.web.ingest import Door
from genesis.web.problems import KINDS
from tests.unit.runtime.support import until
from tests.unit.web.support import EVENT, Client, opened


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("POST", "/event", 404, None),
        ("POST", "/ask", 404, None),
        ("GET", "/events/", 404, None),
        ("GET", "/events", 405, "POST"),
        ("PUT", "/ask/level", 405, "POST"),
        ("POST", "/livez", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("BREW", "/readyz", 405, "GET, HEAD"),
    ],
)
async def test_what_is_not_there(method: str, path: str, status: int, allow: str | None) -> None:
    async with opened() as (client, _, _):
        reply = await client.request(method, path)
        assert (reply.status, reply.kind) == (status, "wrong-method" if allow else "not-found")
        assert reply.headers.get("allow") == allow


# --- the body -----------------------------------------------------------------------------------------------------------


async def test_a_body_may_come_in_parts() -> None:
    async with opened() as (client, _, _):
        reply = await client.request("POST", "/events", EVENT, [b'{"sku"', b"", b': "tea"}'], pause_s=1.0)
        assert reply.status == 202


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b" " * (BODY_BYTES + 1), None),
        ([b" " * BODY_BYTES, b" "], None),
        ([b" " * (1 << 20)] * 10, None),
        (b"", PASSED_OVER_BYTES + 1),
    ],
)
async def test_a_body_that_is_too_large(body: bytes | list[bytes], length: int | None) -> None:
    async with opened() as (client, _, _):
        headers = EVENT if length is None else {**EVENT, "content-length": str(length)}
        reply = await client.request("POST", "/events", headers, body)
        assert (reply.status, reply.kind, reply.headers["connection"]) == (413, "too-large", "close")
        assert reply.json["limit_bytes"] == BODY_BYTES


async def test_a_body_of_the_largest_size_is_read() -> None:
    async with opened() as (client, _, _):
        body = b'{"sku": "tea"}'.ljust(BODY_BYTES)
        assert (await client.request("POST", "/events", EVENT, body)).status == 202


async def test_a_body_that_does_not_come_in_time() -> None:
    async with opened() as (client, _, _):
        reply = await client.request("POST", "/events", EVENT, [b"{"] * 100, pause_s=BODY_S / 50)
        assert (reply.status, reply.kind, reply.headers["connection"]) == (408, "body-too-slow", "close")


@pytest.mark.parametrize("coding", ["gzip", "Deflate, br", "nonsense"])
async def test_a_compressed_body_is_refused_by_name(coding: str) -> None:
    async with opened() as (client, _, _):
        reply = await client.request("POST", "/events", {**EVENT, "content-encoding": coding}, b'{"sku": "tea"}')
        assert (reply.status, reply.kind, reply.headers["accept-encoding"]) == (415, "wrong-content-type", "identity")
        assert coding.lower() in reply.json["detail"]
        same = await client.request("POST", "/events", {**EVENT, "content-encoding": "identity"}, b'{"sku": "tea"}')
        assert same.status == 202


async def test_a_client_that_leaves_is_answered_nothing() -> None:
    async with opened() as (client, node, _):
        assert (await client.request("POST", "/events", EVENT, [b"{", b""], leave=True)).status == 0
        assert (await client.request("POST", "/events", EVENT, b"", leave=True)).status == 0
        assert node.status().ledger.offered == 0


# --- health -------------------------------------------------------------------------------------------------------------


async def test_health_of_a_node_that_is_well() -> None:
    async with opened() as (client, _, _):
        assert (await client.request("GET", "/livez")).body == b"ok\n"
        assert (await client.request("GET", "/readyz")).body == b"ok\n"
        verbose = await client.request("GET", "/readyz?verbose")
        assert (verbose.status, verbose.body) == (200, b"[+]store ok\n[+]intake ok\nready\n")


async def test_health_while_the_store_is_opened_and_after_the_end() -> None:
    client = Client(Door())
    assert (await client.request("GET", "/livez")).status == 200
    assert b"being opened" in (await client.request("GET", "/readyz")).body
    async with opened() as (client, _, _):
        pass
    assert (await client.request("GET", "/livez")).status == 200
    gone = await client.request("GET", "/readyz?verbose")
    assert (gone.status, gone.headers["retry-after"]) == (503, "1")
    assert b"[-]store" in gone.body
    reply = await client.event()
    assert (reply.status, reply.kind) == (503, "draining")


async def test_health_of_a_full_node() -> None:
    async with opened(admission=AdmissionSettings(backlog_max=1)) as (client, _, _):
        await client.event({"sku": "down"})
        full = await client.request("GET", "/readyz?verbose=1")
        assert (full.status, full.body.splitlines()[0]) == (503, b"[+]store ok")
        assert b"[-]intake intake is full: 1 deliveries wait" in full.body


async def test_a_drain_refuses_what_comes_and_waits_for_what_is_under_way() -> None:
    async with opened() as (client, _, _), asyncio.TaskGroup() as group:
        asked = group.create_task(client.ask("take", {"sku": "tea", "slow_s": 5.0}))
        await asyncio.sleep(1.0)
        draining = group.create_task(client.door.drain(10.0))
        await asyncio.sleep(1.0)
        assert not draining.done()
        refused = await client.event()
        assert (refused.status, refused.kind) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 5
        ready = await client.request("GET", "/readyz?verbose")
        assert (ready.status, ready.body) == (503, b"[+]store ok\n[-]intake draining\nnot ready\n")
        assert (await client.request("GET", "/livez")).status == 200
        assert (await asked).json == 99
        assert await draining == 0


async def test_a_drain_does_not_wait_for_ever() -> None:
    async with opened() as (client, _, _), asyncio.TaskGroup() as group:
        group.create_task(client.ask("take", {"sku": "tea", "slow_s": 5.0}))
        await asyncio.sleep(1.0)
        assert await client.door.drain(1.0) == 1


async def test_a_door_that_was_drained_opens_again_with_the_next_node() -> None:
    door = Door()
    for id in ("1", "2"):
        async with opened() as (_, node, _):
            door.open(node)
            assert (await Client(door).event(ce_id=id)).status == 202
            await door.drain(1.0)


# --- metrics ------------------------------------------------------------------------------------------------------------


async def test_metrics_tell_of_each_policy() -> None:
    policy = Policy("pricing of the metrics", attempts=1)

    @policy
    async def price(n: int) -> None:
        if n >= 3:
            raise ConnectionError

    async with opened() as (client, _, _):
        for n in range(10):
            with suppress(ConnectionError, UnavailableError):
                await price(n)
        text = (await client.request("GET", "/metrics")).body.decode()
    found = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels) if name != "policy")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("policy") == policy.name
    }
    states = {labels[0]: value for (name, *labels), value in found.items() if name == "genesis_policy_state"}
    assert states == {"CLOSED": 0, "RESILIENT": 0, "OPEN": 1, "HALF_OPEN": 0, "ULTRA_RESILIENT": 0}
    assert found["genesis_policy_attempts_total", "good"] == 3
    assert found["genesis_policy_attempts_total", "failed"] == 5
    assert found["genesis_policy_steps_total", "rejected"] + found["genesis_policy_steps_total", "abandoned"] == 2
    assert 0 <= found["genesis_policy_success_probability",] < 0.5
    assert found["genesis_policy_budget", "calls"] == 10


async def test_metrics_are_those_of_the_node() -> None:
    async with opened() as (client, node, _):
        for n in range(3):
            await client.event(ce_id=str(n), ce_priority="low")
        await client.event(ce_id="0")
        await client.event({"sku": 7})
        await client.event({"sku": "down"}, ce_id="down")
        await client.request("GET", "/nowhere/4711")
        await until(lambda: node.status().ledger.in_pending == 1)
        reply = await client.request("GET", "/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = reply.body.decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["genesis_up",] == 1
    assert samples["genesis_events_accepted_total",] == 4
    assert samples["genesis_events_duplicate_total",] == 1
    assert samples["genesis_events_refused_total",] == 1
    assert samples["genesis_deliveries_born_total", "low"] == 3
    assert samples["genesis_deliveries_outcome_total", "done"] == 3
    assert samples["genesis_pending",] == 1
    assert samples["genesis_handler_paused", "inventory:placed"] == 1
    assert samples["genesis_ledger_balanced",] == 1
    assert samples["genesis_http_requests_total", "/events", "202"] == 5
    assert samples["genesis_http_requests_total", "404", "other"] == 1
    assert samples["genesis_delivery_latency_seconds_count", "low"] == 3
    assert {labels[0] for name, *labels in samples if name == "genesis_queue_depth"} == {p.name.lower() for p in Priority}
    buckets = [value for (name, *rest), value in samples.items() if name.endswith("_bucket") and "low" in rest]
    assert buckets == sorted(buckets)
    assert "4711" not in text
    assert not re.search(r"till|tea", text), "no ids in labels"


async def test_metrics_without_a_node() -> None:
    reply = await Client(Door()).request("GET", "/metrics")
    assert reply.status == 200
    assert b"genesis_up 0" in reply.body
    assert b"genesis_events" not in reply.body


# --- mounted ------------------------------------------------------------------------------------------------------------


async def test_the_door_can_be_mounted_below_a_path() -> None:
    async with opened() as (client, _, _):
        assert (await client.request("GET", "/genesis/livez", root_path="/genesis")).status == 200
        assert (await client.request("POST", "/genesis/events", EVENT, b'{"sku": "tea"}', root_path="/genesis")).status == 202


async def test_the_door_speaks_nothing_but_http() -> None:
    with pytest.raises(ValueError, match="websocket"):
        await Client(Door()).request("GET", "/", type="websocket")


def test_every_problem_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "http.md").read_text()
    for kind, (status, _) in KINDS.items():
        assert re.search(rf"\| {status} \|.*`{kind}`", page), kind
