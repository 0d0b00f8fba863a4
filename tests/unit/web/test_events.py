"""`POST /events`: the HTTP binding of CloudEvents 1.0, case by case."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from genesis import Priority
from genesis.core.ports import CrashPoint
from genesis.layers.prevention.admission import AdmissionSettings
from tests.unit.runtime.support import Disk, until
from tests.unit.web.support import EVENT, JSON, Client, envelope, opened

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_event_in_binary_mode_is_accepted_once() -> None:
    async with opened() as (client, node, seen):
        first, again = await client.event({"sku": "tea", "qty": 2}), await client.event({"sku": "tea", "qty": 2})
        assert (first.status, again.status) == (202, 202)
        assert "genesis-duplicate" not in first.headers
        assert again.headers["genesis-duplicate"] == "true"
        assert first.json == {"id": "1", "source": "/till", "duplicate": False, "deliveries": 1}
        await until(lambda: node.status().ledger.done == 1)
        assert seen == [("tea", "1", "/till", Priority.NORMAL, {"datacontenttype": JSON})]


async def test_the_yes_comes_after_the_commit() -> None:
    async with opened(delay=lambda: 1.0) as (client, _, _):
        begin = asyncio.get_running_loop().time()
        assert (await client.event()).status == 202
        assert asyncio.get_running_loop().time() - begin >= 1.0


@pytest.mark.parametrize("mode", ["binary", "structured", "batch"])
async def test_what_travels_with_an_event(mode: str) -> None:
    async with opened() as (client, _, seen):
        given = {"datacontenttype": "application/vnd.shop+json", "traceparent": TRACE, "tracestate": "a=b"}
        if mode == "binary":
            named = {f"ce_{name}": value for name, value in given.items() if name != "datacontenttype"}
            reply = await client.event(content_type=given["datacontenttype"], **named)
        else:
            reply = await client.structured(envelope(**given), batch=mode == "batch")
        assert reply.status == 202
        await until(lambda: seen)
        assert seen[0][4] == given


@pytest.mark.parametrize(
    ("headers", "travels"),
    [
        ({"traceparent": TRACE, "tracestate": "a=b"}, {"traceparent": TRACE, "tracestate": "a=b"}),
        ({"traceparent": TRACE}, {"traceparent": TRACE}),
        ({"traceparent": "nonsense", "tracestate": "a=b"}, {}),
        ({"tracestate": "a=b"}, {}),
        ({"traceparent": TRACE, "tracestate": "a" * 513}, {"traceparent": TRACE}),
        ({"traceparent": TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)}, {}),
    ],
)
async def test_the_trace_of_the_request_is_that_of_the_event(headers: dict[str, str], travels: dict[str, str]) -> None:
    async with opened() as (client, _, seen):
        assert (await client.event(**headers)).status == 202
        await until(lambda: seen)
        assert seen[0][4] == {"datacontenttype": JSON, **travels}


@pytest.mark.parametrize(
    ("header", "id"),
    [
        ("a%20b", "a b"),
        ("%E2%82%AC", "€"),
        ("€", "€"),
        ('"a \\"b\\" c"', 'a "b" c'),
        ("a%2520b", "a%20b"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ('"', '"'),
    ],
)
async def test_headers_are_decoded_once(header: str, id: str) -> None:
    async with opened() as (client, _, _):
        reply = await client.event(ce_id=header)
        assert (reply.status, reply.json["id"]) == (202, id)


@pytest.mark.parametrize(
    ("changed", "status", "kind", "detail"),
    [
        ({"ce-specversion": None}, 400, "malformed-event", "ce-specversion"),
        ({"ce-id": None, "ce-source": None}, 400, "malformed-event", "ce-id, ce-source"),
        ({"ce-type": None}, 400, "malformed-event", "ce-type"),
        ({"ce-specversion": "0.3"}, 400, "malformed-event", "this door speaks 1.0"),
        ({"ce-id": ""}, 400, "malformed-event", "id is ''"),
        ({"ce-id": "a" * 1025}, 400, "malformed-event", "1 to 1024"),
        ({"ce-source": "%00"}, 400, "malformed-event", "control character"),
        ({"ce-id": "%ff"}, 400, "malformed-event", "ce-id is not UTF-8"),
        ({"ce-time": "yesterday"}, 400, "malformed-event", "RFC 3339"),
        ({"ce-time": "2026-13-01T00:00:00Z"}, 400, "malformed-event", "RFC 3339"),
        ({"ce-time": "2026-11-24T16:00:00"}, 400, "malformed-event", "RFC 3339"),
        ({"ce-priority": "urgent"}, 400, "malformed-event", "critical, high, normal, low, background"),
        ({"ce-priority": "5"}, 400, "malformed-event", "0 to 4"),
        ({"content-type": ";;;"}, 415, "wrong-content-type", "''"),
        ({"content-type": "text/plain"}, 415, "wrong-content-type", "text/plain"),
        ({"content-type": "application/json; charset=latin-1"}, 415, "wrong-content-type", "UTF-8"),
        ({"content-type": "application/cloudevents+avro"}, 415, "wrong-content-type", "avro"),
        ({"ce-type": "placedd"}, 422, "unknown-type", "did you mean 'placed'?"),
        ({"ce-type": "level"}, 422, "unknown-type", "ask it"),
    ],
)
async def test_attributes_that_do_not_fit(changed: dict[str, str | None], status: int, kind: str, detail: str) -> None:
    async with opened() as (client, node, _):
        headers = {name: value for name, value in {**EVENT, **changed}.items() if value is not None}
        reply = await client.request("POST", "/events", headers, b'{"sku": "tea"}')
        assert (reply.status, reply.kind) == (status, kind)
        assert detail in reply.json["detail"]
        assert node.status().ledger.accepted == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/json"},
        {"content-type": "Application/JSON; charset=UTF-8"},
        {"ce-time": "2026-11-24t16:00:00.123+01:00"},
        {"ce-time": "2026-12-31T23:59:60Z"},
        {"ce-subject": "x", "ce-dataschema": "y", "ce-partitionkey": "z", "ce-expirytime": "tomorrow"},
    ],
)
async def test_attributes_that_fit(headers: dict[str, str]) -> None:
    async with opened() as (client, _, _):
        assert (await client.request("POST", "/events", {**EVENT, **headers}, b'{"sku": "tea"}')).status == 202


@pytest.mark.parametrize("name", ["ce-id", "ce-type", "content-type"])
async def test_a_header_that_is_there_twice_is_refused(name: str) -> None:
    async with opened() as (client, _, _):
        headers = [(key.encode(), value.encode()) for key, value in EVENT.items()]
        reply = await client.request("POST", "/events", [*headers, (name.encode(), b"other")], b"{}")
        assert (reply.status, reply.kind) == (400, "malformed-event")
        assert "twice" in reply.json["detail"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "detail"),
    [
        (b'{"sku": "tea"', 400, "malformed-json", "truncated"),
        (b'{"sku": "\xff"}', 400, "malformed-json", "not JSON"),
        (b'{"sku": "\\ud800"}', 400, "malformed-json", "not JSON"),
        (b"\xef\xbb\xbf{}", 400, "malformed-json", "not JSON"),
        (b'{"sku": NaN}', 400, "malformed-json", "not JSON"),
        (b'{"sku": "tea"} x', 400, "malformed-json", "trailing"),
        (b"", 422, "invalid-event", "sku"),
        (b"[]", 422, "invalid-event", "Expected `object`"),
        (b'{"sku": "tea", "qty": "x"}', 422, "invalid-event", "at `$.qty`"),
        (b'{"sku": "tea", "qty": 99999999999999999999999}', 422, "invalid-event", "ints"),
        (b'{"sku": ""}', 422, "invalid-event", "key"),
        (b'{"sku": "a\\u0000b"}', 422, "invalid-event", "NUL"),
    ],
)
async def test_data_that_does_not_fit(body: bytes, status: int, kind: str, detail: str) -> None:
    async with opened() as (client, node, _):
        reply = await client.request("POST", "/events", EVENT, body)
        assert (reply.status, reply.kind) == (status, kind), reply.body
        assert detail in reply.json["detail"]
        ledger = node.status().ledger
        assert (ledger.accepted, ledger.refused, ledger.imbalance()) == (0, 1, "")


async def test_an_event_without_data_is_one_without_fields() -> None:
    async with opened() as (client, _, seen):
        assert (await client.event(b"", ce_type="ping")).status == 202
        assert (await client.structured({k: v for k, v in envelope("2", type="ping").items() if k != "data"})).status == 202
        await until(lambda: seen == [("ping",), ("ping",)])


# --- structured and batch ---------------------------------------------------------------------------------------------


async def test_an_event_in_structured_mode() -> None:
    async with opened() as (client, _, seen):
        encoded = base64.b64encode(b'{"sku": "tea", "qty": 5}').decode()
        first = await client.structured(envelope("1", time="2026-11-24T16:00:00Z", subject=None, other={"a": 1}))
        second = await client.structured({**envelope("2"), "data_base64": encoded} | {"data": None})
        assert (first.status, second.kind) == (202, "malformed-event")
        both = envelope("3")
        del both["data"]
        assert (await client.structured({**both, "data_base64": encoded})).status == 202
        await until(lambda: len(seen) == 2)
        assert [found[1] for found in seen] == ["1", "3"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b"\xff", 400, "malformed-json"),
        (b'{"a":' * 100_000, 400, "malformed-json"),
        (b"[]", 400, "malformed-event"),
        (b"{}", 400, "malformed-event"),
        (json.dumps(envelope(id=7)).encode(), 400, "malformed-event"),  # type: ignore[arg-type]
        (json.dumps(envelope(id="\n")).encode(), 400, "malformed-event"),
        (json.dumps(envelope(specversion="1.1")).encode(), 400, "malformed-event"),
        (json.dumps(envelope(time=7)).encode(), 400, "malformed-event"),
        (json.dumps(envelope(priority=7)).encode(), 400, "malformed-event"),
        (json.dumps(envelope(priority=1.5)).encode(), 400, "malformed-event"),
        (json.dumps({**envelope(), "data_base64": "e30="}).encode(), 400, "malformed-event"),
        (json.dumps({**envelope(), "data_base64": "?"}).encode().replace(b'"data"', b'"x"'), 400, "malformed-event"),
        (json.dumps(envelope(datacontenttype="text/xml")).encode(), 415, "wrong-content-type"),
        (json.dumps(envelope(data=None)).encode(), 422, "invalid-event"),
        (json.dumps(envelope(data="tea")).encode(), 422, "invalid-event"),
        (json.dumps(envelope(type="nope")).encode(), 422, "unknown-type"),
    ],
)
@pytest.mark.parametrize("batch", [False, True])
async def test_structured_events_that_do_not_fit(body: bytes, status: int, kind: str, batch: bool) -> None:
    async with opened() as (client, node, _):
        media = "application/cloudevents-batch+json" if batch else "application/cloudevents+json"
        if batch:
            body = b"[" + json.dumps(envelope("before")).encode() + b"," + body + b"]"
        reply = await client.request("POST", "/events", {"content-type": media}, body)
        assert (reply.status, reply.kind) == (status, kind), reply.body
        assert node.status().ledger.accepted == 0
        if batch and kind != "malformed-json":
            assert reply.json["index"] == 1


async def test_a_batch_is_accepted_and_its_duplicates_are_named() -> None:
    async with opened() as (client, _, seen):
        await client.event()
        reply = await client.structured(envelope("1"), envelope("2"), envelope("2"), batch=True)
        assert (reply.status, reply.json["accepted"], reply.json["duplicates"]) == (202, 1, 2)
        assert [receipt["duplicate"] for receipt in reply.json["events"]] == [True, False, True]
        await until(lambda: len(seen) == 2)
        assert (await client.structured(batch=True)).json == {"accepted": 0, "duplicates": 0, "events": []}


async def test_of_a_batch_with_one_wrong_event_nothing_is_accepted() -> None:
    async with opened() as (client, node, _):
        wrong = await client.structured(envelope("1"), envelope("2", data={"sku": 7}), batch=True)
        assert (wrong.status, wrong.kind, wrong.json["index"]) == (422, "invalid-event", 1)
        right = await client.structured(envelope("1"), envelope("2"), batch=True)
        assert (right.json["accepted"], node.status().ledger.imbalance()) == (2, "")


async def test_a_batch_that_is_more_than_one_step_takes_is_refused() -> None:
    async with opened() as (client, node, _):
        reply = await client.structured(*(envelope(str(n)) for n in range(901)), batch=True)
        assert (reply.status, reply.kind) == (413, "batch-too-large")
        assert "at most 900" in reply.json["detail"]
        assert node.status().ledger.accepted == 0


# --- priority -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trust", "wanted", "got"),
    [
        (False, "low", Priority.LOW),
        (False, "4", Priority.BACKGROUND),
        (False, "Normal", Priority.NORMAL),
        (False, "critical", Priority.NORMAL),
        (True, "critical", Priority.CRITICAL),
        (True, "1", Priority.HIGH),
    ],
)
async def test_a_priority_may_be_lowered_and_is_raised_on_trust_alone(trust: bool, wanted: str, got: Priority) -> None:
    async with opened(trust=trust) as (client, _, seen):
        assert (await client.event(ce_priority=wanted)).status == 202
        number = int(wanted) if wanted.isdigit() else wanted
        assert (await client.structured(envelope("2", priority=number), batch=True)).status == 202
        await until(lambda: len(seen) == 2)
        assert [found[3] for found in seen] == [got, got]


# --- refused for a while ------------------------------------------------------------------------------------------------


async def test_a_full_intake_says_when_to_come_back() -> None:
    async with opened(admission=AdmissionSettings(backlog_max=1)) as (client, _, _):
        assert (await client.event({"sku": "down"}, ce_id="1")).status == 202
        for send in (client.event(ce_id="2"), client.structured(envelope("3"), batch=True)):
            reply = await send
            assert (reply.status, reply.kind) == (503, "intake-full")
            assert 1 <= int(reply.headers["retry-after"]) == reply.json["retry_after"] <= 3


async def test_a_commit_that_fails_asks_to_send_again() -> None:
    disk = Disk()
    async with opened(disk=disk) as (client, node, _):
        disk.fail_at(CrashPoint.EXECUTE)
        reply = await client.event()
        assert (reply.status, reply.kind) == (503, "not-accepted")
        assert "send it again with the same id" in reply.json["detail"]
        assert int(reply.headers["retry-after"]) >= 1
        opening = await client.event()
        assert (opening.status, opening.kind) == (503, "intake-full")
        await until(lambda: not node.readiness().store)
        assert not (await client.event()).json["duplicate"]


async def test_a_bug_is_a_problem_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (client, _, _):
        reply = await client.event(b"{}", ce_type="odd")
        assert (reply.status, reply.kind) == (500, "internal")
        assert b"division" not in reply.body
        assert "ZeroDivisionError" in caplog.text


async def test_a_door_without_its_node_says_so() -> None:
    from genesis.web.ingest import Door

    client = Client(Door())
    reply = await client.event()
    assert (reply.status, reply.kind) == (503, "intake-full")
    assert "retry-after" in reply.headers
