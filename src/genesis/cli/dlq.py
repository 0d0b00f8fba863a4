"""`genesis dlq`: dead letters, and the parked deliveries that wait for a person beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from genesis.cli.letters import Letter, find_letter, letters_of
from genesis.cli.talk import FAILED, USAGE, Failure, iso, local, pretty, printable, say, show, show_json, table
from genesis.cli.where import F, find_store, json_option, open_store, store_option, store_path

CHUNK = 100
"""Letters of one request: each is a commit of its own for the owner."""


@click.group()
def dlq() -> None:
    """Look at dead letters, replay them, or drop them.

    A delivery that ended without success is kept whole as a dead letter. A parked one has spent its attempts and waits
    for a person, and its key with it.
    """


@dlq.command("list")
@store_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many of the newest.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out so many of the newest: the page before.")
@json_option
def list_letters(store: str | None, limit: int, skip: int, as_json: bool) -> None:
    """List dead letters and parked deliveries, newest last."""
    outside = open_store(find_store(store))
    total, page = letters_of(outside, limit, skip)
    if as_json:
        show_json({"total": total, "letters": [_summary(letter) for letter in page]})
        return
    if not total:
        say("no dead letters")
        return
    rows = [
        [
            letter.key,
            local(letter.at),
            letter.delivery.component or "-",
            letter.delivery.type,
            letter.delivery.event_id,
            str(letter.attempts),
            f"{letter.reason}: {letter.detail}" if letter.detail else letter.reason,
        ]
        for letter in page
    ]
    if rows:
        show(table(["KEY", "SINCE", "COMPONENT", "TYPE", "EVENT", "TRIES", "REASON"], rows))
    if len(page) < total:
        say(f"{len(page)} of {total}; earlier ones: --skip {skip + limit}, or all with --limit {total}")


@dlq.command("show")
@click.argument("key")
@store_option
@json_option
def show_letter(key: str, store: str | None, as_json: bool) -> None:
    """Show one dead letter or parked delivery whole."""
    letter = find_letter(open_store(find_store(store)), key)
    delivery = letter.delivery
    details = {
        **_summary(letter),
        "address": delivery.address,
        "born_at": iso(delivery.born_at),
        "kind": letter.kind,
        "headers": delivery.headers or {},
        "payload": letter.payload,
        "app_version": letter.app_version,
        "state_version": letter.state_version,
        "traceback": letter.traceback,
    }
    if as_json:
        show_json(details)
        return
    for name in (
        "key",
        "state",
        "reason",
        "detail",
        "error",
        "attempts",
        "component",
        "type",
        "address",
        "event_id",
        "source",
    ):
        show(f"{name.replace('_', ' '):<10} {printable(str(details[name]))}")
    show(f"{'priority':<10} {details['priority']}")
    show(f"{'born':<10} {local(delivery.born_at)}")
    show(f"{'since':<10} {local(letter.at)}")
    show(f"{'headers':<10} {pretty(details['headers'])}")
    show(f"{'payload':<10} {pretty(details['payload'])}")
    if letter.traceback:
        show(printable(letter.traceback.rstrip()))
    say(f"next: genesis dlq replay {letter.key}, or genesis dlq drop {letter.key}")


def _act(command: F) -> F:
    """What `replay` and `drop` take."""
    from genesis.cli.desk import app_option, timeout_option

    keys = click.argument("keys", metavar="[KEY...]", nargs=-1)
    every = click.option("--all", "every", is_flag=True, help="Every one that is there now.")
    return keys(every(store_option(app_option(timeout_option(json_option(command))))))


@dlq.command()
@_act
def replay(
    keys: tuple[str, ...], every: bool, store: str | None, app: str | None, timeout: float, as_json: bool
) -> None:
    """Bring dead letters back, with fresh attempts and all they had done outside once.

    The process that runs does it; when nobody does, --app opens the store here.
    """
    path, opened = _place(store, app)
    wanted = _wanted(path, keys, every)
    _perform("replay", wanted, path, opened, timeout, as_json)


@dlq.command()
@_act
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    keys: tuple[str, ...], every: bool, store: str | None, app: str | None, timeout: float, as_json: bool, yes: bool
) -> None:
    """Remove dead letters for good. Asks first, unless --yes.

    The process that runs does it; when nobody does, --app opens the store here.
    """
    path, opened = _place(store, app)
    wanted = _wanted(path, keys, every)
    if wanted and not yes:
        if not sys.stdin.isatty():
            raise Failure(f"this would drop {_counted(wanted)} for good: say --yes", USAGE)
        if not click.confirm(f"Drop {_counted(wanted)} for good?", err=True):
            raise Failure("nothing was dropped", FAILED)
    _perform("drop", wanted, path, opened, timeout, as_json)


def _place(store: str | None, app: str | None) -> tuple[Path, Any]:
    from genesis.cli.desk import app_of

    opened = app_of(app)
    return store_path(store or f"{opened.name}.db") if opened is not None else find_store(store), opened


def _wanted(path: Path, keys: tuple[str, ...], every: bool) -> list[str]:
    """Whole keys of the letters that are meant, each of which is there."""
    if bool(keys) == every:
        raise Failure("name the keys of dead letters (genesis dlq list shows them), or --all", USAGE)
    outside = open_store(path)
    if every:
        return [letter.key for letter in letters_of(outside, None)[1]]
    return list(dict.fromkeys(find_letter(outside, key).key for key in keys))


def _counted(keys: list[str]) -> str:
    return f"{len(keys):,} dead letter{'s' * (len(keys) != 1)}"


def _perform(act: str, keys: list[str], path: Path, app: Any, timeout_s: float, as_json: bool) -> None:
    from genesis.cli.desk import Desk, with_owner
    from genesis.runtime.operate import Request

    done: list[str] = []
    missing: list[str] = []

    def work(desk: Desk) -> None:
        for start in range(0, len(keys), CHUNK):
            for answer in desk.ask([Request(act, dead=keys[start : start + CHUNK])]):
                if "error" in answer:
                    raise Failure(f"{answer['error']}; {len(done)} of {len(keys)} were done", FAILED)
                done.extend(answer["done"])
                missing.extend(answer["missing"])

    if keys:
        with_owner(path, app, timeout_s, work)
    _told(act, done, missing, as_json)


def _told(act: str, done: list[str], missing: list[str], as_json: bool) -> None:
    if as_json:
        show_json({"done": done, "missing": missing})
    else:
        show(f"{'replayed' if act == 'replay' else 'dropped'} {_counted(done)}")
    if missing:
        raise Failure(f"no longer there: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}", FAILED)


def _summary(letter: Letter) -> dict[str, Any]:
    delivery = letter.delivery
    return {
        "key": letter.key,
        "state": letter.state,
        "since": iso(letter.at),
        "component": delivery.component,
        "type": delivery.type,
        "event_id": delivery.event_id,
        "source": delivery.source,
        "priority": letter.priority,
        "reason": letter.reason,
        "detail": letter.detail,
        "error": letter.error,
        "attempts": letter.attempts,
    }
