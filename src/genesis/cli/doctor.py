"""`genesis doctor`: is this machine fit, and is this store whole? Each finding says what to do next."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import click

from genesis.cli import moment
from genesis.cli.health import Health, examine
from genesis.cli.talk import FAILED, OK, Failure, lasting, local, painted, printable, show, show_json, version
from genesis.cli.where import find_store, json_option, open_store, store_option, stores_in
from genesis.config import Settings
from genesis.core.errors import SettingsError, StoreError

PYTHON = (3, 11)
LIBRARIES = ("msgspec", "click", "rich")
SYNCS = 15
SYNC_SLOW_S = 0.05
"""A sync slower than this makes every accepted event wait so long: a network disk, or one that is worn or busy."""
SYNC_RAM_S = 15e-6
"""A sync faster than this has reached no disk."""
CLOCK_S = 2.0
"""Difference of two clocks that is no trouble."""
EPOCH = 1_735_689_600.0
"""1 January 2025: a clock before it was never set."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check."""

    name: str
    ok: bool
    found: str
    next: str = ""
    """What to do; empty when all is well."""


@click.command()
@store_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, store: str | None, **options: bool) -> None:
    """Check this machine and, where there is one, the store.

    Exit code 1 when something is wrong.
    """
    findings = []
    for finding in _findings(store):
        findings.append(finding)
        if not options["as_json"]:
            show(_line(finding))
    well = all(finding.ok for finding in findings)
    if options["as_json"]:
        show_json({"well": well, "checks": [asdict(finding) for finding in findings]})
    ctx.exit(OK if well else FAILED)


def _line(finding: Finding) -> str:
    mark = painted("[ok]", "green") if finding.ok else painted("[!!]", "red")
    text = printable(f"{finding.name:<10} {finding.found}")
    return f"{mark} {text}" + (f"\n     {'':<10} -> {printable(finding.next)}" if finding.next else "")


def _findings(store: str | None) -> Iterator[Finding]:
    yield _python()
    yield _libraries()
    settings = Settings()
    try:
        settings = Settings.from_environment()
        yield Finding("settings", True, "the GENESIS_* variables fit")
    except SettingsError as error:
        yield Finding("settings", False, str(error), "correct the variable, or unset it")
    path = None
    try:
        path = find_store(store) if store or len(stores_in(Path.cwd())) != 0 else None
    except Failure as failure:
        yield Finding("store", False, failure.message, "genesis doctor --store PATH")
    if path is not None:
        yield from _store(path)
    elif not store:
        yield Finding("store", True, "there is none in this folder")
    yield from _folder(path.absolute().parent if path is not None else Path.cwd(), settings)


def _python() -> Finding:
    found = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    wanted = ".".join(map(str, PYTHON))
    ok = sys.version_info >= PYTHON
    return Finding("python", ok, found, "" if ok else f"install Python {wanted} or newer")


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
        outside = open_store(path)
    except StoreError as error:
        text, _, advice = str(error).rpartition(": ")
        yield Finding("store", False, text, advice)
        return
    yield Finding("store", True, f"{path}, {path.stat().st_size / 2**20:.1f} MiB, its schema is known")
    yield _integrity(outside)
    try:
        health = examine(outside)
    except StoreError as error:
        yield Finding("ledger", False, str(error), "restore the store from a copy")
        return
    yield _owner(health)
    rows = "and the rows" if health.counted is not None else "(too busy to count the rows)"
    if health.imbalance:
        yield Finding("ledger", False, health.imbalance, "keep a copy of the store and report this: it is a bug")
    else:
        yield Finding("ledger", True, f"the counters {rows} add up: {health.ledger.born:,} deliveries")
    yield _clock(health)


def _integrity(outside: object) -> Finding:
    check = getattr(outside, "check", None)
    if check is None:
        return Finding("integrity", True, "this engine has no check")
    wrong = check()
    if wrong:
        return Finding("integrity", False, "; ".join(wrong), "restore the store from a copy")
    return Finding("integrity", True, "every page and index was read and is whole")


def _owner(health: Health) -> Finding:
    if health.owner is None:
        return Finding("owner", True, "nobody ever ran it")
    pid, host, _ = health.owner
    if health.state == "died":
        return Finding("owner", False, f"process {pid} on {host} died", "start it again: nothing accepted is lost")
    return Finding("owner", True, f"process {pid} on {host} {'runs it' if health.alive else 'closed it in order'}")


def _clock(health: Health) -> Finding:
    now = moment.wall()
    newest = max(health.told.get("at", 0.0), health.written_at)
    if now < EPOCH or newest > now + CLOCK_S:
        found = f"it is {local(now)}, and the store was written at {local(newest)}"
        return Finding("clock", False, found, "set the clock: timers and retries wait for it to catch up")
    return Finding("clock", True, f"it is {local(now)}")


# --- the folder -----------------------------------------------------------------------------------------------------


def _folder(folder: Path, settings: Settings) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    free, reserve = shutil.disk_usage(folder).free, settings.disk_reserve_bytes
    found = f"{free / 2**30:.1f} GiB free at {folder}; intake stops below {reserve / 2**20:.0f} MiB"
    yield Finding("disk", free >= reserve, found, "" if free >= reserve else "free some room: events are refused now")
    if not os.access(folder, os.W_OK):
        yield Finding("sync", False, f"{folder} cannot be written", "give this user the right to write")
        return
    yield _sync(folder)


def _sync(folder: Path) -> Finding:
    try:
        took = statistics.median(_syncs(folder))
    except OSError as error:
        return Finding("sync", False, f"{folder}: {error}", "put the store on a disk that works")
    if took > SYNC_SLOW_S:
        return Finding("sync", False, f"a sync takes {lasting(took)}", "put the store on a local disk")
    note = ": in memory only, or without a real sync: power loss would lose events" if took < SYNC_RAM_S else ""
    return Finding("sync", True, f"a sync takes {lasting(took)}{note}")


def _syncs(folder: Path) -> list[float]:
    """Seconds of some writes of a page with a sync, in a file that is removed."""
    times = []
    with tempfile.TemporaryFile(dir=folder, prefix=".genesis-doctor-") as file:
        for _ in range(SYNCS):
            started = moment.precise()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(moment.precise() - started)
    return times
