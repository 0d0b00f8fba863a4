"""`genesis config`: every setting as it is in force, and where it comes from."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from genesis.cli.options import json_option, settings_options
from genesis.cli.talk import pretty, say, show, show_json, table
from genesis.cli.where import load_app
from genesis.config import Settings, known_settings
from genesis.runtime.own_settings import Given, Origin, Row
from genesis.runtime.secret import shielded


@click.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@click.option("--explain", is_flag=True, help="Also say what each means.")
@click.option("--reveal", is_flag=True, help="Show secrets too.")
@settings_options(*known_settings())
@json_option
def config(app: str | None, settings: Settings, explain: bool, reveal: bool, as_json: bool) -> None:
    """Show every setting as `genesis run` would have it: its value, and where that comes from.

    A flag stands over a GENESIS_* variable, that over genesis.toml (or [tool.genesis] of pyproject.toml), that over the
    default. With MODULE:APP the application's own settings are checked and shown too, and those of its policies that are not
    their default, or all with --explain. Secrets, by the names of settings and the passwords of addresses, are shown as ***
    unless --reveal is given.

    Exit code 3 when a setting is unknown, missing, or does not fit.
    """
    rows = settings.rows()
    if app is not None:
        rows += load_app(app).own_settings().fill(settings.app)[1] + settings.policy_rows(every=explain)
    else:
        rows += _unchecked("app", settings.app) + _unchecked("policy", settings.policies)
    values = {row.name: msgspec.to_builtins(row.value, enc_hook=str) for row in rows}
    if not reveal:
        values = {name: shielded(name, value) for name, value in values.items()}
    file = settings.app.file or None
    if as_json:
        show_json({"file": file, "settings": [_fields(row, values[row.name]) for row in rows]})
        return
    head = ["SETTING", "VALUE", "SOURCE", *["MEANING"] * explain]
    show(table(head, [[row.name, _text(values[row.name]), str(row.origin), *[row.meaning] * explain] for row in rows]))
    say(f"read {file}" if file else "there is no genesis.toml here")
    if app is None and any(given.table or given.variables for given in (settings.app, settings.policies)):
        say("what is there for the application and its policies is checked with it: genesis config MODULE:APP")


def _unchecked(section: str, given: Given) -> list[Row]:
    """What is there for the application or its policies while nobody says which one that is."""
    rows = [Row(f"{section}.{name}", value, given.place((name,))) for name, value in given.table.items()]
    return rows + [Row(variable, text, Origin(variable)) for variable, text in given.variables.items()]


def _fields(row: Row, value: object) -> dict[str, Any]:
    origin = row.origin
    return {
        "name": row.name,
        "value": value,
        "source": origin.name,
        "line": origin.line or None,
        "meaning": row.meaning,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else pretty(value, indent=-1)
