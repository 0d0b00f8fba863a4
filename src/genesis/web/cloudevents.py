"""CloudEvents 1.0 over HTTP: what a request says, as events whose attributes are checked.

In: headers and a body, in binary, structured or batch mode. Out: `Event`s whose data is still JSON, or a `Problem`. The data
is decoded by the type of the event, once, at the gate.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from genesis.core.event import Priority
from genesis.web.problems import Problem

T = TypeVar("T")
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
CHARS_MAX = 1024
"""Longest id, source or type: each is stored with every delivery."""
TRACESTATE_CHARS = 512
"""Longest `tracestate` that W3C asks to carry."""
TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BINARY = tuple(
    f"ce-{name}".encode() for name in ("specversion", "id", "source", "type", "time", "priority", "traceparent", "tracestate")
)
"""The attributes that Genesis reads; the first four must be there."""
_ESCAPED = re.compile(r"\\(.)")
_NAMES = {priority.name.lower(): priority for priority in Priority} | {str(int(p)): p for p in Priority}


class Event(NamedTuple):
    """One event, its attributes checked."""

    type: str
    id: str
    source: str
    priority: Priority | None
    """As its producer asks for it."""
    headers: dict[str, str] | None
    """What travels with it."""
    data: bytes
    """JSON, not decoded yet."""


class Request(NamedTuple):
    """The events of one request, in order."""

    events: list[Event]
    batch: bool


class _Envelope(msgspec.Struct, gc=False):
    """An event in the JSON format. Attributes that Genesis has no use for are left where they are."""

    specversion: str
    id: str
    source: str
    type: str
    time: str | None = None
    datacontenttype: str | None = None
    priority: str | int | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def events_of(headers: dict[bytes, bytes], twice: set[bytes], body: bytes) -> Request:
    """The events of a request.

    Raises:
        Problem: of kind malformed-event, malformed-json or wrong-content-type; in a batch it names the index.
    """
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    media = media_of(content_type)
    if b"content-type" in twice:
        raise _malformed("the header Content-Type is there twice")
    if not media.startswith("application/cloudevents"):
        return Request([_binary(headers, twice, content_type, body)], batch=False)
    if media not in (STRUCTURED, BATCH):
        raise _wrong_type(media)
    check_charset(content_type)
    if media == STRUCTURED:
        return Request([_structured(body, headers)], batch=False)
    events = []
    for index, part in enumerate(_json(_decode_list, body)):
        try:
            events.append(_structured(part, headers))
        except Problem as problem:
            problem.facts["index"] = index
            raise
    return Request(events, batch=True)


@lru_cache(maxsize=64)  # an application has a few
def media_of(content_type: str) -> str:
    """The media type without its parameters, lower-case."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=64)
def check_json(content_type: str) -> None:
    """Raises Problem when data of this type (empty: not said) is not JSON in UTF-8."""
    media = media_of(content_type)
    if content_type and media not in ("application/json", "text/json") and not ("/" in media and media.endswith("+json")):
        raise _wrong_type(media)
    check_charset(content_type)


def check_charset(content_type: str) -> None:
    """Raises Problem when it names another character set than UTF-8."""
    if ";" not in content_type:
        return
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Problem("wrong-content-type", f"JSON comes in UTF-8, not in {value.strip()[:40]!r}")


# --- the modes --------------------------------------------------------------------------------------------------------


def _binary(headers: dict[bytes, bytes], twice: set[bytes], content_type: str, body: bytes) -> Event:
    given: dict[bytes, str] = {}
    for name, value in headers.items():
        if name.startswith(b"ce-"):
            if name in twice:
                raise _malformed(f"the header {_shown(name)} is there twice")
            given[name] = _value(name, value)
    specversion, id, source, type, time, priority, traceparent, tracestate = map(given.get, _BINARY)
    if specversion is None or id is None or source is None or type is None:
        missing = [_shown(name) for name in _BINARY[:4] if name not in given]
        also = "" if given else f"; an event in one piece has the Content-Type {STRUCTURED}"
        raise _malformed(f"headers are missing: {', '.join(missing)}{also}")
    return _event(specversion, id, source, type, time, content_type, priority, traceparent, tracestate, body, headers)


