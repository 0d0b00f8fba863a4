"""How the commands talk: data to stdout, talk to stderr, and errors that say what to do."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import click

from genesis.core.errors import DefinitionError, GenesisError, SettingsError, StoreError

OK, FAILED, USAGE, UNFIT, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""Exit codes. UNFIT: settings, definition or store. UNREACHABLE: nobody runs, or nobody answers."""
SCHEMA = 1
"""Of all JSON that is printed."""
COLUMNS = 120
"""Width of a table where the terminal does not say its own."""


class Failure(click.ClickException):
    """An error of the person or the world, in words, with its exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def report(error: Exception) -> int:
    """Say what went wrong, in a line or two, and give the exit code."""
    if "debug" in os.environ.get("GENESIS_LOG", "").lower().split(","):
        traceback.print_exception(error)
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else "genesis"
        say(f"{command}: {error.format_message().rstrip('.')}\n  see: {command} --help", failed=True)
        return USAGE
    if isinstance(error, click.ClickException):
        say(f"genesis: {printable(error.format_message())}", failed=True)
        return error.code if isinstance(error, Failure) else error.exit_code
    if isinstance(error, DefinitionError):
        say(printable(str(error)), failed=True)
        return UNFIT
    if isinstance(error, GenesisError):
        say(f"genesis: {printable(str(error))}", failed=True)
        return UNFIT if isinstance(error, SettingsError | StoreError) else FAILED
    what = f"{_guilty(error)}: {type(error).__name__}: {printable(str(error))}"
    say(f"genesis: {what}\n  see it whole: GENESIS_LOG=debug", failed=True)
    return FAILED


def _guilty(error: Exception) -> str:
    """Whose code raised it: ours or the application's."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or os.path.dirname(os.path.dirname(__file__)) in frames[-1].filename:
        return "this is a bug of Genesis"
    return f"{frames[-1].filename}:{frames[-1].lineno}"


Voice = Callable[[str, bool], None]
"""Says a text, and whether something failed."""


def _plainly(text: str, failed: bool) -> None:
    click.echo(text, err=True)


_voice: ContextVar[Voice] = ContextVar("genesis-voice", default=_plainly)


def say(text: str, *, failed: bool = False) -> None:
    """Talk, on stderr. Nobody listening is no reason to stop."""
    with suppress(OSError):
        _voice.get()(text, failed)


@contextmanager
def spoken(voice: Voice) -> Iterator[None]:
    """While the block runs, what is said goes this way: where stderr is read by a program, talk is a line of its log."""
    token = _voice.set(voice)
    try:
        yield
    finally:
        _voice.reset(token)


def show(text: str) -> None:
    """Print data for people, on stdout."""
    click.echo(text)


def deafen() -> None:
    """Print into the void from now on: whoever read our stdout has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_json(fields: dict[str, Any]) -> None:
    """Print data for programs: one object, on one line."""
    import msgspec

    body = msgspec.json.encode({"schema": SCHEMA, **fields}, enc_hook=str)
    click.echo(body.decode())


def pretty(value: Any, indent: int = 2) -> str:
    """A value as JSON for people."""
    import msgspec

    return printable(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=indent).decode())


def unpacked(body: bytes) -> Any:
    """What a stored payload or state holds, as plain values; its bytes where it cannot be read."""
    import msgspec

    try:
        return msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body


def printable(text: str) -> str:
    """Text of others without what would steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing when no name is close."""
    import difflib

    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


# --- times ----------------------------------------------------------------------------------------------------------


def iso(wall: float | None) -> str | None:
    """A time for programs: ISO 8601, UTC."""
    from genesis.runtime.clock import utc

    return utc(wall) if wall is not None else None


def local(wall: float) -> str:
    """A time for people: that of this machine."""
    return datetime.fromtimestamp(wall).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """A duration for people: ``80 us``, ``12 ms``, ``3.2 s``, ``4 min 5 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, smaller in ((86400, "d", "h"), (3600, "h", "min"), (60, "min", "s")):
        if whole >= size:
            part = {"h": 3600, "min": 60, "s": 1}[smaller]
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    raise AssertionError(seconds)


UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment_of(text: str, now: float) -> float:
    """A time of the wall clock from ``30s``, ``10m``, ``2h``, ``1d`` (so long ago) or ISO 8601; local without an offset.

    Raises:
        Failure: it is none of them.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    try:
        if text[len(number) :] in UNITS:
            ago = float(number) * UNITS[text[len(number) :]]
            if 0 <= ago <= now:
                return now - ago
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise Failure(f"{text!r} is no time: write 30s, 10m, 2h, 1d, or 2027-01-15T08:00:00Z", USAGE) from None


# --- looks ----------------------------------------------------------------------------------------------------------


def painted(text: str, colour: str, *, err: bool = False) -> str:
    """Text in a colour for stdout or stderr, where a person looks on and NO_COLOR is not set."""
    wanted = bool(os.environ.get("FORCE_COLOR")) or (sys.stderr if err else sys.stdout).isatty()
    return click.style(text, fg=colour) if wanted and not os.environ.get("NO_COLOR") else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side. The last one is cut at the edge of the terminal, when there is one."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in cells]
    if not sys.stdout.isatty():
        return "\n".join(lines)
    edge = os.get_terminal_size(sys.stdout.fileno()).columns or COLUMNS
    return "\n".join(line if len(line) <= edge else line[: edge - 1] + "…" for line in lines)
