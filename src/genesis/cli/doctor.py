"""`genesis doctor`: is this machine fit, and is this store whole? Each finding says what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import click

from genesis.cli import moment
from genesis.cli.disk import examine_disk
from genesis.cli.finding import Finding
from genesis.cli.health import Health, examine
from genesis.cli.options import json_option, setting_flags
from genesis.cli.talk import FAILED, OK, Failure, local, painted, printable, show, show_json
from genesis.cli.where import find_store, open_store, stores_in
from genesis.config import Settings
from genesis.core.errors import SettingsError, StoreError
from genesis.runtime.release import version

PYTHON = (3, 11)
LIBRARIES = ("msgspec", "click")
CLOCK_S = 2.0
"""Difference of two clocks that is no trouble."""
EPOCH = 1_735_689_600.0
"""1 January 2025: a clock before it was never set."""


@click.command()
@setting_flags("store")
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, config: str | None, store: str | None, as_json: bool) -> None:
    """Check this machine and, where there is one, the store.

    Exit code 1 when something is wrong.
    """
    findings = []
    for finding in _findings(config, store):
        findings.append(finding)
        if not as_json:
            show(_line(finding))
    well = all(finding.ok for finding in findings)
    if as_json:
        show_json({"well": well, "checks": [asdict(finding) for finding in findings]})
    ctx.exit(OK if well else FAILED)


def _line(finding: Finding) -> str:
    mark = painted("[ok]", "green") if finding.ok else painted("[!!]", "red")
    text = printable(f"{finding.name:<10} {finding.found}")
    return f"{mark} {text}" + (f"\n{'':<15} -> {printable(finding.next)}" if finding.next else "")


def _findings(config: str | None, store: str | None) -> Iterator[Finding]:
    yield _python()
    yield _libraries()
    settings = Settings(store=store or os.environ.get("GENESIS_STORE", ""))
    try:
        settings = Settings.load(file=config, flags={"store": store} if store else {})
        read = f"{settings.app.file} and " if settings.app.file else ""
        yield Finding("settings", True, f"{read}the GENESIS_* variables fit")
    except SettingsError as error:
        yield Finding("settings", False, str(error), "correct it; genesis config --explain tells what there is")
    store, folder = settings.store, Path.cwd()
    if not store and not stores_in(folder):
        yield Finding("store", True, "there is none in this folder")
    else:
        try:
            path = find_store(store)
        except Failure as failure:
            yield Finding("store", False, failure.message, "genesis doctor --store PATH")
        else:
            folder = path.absolute().parent
            yield from _store(path)
    if folder.is_dir():
        yield from examine_disk(folder, settings.disk_reserve_bytes)


# --- the machine ----------------------------------------------------------------------------------------------------


def _python() -> Finding:
    found = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    ok = sys.version_info >= PYTHON
    return Finding("python", ok, found, "" if ok else f"install Python {'.'.join(map(str, PYTHON))} or newer")


def _libraries() -> Finding:
    found, missing = [f"genesis {version()}"], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {installed(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join([*found, *(f"{name} is missing" for name in missing)])
    return Finding("libraries", not missing, text, f"pip install {' '.join(missing)}" if missing else "")


# --- the store ------------------------------------------------------------------------------------------------------


def _store(path: Path) -> Iterator[Finding]:
    try:
        with open_store(path) as outside:
            yield Finding("store", True, f"{path}, {path.stat().st_size / 2**20:.1f} MiB, its schema is known")
            yield _integrity(outside.check())
            health = examine(outside)
    except StoreError as error:
        text, _, advice = str(error).rpartition(": ")
        yield Finding("store", False, text, advice)
        return
    yield _owner(health)
    yield _ledger(health)
    yield _clock(health)


def _integrity(wrong: list[str]) -> Finding:
    if not wrong:
        return Finding("integrity", True, "every page and index was read and is whole")
    found = "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")
    return Finding("integrity", False, found, "stop what runs, and restore the store from a copy")


def _owner(health: Health) -> Finding:
    if health.owner is None:
        return Finding("owner", True, "nobody ever ran it")
    pid, host, _ = health.owner
    if health.state == "died":
        return Finding("owner", False, f"process {pid} on {host} died", "start it again: nothing accepted is lost")
    return Finding("owner", True, f"process {pid} on {host} {'runs it' if health.alive else 'closed it in order'}")


def _ledger(health: Health) -> Finding:
    if health.imbalance:
        return Finding("ledger", False, health.imbalance, "keep a copy of the store and report this: it is a bug")
    rows = "and the rows" if health.counted is not None else "(too busy to count the rows)"
    return Finding("ledger", True, f"the counters {rows} add up: {health.ledger.born:,} deliveries")


def _clock(health: Health) -> Finding:
    now = moment.wall()
    newest = max(health.told.get("at", 0.0), health.written_at)
    if now < EPOCH or newest > now + CLOCK_S:
        found = f"it is {local(now)}, and the store was written at {local(newest)}"
        return Finding("clock", False, found, "set the clock: timers and retries wait for it to catch up")
    return Finding("clock", True, f"it is {local(now)}")
