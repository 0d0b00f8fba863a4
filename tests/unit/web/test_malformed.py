"""Whatever comes in, the answer is never that the server failed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from genesis.chaos.loop import VirtualLoop
from tests.unit.web.support import EVENT, envelope, opened

texts = st.text(max_size=20)
raw = st.binary(max_size=60)
header_values = st.one_of(raw, texts.map(str.encode), st.sampled_from([b"%", b"%ff", b'"', b'"\\"', b"\x00", b"a" * 2000]))
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 1e308])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner)
)
json_bodies = json_values.map(lambda value: json.dumps(value).encode())
media = st.sampled_from(
    [
        b"application/json",
        b"application/json; charset=utf-16",
        b"application/cloudevents+json",
        b"application/cloudevents-batch+json",
        b"application/cloudevents+json; charset=",
        b"application/cloudevents",
        b"text/plain",
        b";;;",
        b"",
        b"\xff",
    ]
)
attributes = st.sampled_from(
    ["specversion", "id", "source", "type", "time", "datacontenttype", "priority", "traceparent", "tracestate", "data", "x"]
)


@st.composite
def bent_envelope(draw: st.DrawFn) -> dict[str, Any]:
    """An event with some attributes gone or replaced."""
    event = envelope()
    for name in draw(st.lists(attributes, max_size=3)):
        if draw(st.booleans()):
            event.pop(name, None)
        else:
            event[name] = draw(json_values)
    return event


@st.composite
def cut_body(draw: st.DrawFn) -> bytes:
    """JSON with bytes changed, cut or put in."""
    body = bytearray(json.dumps(draw(bent_envelope())).encode())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


bodies = st.one_of(
    raw,
    json_bodies,
    bent_envelope().map(lambda event: json.dumps(event).encode()),
    st.lists(bent_envelope(), max_size=4).map(lambda events: json.dumps(events).encode()),
    cut_body(),
    st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"\xef\xbb\xbf{}", b'"\\ud800"', b"{}" * 3, b"1e400"]),
)
names = st.sampled_from(
    b"ce-id ce-source ce-type ce-time ce-priority ce-specversion ce- ce-data content-type content-length expect prefer"
    b" idempotency-key traceparent tracestate".split()
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, list[tuple[bytes, bytes]], bytes]:
    """A request that is right but for some of its parts."""
    method = draw(st.sampled_from(["POST"] * 12 + ["GET", "HEAD", "PUT", "", "GE T"]))
    path = draw(
        st.sampled_from(["/events"] * 12 + ["/ask/level", "/ask/take", "/ask/%ff", "/ask/nope", "/readyz?verbose&%ff", ""])
        | texts.map(lambda text: f"/{text}")
    )
    headers = [(name.encode(), value.encode()) for name, value in EVENT.items() if draw(st.integers(0, 9))]
    headers += draw(st.lists(st.tuples(names, header_values), max_size=3))
    if draw(st.booleans()):
        headers = [(name, value) for name, value in headers if name != b"content-type"]
        headers.append((b"content-type", draw(media)))
    return method, path, headers, draw(bodies)


@settings(max_examples=600)
@given(requests())
def test_a_malformed_request_is_never_an_error_of_the_server(request: Any) -> None:
    async def send() -> None:
        async with opened(immediate=True) as (client, node, _):
            method, path, headers, body = request
            reply = await client.request(method, path, headers, body)
            assert 200 <= reply.status < 500, reply.body
            if reply.status >= 400:
                assert reply.kind
            assert not node.status().ledger.imbalance()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(send())
