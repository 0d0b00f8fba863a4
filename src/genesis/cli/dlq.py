"""`genesis dlq`: dead letters, and the parked deliveries that wait for a person beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from genesis.cli.letters import Letter, find_letter, keys_of, letters_of
from genesis.cli.options import F, app_option, json_option, store_option, timeout_option
from genesis.cli.talk import FAILED, USAGE, Failure, iso, local, pretty, printable, say, show, show_json, table
from genesis.cli.where import find_both, find_store, open_store
from genesis.config import Settings

CHUNK = 100
"""Letters of one request: each is a commit of its own for the owner."""


@click.group()
def dlq() -> None:
    """Look at dead letters, replay them, or drop them.

    A delivery that ended without success is kept whole as a dead letter. A parked one has spent its attempts and waits
    for a person, and its key with it.
    """


# --- looking --------------------------------------------------------------------------------------------------------


@dlq.command("list")
@store_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many of the newest.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out so many of the newest: the page before.")
@json_option
def list_letters(settings: Settings, limit: int, skip: int, as_json: bool) -> None:
    """List dead letters and parked deliveries, newest last."""
    with open_store(find_store(settings.store)) as outside:
        total, page = letters_of(outside, limit, skip)
    if as_json:
        show_json({"total": total, "letters": [_summary(letter) for letter in page]})
        return
    if page:
        show(table(["KEY", "SINCE", "COMPONENT", "TYPE", "EVENT", "TRIES", "REASON"], [_row(letter) for letter in page]))
    if skip >= total:
        say(f"there are only {total}" if total else "no dead letters")
    elif len(page) < total - skip:
        say(f"{len(page)} of {total}; earlier ones: --skip {skip + limit}, or all with --limit {total}")


def _row(letter: Letter) -> list[str]:
    delivery = letter.delivery
    why = f"{letter.reason}: {letter.detail}" if letter.detail else letter.reason
    at, component = local(letter.at), delivery.component or "-"
    return [letter.key, at, component, delivery.type, delivery.event_id, str(letter.attempts), why]


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


@dlq.command("show")
@click.argument("key")
@store_option
@json_option
def show_letter(key: str, settings: Settings, as_json: bool) -> None:
    """Show one dead letter or parked delivery whole."""
    with open_store(find_store(settings.store)) as outside:
        letter = find_letter(outside, key)
    details = {
        **_summary(letter),
        "address": letter.delivery.address,
        "kind": letter.kind,
        "born_at": iso(letter.delivery.born_at),
        "app_version": letter.app_version,
        "state_version": letter.state_version,
        "headers": letter.delivery.headers or {},
        "payload": letter.payload,
        "traceback": letter.traceback,
    }
    if as_json:
        show_json(details)
        return
    details.update(since=local(letter.at), born_at=local(letter.delivery.born_at))
    for name, value in details.items():
        if name != "traceback" and value not in ("", {}, 0):
            text = value if isinstance(value, str) else pretty(value)
            show(f"{name.replace('_', ' '):<13} {printable(text)}")
    if letter.traceback:
        show(printable(letter.traceback.rstrip()))
    say(f"next: genesis dlq replay {letter.key}, or genesis dlq drop {letter.key}")


# --- acting ---------------------------------------------------------------------------------------------------------


def _act(command: F) -> F:
    """What `replay` and `drop` take."""
    keys = click.argument("keys", metavar="[KEY...]", nargs=-1)
    every = click.option("--all", "every", is_flag=True, help="Every one that is there now.")
    return keys(every(store_option(app_option(timeout_option(json_option(command))))))


@dlq.command()
@_act
def replay(keys: tuple[str, ...], every: bool, **given: Any) -> None:
    """Bring dead letters back, with fresh attempts; what they did outside once is not done again.

    The process that runs does it; when nobody does, --app opens the store here.
    """
    _perform("replay", keys, every, **given)


@dlq.command()
@_act
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(keys: tuple[str, ...], every: bool, yes: bool, **given: Any) -> None:
    """Remove dead letters for good. Asks first, unless --yes.

    The process that runs does it; when nobody does, --app opens the store here.
    """

    def sure(wanted: list[str]) -> None:
        if yes or not wanted:
            return
        if not sys.stdin.isatty():
            raise Failure(f"this would drop {_counted(wanted)} for good: say --yes", USAGE)
        if not click.confirm(f"Drop {_counted(wanted)} for good?", err=True):
            raise Failure("nothing was dropped", FAILED)

    _perform("drop", keys, every, sure, **given)


def _perform(
    act: str,
    keys: tuple[str, ...],
    every: bool,
    sure: Callable[[list[str]], None] | None = None,
    *,
    settings: Settings,
    app: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    from genesis.cli.desk import Desk, with_owner
    from genesis.runtime.operate import Request

    if bool(keys) == every:
        raise Failure("name the keys of dead letters (genesis dlq list shows them), or --all", USAGE)
    path, opened = find_both(settings.store, app)
    with open_store(path) as outside:
        found = keys_of(outside) if every else [find_letter(outside, key).key for key in keys]
    wanted = list(dict.fromkeys(found))
    if sure is not None:
        sure(wanted)
    done: list[str] = []

    def work(desk: Desk) -> None:
        for start in range(0, len(wanted), CHUNK):
            for answer in desk.ask([Request(act, dead=wanted[start : start + CHUNK])]):
                if "error" in answer:
                    raise Failure(f"{answer['error']}; {len(done)} of {len(wanted)} were done", FAILED)
                done.extend(answer["done"])

    if wanted:
        with_owner(path, opened, settings, timeout, work)
    missing = [key for key in wanted if key not in set(done)]
    if as_json:
        show_json({"done": done, "missing": missing})
    else:
        show(f"{'replayed' if act == 'replay' else 'dropped'} {_counted(done)}")
    if missing:
        raise Failure(f"no longer there: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}", FAILED)


def _counted(keys: list[str]) -> str:
    return f"{len(keys):,} dead letter{'s' * (len(keys) != 1)}"
