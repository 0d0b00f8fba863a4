"""What went wrong, as RFC 9457 says it: one kind, one status, and the facts.

In: errors of Genesis. Out: a `Problem`, which becomes the answer. Each kind is described in docs/http.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from random import Random
from typing import Any

import msgspec

from genesis.core.errors import (
    AskCycleError,
    AskFailedError,
    BatchLimitError,
    CallTimeoutError,
    DeadlineExceededError,
    DrainingError,
    GenesisError,
    IntakeFullError,
    InvalidEventError,
    MalformedEventError,
    NotAcceptedError,
    StoreError,
    UnavailableError,
    UnknownTypeError,
)
from genesis.web.wire import Answer, Header

KINDS = {
    "bad-request": (400, "The request is not HTTP"),
    "malformed-json": (400, "The body is not JSON"),
    "malformed-event": (400, "The attributes of the event are not those of CloudEvents 1.0"),
    "malformed-header": (400, "A header cannot be used"),
    "not-found": (404, "There is nothing here"),
    "wrong-method": (405, "This is not done with this method"),
    "body-too-slow": (408, "The body did not come in time"),
    "too-large": (413, "The body is too large"),
    "batch-too-large": (413, "The batch does not fit one atomic step"),
    "wrong-content-type": (415, "The data is of a type that is not taken"),
    "unknown-type": (422, "Nobody handles this type"),
    "invalid-event": (422, "The event does not fit its type"),
    "no-request": (422, "This type has no answer"),
    "ask-rejected": (422, "The handler rejected the question"),
    "headers-too-large": (431, "The headers are too large"),
    "internal": (500, "This is a bug"),
    "ask-failed": (500, "The handler failed to answer"),
    "intake-full": (503, "There is no room"),
    "draining": (503, "The node is stopping"),
    "not-accepted": (503, "The store failed while the event was sent"),
    "store-failed": (503, "The store cannot be used"),
    "unavailable": (503, "What the answer needs is not to be had"),
    "too-many-connections": (503, "Too many clients are connected"),
    "deadline-exceeded": (504, "The answer did not come in time"),
    "ask-cycle": (508, "The question waits for its own answer"),
}
"""By kind: its status and its title."""
RETRY_S = {"draining": 5.0, "not-accepted": 1.0, "store-failed": 1.0, "too-many-connections": 1.0}
"""When to come back where the error does not say: a restart takes a few seconds, a store is opened again in one."""
JITTER = 0.5
"""Share by which a client is sent away for longer, at random: those who were refused together do not come back together."""
TYPE = b"application/problem+json"


class Problem(Exception):  # noqa: N818 - the name that RFC 9457 gives it
    """A request that is answered with what is wrong with it."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        headers: Iterable[Header] = (),
        retry_after_s: float | None = None,
        close: bool = False,
        **facts: Any,
    ) -> None:
        self.kind, self.detail, self.headers, self.facts, self.close = kind, detail, tuple(headers), facts, close
        self.retry_after_s = RETRY_S.get(kind) if retry_after_s is None else retry_after_s
        super().__init__(f"{kind}: {detail}")

    @property
    def status(self) -> int:
        """Its status, which its kind decides."""
        return KINDS[self.kind][0]

    def answer(self, rng: Random) -> Answer:
        """As it is sent. `rng` spreads the times to come back."""
        status, title = KINDS[self.kind]
        fields = {"type": f"/problems/{self.kind}", "title": title, "status": status, "detail": self.detail, **self.facts}
        headers = self.headers
        if self.retry_after_s is not None:
            wait_s = ceil(self.retry_after_s + rng.uniform(0.0, max(1.0, JITTER * self.retry_after_s)))
            fields["retry_after"] = wait_s
            headers = (*headers, (b"retry-after", b"%d" % wait_s))
        if self.close:
            headers = (*headers, (b"connection", b"close"))
        return Answer(status, msgspec.json.encode(fields), TYPE, headers)


def problem_of(error: GenesisError) -> Problem:
    """The problem that an error of Genesis is for the client."""
    if isinstance(error, IntakeFullError):
        return _about(error, "intake-full", retry_after_s=error.retry_after_s)
    if isinstance(error, UnavailableError):
        return _about(error, "unavailable", retry_after_s=error.retry_after_s)
    if isinstance(error, AskFailedError):
        kind = {"rejected": "ask-rejected", "store": "not-accepted"}.get(error.reason, "ask-failed")
        return _about(error, kind, reason=error.reason)
    kinds: list[tuple[type[GenesisError], str]] = [
        (MalformedEventError, "malformed-json"),
        (UnknownTypeError, "unknown-type"),
        (InvalidEventError, "invalid-event"),
        (BatchLimitError, "batch-too-large"),
        (DrainingError, "draining"),
        (NotAcceptedError, "not-accepted"),
        (DeadlineExceededError, "deadline-exceeded"),
        (CallTimeoutError, "deadline-exceeded"),
        (AskCycleError, "ask-cycle"),
        (StoreError, "store-failed"),
    ]
    return _about(error, next((kind for cls, kind in kinds if isinstance(error, cls)), "internal"))


def _about(error: GenesisError, kind: str, *, retry_after_s: float | None = None, **facts: Any) -> Problem:
    if error.index is not None:
        facts["index"] = error.index
    return Problem(kind, str(error), retry_after_s=retry_after_s, **facts)