def _value(name: bytes, raw: bytes) -> str:
    """The value of a header: without its quotes if it has some, and percent-decoded once."""
    try:
        text = raw.decode()
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = _ESCAPED.sub(r"\1", text[1:-1])
        return unquote_to_bytes(text).decode() if "%" in text else text
    except UnicodeDecodeError:
        raise _malformed(f"the header {_shown(name)} is not UTF-8, percent-encoded where it is not ASCII") from None


def _structured(body: bytes | msgspec.Raw, headers: dict[bytes, bytes]) -> Event:
    found = _json(_decode, body)
    data = bytes(found.data)
    if found.data_base64 is not None:
        if data:
            raise _malformed("the event has both data and data_base64")
        try:
            data = base64.b64decode(found.data_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _malformed(f"data_base64 is not base64: {error}") from None
    return _event(
        found.specversion,
        found.id,
        found.source,
        found.type,
        found.time,
        found.datacontenttype or "",
        found.priority,
        found.traceparent,
        found.tracestate,
        data,
        headers,
    )


def _json(decode: Callable[[bytes | msgspec.Raw], T], body: bytes | msgspec.Raw) -> T:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Problem("malformed-json", f"the body is not JSON: {error}") from None


def _event(
    specversion: str,
    id: str,
    source: str,
    type: str,
    time: str | None,
    content_type: str,
    priority: str | int | None,
    traceparent: str | None,
    tracestate: str | None,
    data: bytes,
    headers: dict[bytes, bytes],
) -> Event:
    if specversion != "1.0":
        raise _malformed(f"specversion is {specversion[:40]!r}: this door speaks 1.0")
    for name, text in (("id", id), ("source", source), ("type", type)):
        if not text or len(text) > CHARS_MAX or not (text.isprintable() or CONTROL.search(text) is None):  # the first is quick
            raise _malformed(f"{name} is {text[:40]!r}: 1 to {CHARS_MAX} characters, none of them a control character")
    if time is not None and not TIME.fullmatch(time):
        raise _malformed(f"time is {time[:40]!r}: a time of RFC 3339, such as 2026-11-24T16:00:00Z")
    travelling: dict[str, str] = {}
    if content_type:
        check_json(content_type)
        travelling["datacontenttype"] = content_type
    if traceparent is None and b"traceparent" in headers:
        traceparent = headers[b"traceparent"].decode("latin-1")
        tracestate = headers.get(b"tracestate", b"").decode("latin-1") or None
    if traceparent is not None and TRACEPARENT.fullmatch(traceparent):  # else W3C asks to go on as if it were not there
        travelling["traceparent"] = traceparent
        if tracestate and len(tracestate) <= TRACESTATE_CHARS and not CONTROL.search(tracestate):
            travelling["tracestate"] = tracestate
    wanted = None if priority is None else _priority(priority)
    return Event(type, id, source, wanted, travelling or None, data or b"{}")


def _priority(given: str | int) -> Priority:
    found = _NAMES.get(str(given).lower())
    if found is None:
        names = ", ".join(priority.name.lower() for priority in Priority)
        raise _malformed(f"priority is {str(given)[:40]!r}: one of {names}, or 0 to {len(Priority) - 1}")
    return found


def _malformed(detail: str) -> Problem:
    return Problem("malformed-event", detail)


def _wrong_type(media: str) -> Problem:
    detail = f"data of the type {media[:80]!r} is not taken: application/json, {STRUCTURED} or {BATCH}"
    return Problem("wrong-content-type", detail)


def _shown(name: bytes) -> str:
    return name.decode("latin-1")[:80]
