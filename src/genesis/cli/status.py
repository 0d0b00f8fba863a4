"""`genesis status`: where an application stands, on one screen."""

from __future__ import annotations

from typing import Any

import click

from genesis.cli import moment
from genesis.cli.health import Health, examine, for_programs
from genesis.cli.options import json_option, store_option
from genesis.cli.talk import FAILED, OK, lasting, painted, printable, show, show_json
from genesis.cli.where import find_store, open_store
from genesis.cli.why import obstacles_of, told
from genesis.config import Settings

WORDS = {
    "running": ("RUNNING", "green"),
    "stopped": ("STOPPED", "yellow"),
    "died": ("DIED", "red"),
    "new": ("NEW", "yellow"),
}
QUIET_S = 10.0
"""Deliveries that wait in lanes while nothing is committed for this long deserve a word."""
CUT = 100
"""Characters of a position or an error that are shown."""


@click.command()
@store_option
@click.option("--why", is_flag=True, help="Say what stands in the way instead, and what to do about it.")
@json_option
@click.pass_context
def status(ctx: click.Context, /, settings: Settings, why: bool, as_json: bool) -> None:
    """Show where an application stands, read from its store, whether or not it runs.

    Exit code 0 when the ledger adds up and a process runs or has stopped in order, else 1.
    """
    with open_store(find_store(settings.store)) as outside:
        health = examine(outside)
        obstacles = list(obstacles_of(health, outside, moment.wall())) if why else []
    fields = for_programs(health)
    if as_json:
        show_json({**fields, "why": [obstacle.for_programs() for obstacle in obstacles]} if why else fields)
    elif why:
        show("\n".join([_headline(health, fields), *told(obstacles)]))
    else:
        show("\n".join(_screen(health, fields)))
    ctx.exit(OK if health.well else FAILED)


def _screen(health: Health, fields: dict[str, Any]) -> list[str]:
    ledger = health.ledger
    return [
        _headline(health, fields),
        _verdict(health),
        f"  offered {ledger.offered:,} = accepted {ledger.accepted:,} + refused {ledger.refused:,}"
        f" + duplicate {ledger.duplicate:,}",
        f"  born {ledger.born:,} (external {ledger.external:,}, emitted {ledger.emitted:,}, timer {ledger.timer:,},"
        f" replay {ledger.replay:,}) =",
        f"    done {ledger.done:,} + expired {ledger.expired:,} + dead {ledger.dead:,} + waiting {ledger.waiting:,}"
        f" (lanes {ledger.in_lanes:,}, pending {ledger.in_pending:,}, outbox {ledger.in_outbox:,}); retries {ledger.retries:,}",
        _row("waiting", {name: f"{count:,}" for name, count in fields["waiting"].items()}),
        *_pending(fields),
        *_sources(fields),
        *_sinks(fields),
        *_handlers(fields),
        *_latency(fields),
        *_next(health),
    ]


def _headline(health: Health, fields: dict[str, Any]) -> str:
    word, colour = WORDS[health.state]
    who = ""
    if health.owner is not None:
        pid, host, alive = health.owner
        who = f"{'pid' if alive else 'last pid'} {pid} on {host}"
    name = printable(fields["app"] or "-")
    ago = lasting(max(0.0, moment.wall() - health.written_at))
    return f"{painted(word, colour)}  {name}  {printable(str(health.path))}  {who}  last write {ago} ago"


def _verdict(health: Health) -> str:
    if health.imbalance:
        return painted(f"ledger   DOES NOT ADD UP: {health.imbalance}", "red")
    rows = "rows counted" if health.counted is not None else "too busy to count the rows"
    return f"ledger   adds up ({rows if health.head is not None else 'nothing happened yet'})"


def _row(title: str, cells: dict[str, str]) -> str:
    return f"{title:<8} " + "   ".join(f"{name} {cell}" for name, cell in cells.items())


def _pending(fields: dict[str, Any]) -> list[str]:
    reasons: dict[str, int] = fields["pending"]["reasons"]
    lines = [_row("pending", {name: f"{count:,}" for name, count in sorted(reasons.items())})] if reasons else []
    return [*lines, f"dead     {fields['dead_letters']:,} letters kept"]


def _sources(fields: dict[str, Any]) -> list[str]:
    lines = []
    for name, source in fields["sources"].items():
        error = f"  {source['error']}" if source["error"] else ""
        lines.append(f"source   {name} {source['state'] or 'not running'}  at {str(source['position'])[:CUT]}{error[:CUT]}")
    return [printable(line) for line in lines]


def _sinks(fields: dict[str, Any]) -> list[str]:
    lines = []
    for name, sink in fields["sinks"].items():
        error = f"  {sink['error']}" if sink["error"] else ""
        lines.append(f"sink     {name} {sink['state'] or 'not running'}  {sink['waiting']:,} wait{error[:CUT]}")
    return [printable(line) for line in lines]


def _handlers(fields: dict[str, Any]) -> list[str]:
    lines = [f"paused   {route}: tried again in {lasting(s)}" for route, s in fields["paused_s"].items()]
    lines += [f"circuit  {name} {found['state']}: {found['why']}" for name, found in fields["circuits"].items()]
    if fields["stuck"]:
        lines.append(f"stuck    {fields['stuck']} handlers ignore their timeout")
    return [printable(line) for line in lines]


def _latency(fields: dict[str, Any]) -> list[str]:
    sketches: dict[str, dict[str, float]] = fields["latency_s"] or {}
    cells = {name: f"{lasting(s['p50'])} / {lasting(s['p99'])}" for name, s in sketches.items()}
    return [_row("p50/p99", cells)] if cells else []


def _next(health: Health) -> list[str]:
    if health.state == "died":
        return ["next     start it again: nothing that was accepted is lost; what was running runs again"]
    quiet_s = moment.wall() - health.written_at
    if health.alive and health.ledger.in_lanes and not health.told.get("paused") and quiet_s > QUIET_S:
        return [
            f"next     {health.ledger.in_lanes:,} wait, and nothing was committed for {lasting(quiet_s)}: are handlers slow?"
        ]
    if health.dead or health.reasons.get("parked"):
        return ["next     genesis dlq list"]
    return []
