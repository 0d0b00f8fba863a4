"""`genesis tail`: what happens in a store, line by line, read from outside and without a word to its owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from genesis.cli import moment
from genesis.cli.talk import local, moment_of, painted, pretty, printable, say, show, show_json
from genesis.cli.watch import News, Watch
from genesis.cli.where import find_store, open_store
from genesis.core.errors import StoreError
from genesis.engines.outside import Outside

COLOURS = {"dead": "red", "owner": "yellow", "waiting": "cyan", "counted": "reset"}


@click.command()
@click.argument("store", metavar="[STORE]", required=False, envvar="GENESIS_STORE")
@click.option("--since", metavar="TIME", help="Begin with what is there since: 30s, 10m, 2h, 1d, or an ISO time.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after so many lines.")
@click.option("--once", is_flag=True, help="Print what is there (since --since), and end.")
@click.option("--payload", is_flag=True, help="Print payloads too: whatever the events hold.")
@click.option("--every", type=click.FloatRange(min=0.01), default=0.25, show_default=True, metavar="SECONDS", help="Looks.")
@click.option("--jsonl", "as_json", is_flag=True, help="Print JSON, one object a line.")
def tail(
    store: str | None, since: str | None, limit: int | None, once: bool, payload: bool, every: float, as_json: bool
) -> None:
    """Follow what happens in a STORE, whoever runs it, until Ctrl-C: by default the one here.

    Lines: what came and waits, dead letters with their reason, counters that moved, owners that come and go. A store keeps
    what waits and what died; what came and was done between two looks moves the counters only.
    """
    path = find_store(store)
    begin = moment_of(since, moment.wall()) if since is not None else 0.0 if once else None
    left = limit
    for news in _followed(path, Watch(begin), every, once=once):
        _print(news, payload=payload, as_json=as_json)
        if left is not None:
            left -= 1
            if not left:
                return


def _followed(path: Path, watch: Watch, every_s: float, *, once: bool) -> Iterator[News]:
    with open_store(path) as outside:  # one that is not there, or no store, is an error at first
        yield from watch.look(outside, moment.wall())
    if once:
        return
    said, file = "", _file(path)
    while True:
        try:
            with open_store(path) as outside:
                if _file(path) != file:
                    file, said = _file(path), ""
                    watch.another()
                yield from _looks(outside, watch, every_s)
        except StoreError as error:
            if str(error) != said:
                said = str(error)
                say(f"genesis: {printable(said)}; it is looked for again")
            moment.sleep(every_s)


def _looks(outside: Outside, watch: Watch, every_s: float) -> Iterator[News]:
    """Looks at one file, until another one stands in its place."""
    file = _file(outside.path)
    while file is not None and _file(outside.path) == file:
        moment.sleep(every_s)
        yield from watch.look(outside, moment.wall())


def _file(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _print(news: News, *, payload: bool, as_json: bool) -> None:
    fields = news.for_programs()
    if not payload:
        fields.pop("payload", None)
    if as_json:
        show_json(fields)
        return
    show(f"{local(news.at)}  {painted(f'{news.kind:<8}', COLOURS[news.kind])} {printable(_line(news.kind, fields))}")


def _line(kind: str, fields: dict[str, Any]) -> str:
    if kind == "owner":
        does = {"runs": "runs it", "stopped": "closed it in order", "died": "died"}[fields["state"]]
        return f"process {fields['pid']} on {fields['host']} {does}"
    if kind == "counted":
        moved = "  ".join(f"{name} {by:+,}" for name, by in fields["moved"].items())
        return f"{moved}  waiting {fields['waiting']:,}"
    key = f"  key {fields['key']}" if fields["key"] else ""
    body = f"  {pretty(fields['payload'], indent=-1)}" if "payload" in fields else ""
    event = f"{fields['priority']:<10} {fields['component']}  {fields['type']}{key}  id {fields['event_id']}{body}"
    if kind == "waiting":
        return event
    why = ": ".join(filter(None, (fields["reason"], fields["error"], fields["detail"])))
    return f"{event}  {why}  (attempt {fields['attempts']})  genesis dlq show {fields['letter']}".replace("\n", " ")
