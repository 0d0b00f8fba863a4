"""`POST /ask/TYPE`: a question over HTTP, answered after the commit of the delivery that gave the answer."""

from __future__ import annotations

import msgspec

from genesis.core.message import Request
from genesis.runtime.node import Node
from genesis.web.cloudevents import CHARS_MAX, CONTROL, check_json
from genesis.web.deadline import HEADER, deadline_of
from genesis.web.problems import Problem
from genesis.web.wire import Answer, Call

DEADLINE_S = 30.0
"""Without a word of the client, as in `node.ask`."""
DEADLINE_MAX_S = 300.0
"""A longer wait belongs to a client that asks again with the same key: proxies cut a silent connection off."""
SOURCE = "http-ask"
"""Source of questions over HTTP: their keys are no ids of the application's own."""


async def ask(node: Node, kind: str, call: Call, body: bytes) -> Answer:
    """Ask the node.

    Raises:
        Problem: the request cannot be understood, or its deadline is over already.
        AskError: no answer.
        RefusedError: not accepted.
    """
    headers = call.headers
    check_json(headers.get(b"content-type", b"").decode("latin-1"))
    wait_s = wait_of(headers.get(b"prefer", b"").decode("latin-1"))
    deadline_s = _nearer(wait_s, deadline_of(headers, call.twice))
    key = _key(headers.get(b"idempotency-key"))
    if len(kind) > CHARS_MAX:
        raise Problem("unknown-type", f"{kind[:80]!r}... has {len(kind)} characters: a type has {CHARS_MAX} at most")
    message = node.message(kind, body or b"{}")
    if not isinstance(message, Request):
        raise Problem("no-request", f"{kind[:80]} is an event: POST it to /events")
    answer = await node.ask(message, deadline=deadline_s, id=key, source=SOURCE)
    applied = ((b"preference-applied", f"wait={wait_s:g}".encode()),) if wait_s == deadline_s else ()
    return Answer(200, msgspec.json.encode(answer), headers=applied)


def wait_of(prefer: str) -> float | None:
    """Seconds that ``Prefer: wait=n`` (RFC 7240; parts of a second are taken too) asks for; None when it is not there.

    Raises:
        Problem: it is no number of seconds from 0 (not included) to the longest.
    """
    for preference in prefer.split(","):
        name, equals, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() != "wait" or not equals:
            continue
        text = value.strip().strip('"')
        try:
            wait_s = float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else 0.0
        except ValueError:
            wait_s = 0.0
        if not 0.0 < wait_s <= DEADLINE_MAX_S:
            detail = f"Prefer: wait={text[:20]} is no time to wait: seconds above 0, at most {DEADLINE_MAX_S:.0f}"
            raise Problem("malformed-header", detail)
        return wait_s
    return None


def _nearer(wait_s: float | None, left_s: float | None) -> float:
    """Seconds to wait for the answer, of those that two headers may give. Raises Problem when none are left."""
    if left_s is None:
        return DEADLINE_S if wait_s is None else wait_s
    if left_s <= 0:
        raise Problem("deadline-exceeded", f"{HEADER} says that the deadline was over: nothing was asked")
    return min(left_s, DEADLINE_MAX_S if wait_s is None else wait_s)


def _key(raw: bytes | None) -> str | None:
    """The id that ``Idempotency-Key`` gives the question; quotes, which its draft asks for, are no part of it."""
    if raw is None:
        return None
    try:
        key = raw.decode().strip().strip('"')
    except UnicodeDecodeError:
        key = ""
    if not key or len(key) > CHARS_MAX or CONTROL.search(key):
        raise Problem("malformed-header", f"Idempotency-Key has 1 to {CHARS_MAX} characters, in UTF-8")
    return key
