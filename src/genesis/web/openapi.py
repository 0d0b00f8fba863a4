"""`/openapi.json`: what the door takes and answers, as OpenAPI 3.1, made of the application's own messages.

In: a definition. Out: plain JSON values. What OpenAPI cannot say is said in words: which attributes are headers in binary
mode only, and which type the data of such an event is of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from genesis.core.event import Priority, Receipt
from genesis.runtime.component import Route
from genesis.runtime.definition import Definition
from genesis.web.ask import DEADLINE_MAX_S, DEADLINE_S
from genesis.web.cloudevents import BATCH, CHARS_MAX, STRUCTURED
from genesis.web.deadline import HEADER
from genesis.web.problems import KINDS, TYPE
from genesis.web.wire import Accepted

JSON = "application/json"
ALWAYS = ("bad-request", "headers-too-large", "too-many-connections")
TAKING = (
    *("malformed-json", "body-too-slow", "too-large", "wrong-content-type", "unknown-type", "invalid-event"),
    *("batch-too-large", "internal", "intake-full", "draining", "not-accepted", "store-failed"),
)
ASKING = ("malformed-header", "ask-rejected", "ask-failed", "deadline-exceeded", "ask-cycle")
OURS = "genesis.Problem"
"""A name that no class of an application has."""
REFS = "#/components/schemas/{name}"
TEXT = {"type": "string", "minLength": 1, "maxLength": CHARS_MAX, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"}
JSON_TYPES = r"^[a-z]+/([a-z0-9.-]+\+)?json(; *charset=utf-8)?$"
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
WAIT = {"type": "string", "pattern": "^wait=[1-9][0-9]?$"}
LEFT = {"type": "string", "pattern": "^[1-9][0-9]?[HMS]$"}
"""Of what gRPC allows, that which leaves time for an answer."""
PRIORITY = {
    "oneOf": [
        {"type": "string", "enum": [*(p.name.lower() for p in Priority), *(str(int(p)) for p in Priority)]},
        {"type": "integer", "minimum": 0, "maximum": len(Priority) - 1},
    ],
    "description": "It may lower the priority of the class; a higher one is ignored, unless the door trusts its clients.",
}
PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `detail` says what to do; `index` names the event of a batch.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "enum": [f"/problems/{kind}" for kind in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "index": {"type": "integer", "minimum": 0},
        "retry_after": {"type": "integer", "minimum": 1, "description": "Seconds, as in `Retry-After`."},
    },
}
BINARY = "In binary mode (Content-Type application/json)"


def described(definition: Definition, root: str) -> dict[str, Any]:
    """The description; `root` is where the door is mounted."""
    routes = {kind: found[0] for kind, found in sorted(definition.by_type.items())}
    sent = {kind: route for kind, route in routes.items() if not route.read_only}
    asked = {kind: route for kind, route in routes.items() if route.is_request}
    types = [*(route.codec.message for route in routes.values()), *(route.answer for route in asked.values())]
    schemas, components = msgspec.json.schema_components(
        [Receipt, Accepted, *types], schema_hook=lambda _: {}, ref_template=REFS
    )
    receipt, accepted, *given = schemas
    fields = dict(zip(routes, given, strict=False))
    answers = dict(zip(asked, given[len(routes) :], strict=True))
    paths: dict[str, Any] = {"/events": {"post": _events(sent, fields, [receipt, accepted])}} if sent else {}
    for kind, route in asked.items():
        paths[f"/ask/{quote(kind, safe='')}"] = {"post": _ask(kind, route, fields[kind], answers[kind])}
    paths |= _looks()
    return {
        "openapi": "3.1.0",
        "info": {"title": definition.name, "version": definition.version or "0"},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": {**components, OURS: PROBLEM}},
    }


# --- events and questions ---------------------------------------------------------------------------------------------


def _events(sent: dict[str, Route], fields: dict[str, Any], answers: list[Any]) -> dict[str, Any]:
    one = {"oneOf": [_envelope(kind, route, fields[kind]) for kind, route in sent.items()]}
    duplicate = {"description": "There, and `true`, when it had been accepted before.", "schema": {"const": "true"}}
    return {
        "operationId": "send",
        "summary": "Send an event, or several, as CloudEvents 1.0. 202 means durable.",
        "parameters": [
            _attribute("specversion", {"const": "1.0"}),
            _attribute("id", TEXT),
            _attribute("source", TEXT),
            _attribute("type", {"type": "string", "enum": [*sent]}),
            _attribute("time", {"type": "string", "format": "date-time"}, needed=False),
            _attribute("priority", PRIORITY, needed=False),
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"anyOf": [fields[kind] for kind in sent]}},
                STRUCTURED: {"schema": one},
                BATCH: {"schema": {"type": "array", "items": one}},
            },
        },
        "responses": {
            "202": {
                "description": "Accepted: all of it, or known already.",
                "headers": {"Genesis-Duplicate": duplicate},
                "content": {JSON: {"schema": {"oneOf": answers}}},
            },
            **_problems((*ALWAYS, *TAKING, "malformed-event")),
        },
    }


def _attribute(name: str, schema: dict[str, Any], *, needed: bool = True) -> dict[str, Any]:
    """An attribute as a header. It is needed in one mode of three, which `required` cannot say."""
    words = f"{BINARY}{', where it must be there' if needed else ''}. Percent-decoded once."
    return {"name": f"ce-{name}", "in": "header", "required": False, "description": words, "schema": schema}


def _envelope(kind: str, route: Route, fields: Any) -> dict[str, Any]:
    """An event in one piece."""
    found: dict[str, Any] = {
        "type": "object",
        "title": kind,
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": TEXT,
            "source": TEXT,
            "type": {"const": kind},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string", "pattern": JSON_TYPES},
            "priority": PRIORITY,
            "traceparent": {"type": "string"},
            "tracestate": {"type": "string"},
            "data": fields,
            "data_base64": {"type": "string", "contentEncoding": "base64", "pattern": BASE64},
        },
        "not": {"required": ["data", "data_base64"]},
    }
    if any(field.required for field in msgspec.structs.fields(route.codec.message)):
        found["anyOf"] = [{"required": ["data"]}, {"required": ["data_base64"]}]
    return found


def _ask(kind: str, route: Route, fields: Any, answer: Any) -> dict[str, Any]:
    wait = f"`wait=n`: seconds to wait for the answer, {DEADLINE_S:.0f} unless it is there, {DEADLINE_MAX_S:.0f} at most."
    left = "How long the answer is of use, as gRPC says it: `1500m` is 1.5 s. The nearer of this and `Prefer` holds."
    key = "Asked again with the same key, it gets the same answer and has no second effect."
    empty = not any(field.required for field in msgspec.structs.fields(route.codec.message))
    return {
        "operationId": f"ask-{kind}",
        "summary": f"Ask {kind}{'; it changes nothing' if route.read_only else '; answered after the commit'}.",
        "parameters": [
            {"name": "Prefer", "in": "header", "description": wait, "schema": WAIT},
            {"name": HEADER, "in": "header", "description": left, "schema": LEFT},
            {"name": "Idempotency-Key", "in": "header", "description": key, "schema": TEXT},
        ],
        "requestBody": {"required": not empty, "content": {JSON: {"schema": fields}}},
        "responses": {
            "200": {"description": "The answer.", "content": {JSON: {"schema": answer}}},
            **_problems((*ALWAYS, *TAKING, *ASKING)),
        },
    }


# --- the rest ---------------------------------------------------------------------------------------------------------


def _looks() -> dict[str, Any]:
    text: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    turns, opening = _problems(ALWAYS), _problems((*ALWAYS, "intake-full"))
    unready = turns["503"] | {"description": f"Not ready, or: {turns['503']['description']}"}
    unready["content"] = turns["503"]["content"] | text
    verbose = {"name": "verbose", "in": "query", "allowEmptyValue": True, "schema": {"type": "string"}}
    return {
        "/livez": {"get": _look("live", "The event loop turns.", text, turns)},
        "/readyz": {
            "get": _look("ready", "Events are accepted.", text, turns | {"503": unready}) | {"parameters": [verbose]},
        },
        "/metrics": {"get": _look("metrics", "Counters in the text format of Prometheus.", text, turns)},
        "/openapi.json": {
            "get": _look("describe", "This description.", {JSON: {"schema": {"type": "object"}}}, opening),
        },
    }


def _look(name: str, summary: str, content: dict[str, Any], problems: dict[str, Any]) -> dict[str, Any]:
    right = {"description": summary, "content": content}
    return {"operationId": name, "summary": summary, "responses": {"200": right, **problems}}


def _problems(kinds: Iterable[str]) -> dict[str, Any]:
    """By status, the problems of an operation."""
    by_status: dict[str, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(str(KINDS[kind][0]), []).append(kind)
    return {
        status: {
            "description": "; ".join(f"`{kind}`: {KINDS[kind][1].lower()}" for kind in found),
            "content": {TYPE.decode(): {"schema": _problem(found)}},
        }
        for status, found in sorted(by_status.items())
    }


def _problem(kinds: list[str]) -> dict[str, Any]:
    named = {"type": {"enum": [f"/problems/{kind}" for kind in kinds]}, "status": {"const": KINDS[kinds[0]][0]}}
    return {"allOf": [{"$ref": REFS.format(name=OURS)}, {"properties": named}]}
