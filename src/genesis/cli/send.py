"""`genesis send`: events by hand or from a pipe, accepted by the process that runs."""

from __future__ import annotations

import queue
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from genesis.cli.desk import Answer, Desk, with_owner
from genesis.cli.options import app_option, json_option, store_option, timeout_option
from genesis.cli.talk import FAILED, USAGE, Failure, deafen, printable, say, show, show_json
from genesis.cli.where import find_both
from genesis.config import Settings
from genesis.core.event import Priority
from genesis.runtime.operate import Request

WINDOW = 128
"""Lines of a pipe that are filed together: the owner looks for requests twenty times a second."""


@dataclass(slots=True)
class Tally:
    """What became of the events of one call."""

    as_json: bool
    accepted: int = 0
    failures: list[str] = field(default_factory=list)

    def note(self, line: int, kind: str, answer: Answer) -> None:
        """Print a receipt, or say why there is none. `line` is 0 for an event that was no line."""
        if "error" in answer:
            self.fail(_at(line) + answer["error"], aloud=bool(line))
            return
        self.accepted += 1
        try:
            self._print(kind, answer["receipt"])
        except BrokenPipeError:
            deafen()  # the events are what counts: they are sent whether or not somebody reads the receipts

    def _print(self, kind: str, receipt: dict[str, Any]) -> None:
        if self.as_json:
            show_json(receipt)
        elif receipt["duplicate"]:
            show(f"duplicate  {kind}  id {receipt['id']}: it had been accepted before")
        else:
            to = f"{receipt['deliveries']} component{'s' * (receipt['deliveries'] != 1)}"
            show(f"accepted  {kind}  id {receipt['id']}  for {to}")

    def fail(self, why: str, *, aloud: bool = True) -> None:
        """Count one that was not accepted; one among many is told at once."""
        self.failures.append(why)
        if aloud:
            say(f"genesis: {printable(why)}")


def _at(line: int) -> str:
    return f"line {line}: " if line else ""


@click.command()
@click.argument("type", metavar="TYPE")
@click.argument("body", metavar="[JSON | -]", required=False)
@store_option
@app_option
@click.option("--id", "event_id", metavar="ID", help="Sent again with the same id and source, it is a duplicate.")
@click.option("--source", metavar="S", help="Who sends it; by default the application's name.")
@click.option(
    "--priority",
    type=click.Choice([p.name.lower() for p in Priority], case_sensitive=False),
    help="Instead of its type's.",
)
@timeout_option
@json_option
def send(
    type: str, body: str | None, settings: Settings, app: str | None, timeout: float, as_json: bool, **given: str | None
) -> None:
    """Send an event of a TYPE, its fields as a JSON object: genesis send shop.order.placed '{"sku": "tea"}'.

    With - or without JSON, each line of stdin is the JSON object of one event. An event is accepted when its receipt is
    printed: it is durable then. When nobody runs the store, --app opens it here for as long as it takes.

    Exit code 1 when an event was refused, 4 when nobody answers.
    """
    if given["event_id"] == "":
        raise Failure("--id is empty: events with one id are one event", USAGE)
    path, opened = find_both(settings.store, app)
    tally = Tally(as_json)
    envelope = Request("send", type=type, source=given["source"], priority=given["priority"])
    if body is not None and body != "-":
        request = _filled(envelope, _fields(body, 0), given["event_id"])
        with_owner(path, opened, settings, timeout, lambda desk: _send_one(desk, request, tally))
    else:
        if given["event_id"] is not None:
            raise Failure("--id is for one event: give its JSON as an argument, not on stdin", USAGE)
        if sys.stdin.isatty():
            say("genesis: one JSON object a line; Ctrl-D ends")
        with_owner(path, opened, settings, timeout, lambda desk: _send_lines(desk, envelope, tally))
    _end(tally)


def _send_one(desk: Desk, request: Request, tally: Tally) -> None:
    try:
        for answer in desk.ask([request]):
            tally.note(0, request.type, answer)
    except Failure as failure:
        raise Failure(
            f"{failure.message}; it may have been accepted: repeat it with --id {request.id}", failure.code
        ) from failure


def _send_lines(desk: Desk, envelope: Request, tally: Tally) -> None:
    for lines in _windows():
        requests: list[tuple[int, Request]] = []
        for number, text in lines:
            try:
                requests.append((number, _filled(envelope, _fields(text, number), None)))
            except Failure as failure:
                tally.fail(failure.message)
        waiting = iter(requests)
        number = lines[0][0]
        try:
            for answer in desk.ask([request for _, request in requests]):
                number, request = next(waiting)
                tally.note(number, request.type, answer)
        except Failure as failure:
            number = next(waiting, (number, None))[0]
            before = f"{tally.accepted} were accepted before it"
            raise Failure(f"line {number}: {failure.message}; {before}", failure.code) from failure


def _end(tally: Tally) -> None:
    if not tally.failures:
        return
    total = tally.accepted + len(tally.failures)
    raise Failure(tally.failures[0] if total == 1 else f"{len(tally.failures)} of {total} events were not accepted", FAILED)


def _filled(envelope: Request, fields: dict[str, Any], event_id: str | None) -> Request:
    return msgspec.structs.replace(envelope, fields=fields, id=event_id or f"cli-{secrets.token_hex(8)}")


def _fields(text: str | bytes, line: int) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Failure(f"{_at(line)}this is not JSON: {error}: {_short(text)}", USAGE) from error
    if not isinstance(fields, dict):
        raise Failure(f'{_at(line)}the fields are a JSON object, such as {{"sku": "tea"}}, not {_short(text)}', USAGE)
    return fields


def _short(text: str | bytes) -> str:
    text = (text.decode(errors="replace") if isinstance(text, bytes) else text).strip()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _windows() -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines of stdin as they come: what has come by the time of a look, `WINDOW` at the most."""
    lines: queue.Queue[tuple[int, bytes] | None] = queue.Queue(maxsize=4 * WINDOW)
    threading.Thread(target=_read, args=(lines,), name="genesis-stdin", daemon=True).start()
    line = lines.get()
    while line is not None:
        window = [line]
        while line is not None and len(window) < WINDOW and not lines.empty():
            line = lines.get()
            if line is not None:
                window.append(line)
        yield window
        if line is not None:
            line = lines.get()


def _read(lines: queue.Queue[tuple[int, bytes] | None]) -> None:
    # Not through sys.stdin: the end of the interpreter would wait for this thread to let go of it.
    with open(sys.stdin.fileno(), "rb", closefd=False) as stdin:
        for number, text in enumerate(stdin, start=1):
            if text.strip():
                lines.put((number, text))
    lines.put(None)
