"""`/livez` and `/readyz`: is the loop alive, and would an event be accepted now?"""

from __future__ import annotations

from urllib.parse import parse_qs

from genesis.runtime.node import Node
from genesis.runtime.status import Readiness
from genesis.web.wire import Answer

TEXT = b"text/plain; charset=utf-8"
RETRY = ((b"retry-after", b"1"),)


def livez() -> Answer:
    """The loop turns, or nobody would answer. Never more: a restart mends no dependency."""
    return Answer(200, b"ok\n", TEXT)


def readyz(node: Node | None, *, draining: bool, query: bytes) -> Answer:
    """Whether events would be accepted now: 503 while the store is opened, there is no room, or the node stops."""
    found = node.readiness() if node is not None else Readiness("the store is being opened", "the store is being opened")
    if draining:
        found = Readiness(found.store, "draining")
    ready = not found.store and not found.intake
    if "verbose" in parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=None):
        lines = [_line("store", found.store), _line("intake", found.intake), f"{'ready' if ready else 'not ready'}\n"]
    else:
        lines = ["ok\n" if ready else f"not ready: {found.store or found.intake}\n"]
    return Answer(200 if ready else 503, "".join(lines).encode(), TEXT, () if ready else RETRY)


def _line(what: str, wrong: str) -> str:
    return f"[-]{what} {wrong}\n" if wrong else f"[+]{what} ok\n"
