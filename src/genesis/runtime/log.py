"""The logger of the runtime; what a line of a log says of the attempt that wrote it; lines of JSON.

In: records of the standard library, from anybody's code. Out: one JSON object a line, whatever the records hold.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from genesis.runtime.clock import utc

if TYPE_CHECKING:
    from genesis.runtime.context import Context

log = logging.getLogger("genesis")

STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What every record has. Whatever else one has was given with `extra`."""
TRACE_CHARS = 32


@contextmanager
def silence() -> Iterator[None]:
    """Log nothing while the block runs: in a world that is made to fail, what goes wrong is no news."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


# --- whose line it is -----------------------------------------------------------------------------------------------


class Mark:
    """Says which attempt runs, in the context variables that it runs with.

    To set a variable for each attempt would cost an event 2 % of its time. So attempts that do not wait share a mark, one
    after the other, and only the attribute is set; one that waits keeps it, and the next one gets another.
    """

    __slots__ = ("attempt", "kept")

    def __init__(self) -> None:
        self.attempt: Context | None = None
        self.kept = False
        """It belongs to one attempt for good: to the tasks and threads that outlive it too."""

    def found(self) -> Context | None:
        """The attempt. A shared mark names nobody between two attempts: what runs then was left behind by an earlier one."""
        attempt = self.attempt
        return attempt if self.kept or attempt is None or not attempt._closed else None


_mark: contextvars.ContextVar[Mark] = contextvars.ContextVar("genesis-attempt")


def marked(bare: contextvars.Context) -> tuple[Mark, contextvars.Context]:
    """A new mark, and a copy of context variables in which it is found."""
    mark, variables = Mark(), bare.copy()
    variables.run(_mark.set, mark)
    return mark, variables


@contextmanager
def logs_as(attempt: Context) -> Iterator[None]:
    """What is logged while the block runs is of this attempt."""
    mark = Mark()
    mark.attempt, mark.kept = attempt, True
    token = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(token)


def running_attempt() -> Context | None:
    """The attempt that runs here; None outside of one."""
    mark = _mark.get(None)
    return mark.found() if mark is not None else None


def attempt_fields() -> dict[str, Any]:
    """What is known of the attempt that runs here: component, event_id, source, attempt, trace_id. Empty outside of one."""
    attempt = running_attempt()
    return fields_of(attempt) if attempt is not None else {}


def fields_of(attempt: Context) -> dict[str, Any]:
    """The same of one attempt."""
    delivery = attempt._delivery
    fields: dict[str, Any] = {
        "component": delivery.component,
        "event_id": delivery.event_id,
        "source": delivery.source,
        "attempt": attempt.attempt,
    }
    trace = trace_id(delivery.headers)
    return {**fields, "trace_id": trace} if trace else fields


def trace_id(headers: dict[str, str] | None) -> str:
    """The trace id of a W3C ``traceparent``; empty when there is none that can be read."""
    parts = (headers or {}).get("traceparent", "").split("-")
    found = parts[1] if len(parts) >= 4 else ""
    return found if len(found) == TRACE_CHARS and set(found) <= set("0123456789abcdef") and set(found) != {"0"} else ""


# --- lines ----------------------------------------------------------------------------------------------------------


class JsonLines(logging.Formatter):
    """Each record as one JSON object on one line. It never raises, whatever a record holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, then the attempt, what was given with `extra`, and the exception."""
        fields = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
            **fields_of_record(record),
        }
        thrown = exception_of(record)
        return encoded({**fields, "exception": thrown} if thrown else fields)


def fields_of_record(record: logging.LogRecord) -> dict[str, Any]:
    """What was given with `extra`, and the attempt that logs; the attempt's own fields are not overwritten."""
    extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
    return {**extra, **attempt_fields()} if extra else attempt_fields()


def message_of(record: logging.LogRecord) -> str:
    """The message with its arguments; when they do not fit, both as they are."""
    try:
        return record.getMessage()
    except Exception:
        return f"{shown(record.msg)} % {shown(record.args)}"


def exception_of(record: logging.LogRecord) -> str:
    """Traceback and stack of a record as text; empty without."""
    parts = []
    try:
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(logging.Formatter().formatException(record.exc_info))
        elif record.exc_text:
            parts.append(record.exc_text)
    except Exception as error:
        parts.append(f"its traceback cannot be printed: {shown(error)}")
    return "\n".join([*parts, record.stack_info] if record.stack_info else parts)


def encoded(fields: dict[str, Any]) -> str:
    """JSON of anything: what has no JSON is shown as Python shows it."""
    try:
        return msgspec.json.encode(fields, enc_hook=shown).decode()
    except Exception:  # surrogates, odd keys, a list that holds itself
        plain = {name: value if isinstance(value, (int, float)) else _utf8(value) for name, value in fields.items()}
        return msgspec.json.encode(plain).decode()


def shown(value: object) -> str:
    """How Python shows a value, or its class when that fails."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def _utf8(value: object) -> str:
    text = value if isinstance(value, str) else shown(value)
    return text.encode("utf-8", "backslashreplace").decode()
