"""`genesis bench`: what this machine and this application do, on a store that is made for it and removed."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from genesis.cli import bench_app
from genesis.cli.disk import sync_times
from genesis.cli.letters import letters_of
from genesis.cli.load import SENDERS, Figures, measure
from genesis.cli.options import json_option, settings_options
from genesis.cli.run import SWITCH_S
from genesis.cli.talk import FAILED, OK, USAGE, Failure, lasting, printable, say, show, show_json, table
from genesis.cli.where import load_app, load_resources, open_store
from genesis.config import Settings
from genesis.runtime.definition import Definition
from genesis.runtime.log import silence
from genesis.runtime.release import version

SYNCS = 100
DRAIN_S = 1.0
"""At the end, or after Ctrl-C: what it would save is thrown away."""


@click.command()
@click.argument("app", metavar="[MODULE:APP", required=False)
@click.argument("type", metavar="TYPE", required=False)
@click.argument("file", metavar="FILE]", required=False)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, metavar="X", help="Of each load.")
@click.option(
    "--folder", metavar="FOLDER", help="On whose disk; by default the one of the store that the settings name, or here."
)
@click.option(
    "--resources",
    metavar="NAME",
    help="A mapping of the module, from types to what is given instead of the resources of the application.",
)
@settings_options("slots", "threads", "window_bytes", "cache_bytes")
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    app: str | None,
    type: str | None,
    file: str | None,
    seconds: float,
    folder: str | None,
    resources: str | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Measure this machine: events a second, and how long one takes at half of that rate, beside a sync of the disk.

    The job adds amounts to totals. With MODULE:APP it is yours: the lines of FILE (- is stdin), each the JSON object of an
    event of TYPE as `genesis send` takes them, are sent again and again, each time with a new id. Its handlers and schedules
    run for real, with its resources unless others are given; its sources do not. The store is a temporary one.

    Exit code 1 when events end as dead letters, or do not end.
    """
    disk = _folder(folder, settings)
    definition, kind, lines = _job(app, type, file, settings, resources)
    sys.setswitchinterval(SWITCH_S)
    with _temporary(disk) as place:
        syncs_s = sorted(sync_times(place, SYNCS))
        store = place / "bench.db"
        with silence():
            figures = asyncio.run(
                measure(definition, store, replace(settings, store=str(store), drain_s=DRAIN_S), kind, lines, seconds)
            )
        disk_bytes = sum(found.stat().st_size for found in place.iterdir())
        reason = _reason(store) if figures.ledger.dead else ""
    fields = {
        "app": definition.name,
        "type": kind,
        "seconds": seconds,
        **_measured(figures),
        "sync_ms": {"p50": _ms(syncs_s[len(syncs_s) // 2]), "p99": _ms(syncs_s[len(syncs_s) * 99 // 100])},
        "disk_bytes": disk_bytes,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "genesis": version(), "folder": str(disk)},
    }
    if as_json:
        show_json(fields)
    else:
        show(_table(fields))
    if reason:
        say(f"genesis: {figures.ledger.dead:,} deliveries are dead letters, such as: {printable(reason)}", failed=True)
    ctx.exit(FAILED if reason else OK)


# --- what is measured -----------------------------------------------------------------------------------------------


def _job(
    app: str | None, kind: str | None, file: str | None, settings: Settings, resources: str | None
) -> tuple[Definition, str, list[tuple[str, bytes]]]:
    """The application, the type of its messages, and these, each with its place for people."""
    if app is None:
        if resources is not None:
            raise Failure("--resources are those of an application: genesis bench MODULE:APP TYPE FILE --resources NAME", USAGE)
        return bench_app.app.definition(), "bench.added", [("", line) for line in bench_app.lines()]
    definition = load_app(app).definition(resources=load_resources(app, resources), given=settings.app)
    if kind is None or file is None:
        kinds = ", ".join(sorted(definition.by_type))
        raise Failure(f"name a type and a file of messages, one a line: genesis bench {app} TYPE FILE; types: {kinds}", USAGE)
    definition.routes_of(kind)
    lines = [(f"{file}:{number}", line) for number, line in enumerate(_read(file).splitlines(), 1) if line.strip()]
    if not lines:
        raise Failure(f"{file} has no messages: one JSON object a line", USAGE)
    return definition, kind, lines


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", USAGE) from error


def _folder(folder: str | None, settings: Settings) -> Path:
    in_memory = not settings.store or settings.store in ("memory:", ":memory:")
    return Path(folder or (Path.cwd() if in_memory else Path(settings.store.removeprefix("sqlite:")).absolute().parent))


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A folder in this one, which is removed."""
    try:
        place = tempfile.TemporaryDirectory(dir=folder, prefix=".genesis-bench-", ignore_cleanup_errors=True)
    except OSError as error:
        raise Failure(f"{folder} cannot be written: {error.strerror}; name another with --folder", FAILED) from error
    with place as name:
        yield Path(name)


def _reason(store: Path) -> str:
    """Why a delivery is a dead letter."""
    with open_store(store) as outside:
        _, letters = letters_of(outside, 1)
    return ": ".join(filter(None, (letters[0].reason, letters[0].error, letters[0].detail)))


# --- what was measured ----------------------------------------------------------------------------------------------


def _measured(figures: Figures) -> dict[str, Any]:
    latency = {"p50": _ms(figures.quantile_s(0.5)), "p99": _ms(figures.quantile_s(0.99)), "max": _ms(figures.quantile_s(1.0))}
    return {
        "events": figures.events,
        "events_per_s": round(figures.events_per_s, 1),
        "offered_per_s": round(figures.offered_per_s, 1),
        "latency_ms": latency,
        "dead": figures.ledger.dead,
        "retries": figures.ledger.retries,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _table(fields: dict[str, Any]) -> str:
    latency, sync, machine = fields["latency_ms"], fields["sync_ms"], fields["machine"]
    rows = [
        ["events a second", f"{fields['events_per_s']:,.0f}", f"durable and done, {SENDERS} senders that wait for receipts"],
        ["p50", _time(latency["p50"]), f"from due to done, at {fields['offered_per_s']:,.0f} events a second"],
        ["p99", _time(latency["p99"]), f"99 of 100; the slowest took {_time(latency['max'])}"],
        ["a sync of the disk", _time(sync["p50"]), f"4 KiB, nothing beside it; 99 of 100 within {_time(sync['p99'])}"],
        ["on disk", f"{fields['disk_bytes'] / 2**20:.1f} MiB", f"the store after {fields['events']:,} events"],
    ]
    if fields["dead"] or fields["retries"]:
        rows.append(["failed", f"{fields['dead']:,}", f"dead letters; {fields['retries']:,} retries"])
    title = f"{fields['app']}  {fields['type']}  at {machine['folder']}, {machine['cores']} cores, Python {machine['python']}"
    return f"{printable(title)}\n{table(['FIGURE', 'VALUE', 'MEANS'], rows)}"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else lasting(milliseconds / 1e3)
