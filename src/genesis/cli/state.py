"""`genesis state`: what components keep, as the last commit left it."""

from __future__ import annotations

from typing import Any

import click

from genesis.cli.options import json_option, store_option
from genesis.cli.talk import FAILED, Failure, did_you_mean, pretty, printable, say, show, show_json, table, unpacked
from genesis.cli.where import find_store, open_store
from genesis.config import Settings
from genesis.engines.outside import Outside

PAGE = 500


@click.group()
def state() -> None:
    """Look at the committed state of components."""


@state.command()
@click.argument("component")
@click.argument("key", default="", metavar="[KEY]")
@store_option
@json_option
def get(component: str, key: str, settings: Settings, as_json: bool) -> None:
    """Print the state of one KEY of a COMPONENT; a single component has no key."""
    address = f"{component}/{key}"
    with open_store(find_store(settings.store)) as outside:
        rows = [row for found, row in outside.scan_state(address, limit=1) if found == address]
        if not rows:
            _check_component(outside, component)
    if not rows:
        of = f"for key {key!r}" if key else "without a key"
        raise Failure(
            f"nothing is stored of {component} {of}: genesis state list {component} shows what is; any other state is the"
            " initial one",
            FAILED,
        )
    version, fields = rows[0][0], unpacked(rows[0][1])
    if as_json:
        show_json({"component": component, "key": key, "version": version, "state": fields})
        return
    show(pretty(fields))
    say(f"version {version}")


@state.command("list")
@click.argument("component")
@click.option("--prefix", default="", help="Only keys that start so.")
@click.option("--after", default="", metavar="KEY", help="Only keys behind this one: the next page.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@store_option
@json_option
def list_states(component: str, prefix: str, after: str, limit: int, settings: Settings, as_json: bool) -> None:
    """List the states of a COMPONENT, in the order of their keys."""
    with open_store(find_store(settings.store)) as outside:
        rows = _page(outside, component, prefix, after, limit + 1)
        if not rows:
            _check_component(outside, component)
    more, rows = len(rows) > limit, rows[:limit]
    if as_json:
        states = [{"key": key, "version": version, "state": fields} for key, version, fields in rows]
        show_json({"component": component, "states": states, "more": more})
        return
    if rows:
        show(table(["KEY", "VERSION", "STATE"], [[key, str(v), pretty(fields, indent=-1)] for key, v, fields in rows]))
    else:
        those = [f"with {prefix!r}"] * bool(prefix) + [f"behind {after!r}"] * bool(after)
        say(f"nothing is stored of {printable(component)} {' and '.join(those)}".rstrip())
    if more:
        say(f"there are more: --after {rows[-1][0]!r}")


def _page(outside: Outside, component: str, prefix: str, after: str, limit: int) -> list[tuple[str, int, Any]]:
    begin = f"{component}/"
    last = begin + after if after else ""
    found: list[tuple[str, int, Any]] = []
    while len(found) < limit:
        wanted = min(PAGE, limit - len(found))
        rows = outside.scan_state(begin + prefix, last, wanted)
        found += [(address[len(begin) :], version, unpacked(body)) for address, (version, body) in rows]
        if len(rows) < wanted:
            break
        last = rows[-1][0]
    return found


def _check_component(outside: Outside, component: str) -> None:
    """Raises Failure when no component of that name keeps state here."""
    known = [key.removeprefix("state:") for key, _ in outside.scan("fact") if key.startswith("state:")]
    if component not in known:
        names = did_you_mean(component, known) or f"; there are {', '.join(known) or 'none'}"
        raise Failure(f"no component {component!r} keeps state in {outside.path}{names}", FAILED)
