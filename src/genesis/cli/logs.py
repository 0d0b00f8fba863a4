"""The log of `genesis run`: lines for people on a terminal, JSON for programs; on stderr, with all that is said there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from genesis.cli.talk import UNFIT, Failure, did_you_mean, painted, printable, spoken
from genesis.runtime.log import JsonLines, exception_of, fields_of_record, log, message_of, shown

FORMS = ("json", "pretty")
LEVELS = ("debug", "info", "warning", "error")
COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


@contextmanager
def logging_to_stderr(form: str | None) -> Iterator[None]:
    """Log while the block runs, as ``json`` or ``pretty``; by default what GENESIS_LOG says, else what suits stderr.

    Raises:
        Failure: GENESIS_LOG is neither a level nor a form.
    """
    level, wanted = _asked_for(os.environ.get("GENESIS_LOG", ""))
    as_json = (form or wanted or ("pretty" if sys.stderr.isatty() else "json")) == "json"
    handler, root = logging.StreamHandler(sys.stderr), logging.getLogger()
    handler.setFormatter(JsonLines() if as_json else Pretty())
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())

    def as_record(text: str, failed: bool) -> None:
        level = logging.ERROR if failed else logging.INFO
        handler.handle(log.makeRecord(log.name, level, __file__, 0, text.removeprefix("genesis: "), (), None))

    try:
        if as_json:
            with spoken(as_record):
                yield
        else:
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def _asked_for(text: str) -> tuple[str, str | None]:
    """Level and form of ``debug``, ``json``, or ``debug,json``."""
    level, form = "warning", None
    for word in filter(None, text.lower().split(",")):
        if word in FORMS:
            form = word
        elif word in LEVELS:
            level = word
        else:
            known = (*LEVELS, *FORMS)
            hint = did_you_mean(word, known)
            raise Failure(f"GENESIS_LOG is {text!r}: one of {', '.join(LEVELS)}, and json or pretty{hint}", UNFIT)
    return level, form


class Pretty(logging.Formatter):
    """A record for people: local time, level, logger, message, and in the same line whose it is."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the exception."""
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = painted(f"{record.levelname:<8}", COLOURS.get(record.levelname, "reset"), err=True)
        whose = "".join(f"  {name}={value}" for name, value in _shown(fields_of_record(record)).items())
        line = f"{at} {level} {record.name}: {printable(message_of(record) + whose)}"
        thrown = exception_of(record)
        return f"{line}\n{printable(thrown)}" if thrown else line


def _shown(fields: dict[str, object]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else shown(value) for name, value in fields.items()}
