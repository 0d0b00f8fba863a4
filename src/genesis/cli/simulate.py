"""`genesis simulate`: a scenario of the user in many worlds, in several processes, with the story of the first that fails."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import msgspec

from genesis.chaos import faults
from genesis.chaos.explore import GENTLE, Exploration, Explorer, Run
from genesis.cli.moment import now
from genesis.cli.story import page
from genesis.cli.talk import FAILED, OK, SCHEMA, USAGE, Failure, say, show, show_json
from genesis.cli.where import load_app, load_scenario
from genesis.config import Settings

PROGRESS_S = 0.2


@click.command()
@click.argument("spec", metavar="MODULE:APP")
@click.option("--scenario", default="scenario", show_default=True, metavar="NAME", help="A coroutine function of the module.")
@click.option("--seeds", default="0:100", show_default=True, metavar="FIRST:END", help="Which worlds; one number is one seed.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@click.option(
    "--faults", "count", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="In each world."
)
@click.option("--kinds", metavar="NAME,...", help=f"Which faults. All: {', '.join(faults.KINDS)}.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Machines of each world.")
@click.option("--schedule", metavar="FILE", type=click.Path(), help="Faults of a run that failed, to see it again.")
@click.option("--out", default=".", show_default=True, metavar="FOLDER", type=click.Path(), help="Where stories are written.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(
    spec: str,
    scenario: str,
    seeds: str,
    jobs: int,
    count: int,
    kinds: str | None,
    nodes: int,
    schedule: str | None,
    out: str,
    as_json: bool,
) -> int:
    """Run a scenario in many simulated worlds, each with other faults in another order.

    A scenario is `async def scenario(sim)` in the module of the application: it sends, waits and asserts. Exit code 1: a
    promise was broken; the fewest faults that break it, and the command that repeats it, are printed and kept.
    """
    wanted = _seeds(seeds)
    explorer = explorer_of(spec, scenario, nodes, count, _kinds(kinds))
    fixed = _read_schedule(schedule) if schedule else None
    found, begin, told = Exploration(), now(), 0.0
    for run in _runs(spec, scenario, explorer, wanted, fixed, jobs):
        found.add(run)
        if sys.stderr.isatty() and now() - told > PROGRESS_S:
            told = now()
            print(f"\r{found.runs:,} of {len(wanted):,} worlds, {found.kills:,} kills", end="", file=sys.stderr, flush=True)
        if run.error:
            _end_progress()
            broken = asyncio.run(explorer.smallest(run))
            return _tell_broken(broken, spec, scenario, nodes, Path(out), as_json=as_json)
    _end_progress()
    _tell_good(found, now() - begin, as_json=as_json)
    return OK


def explorer_of(spec: str, scenario: str, nodes: int, count: int, kinds: tuple[str, ...]) -> Explorer:
    """How the application is explored, with its talk turned off: what goes wrong in a world is no news."""
    logging.getLogger("genesis").setLevel(logging.CRITICAL + 1)
    app = load_app(spec)
    return Explorer(app.definition(), load_scenario(spec, scenario), Settings().node(), nodes, count, kinds)


def run_seed(
    spec: str, scenario: str, nodes: int, count: int, kinds: tuple[str, ...], fixed: list[faults.Happening] | None, seed: int
) -> Run:
    """One world, in a worker process."""
    return asyncio.run(_one(explorer_of(spec, scenario, nodes, count, kinds), seed, fixed))


async def _one(explorer: Explorer, seed: int, fixed: list[faults.Happening] | None) -> Run:
    return await explorer.run(seed, await explorer.schedule(seed) if fixed is None else fixed)


def _runs(
    spec: str, scenario: str, explorer: Explorer, seeds: range, fixed: list[faults.Happening] | None, jobs: int
) -> Iterator[Run]:
    if jobs == 1:
        for seed in seeds:
            yield asyncio.run(_one(explorer, seed, fixed))
        return
    work = partial(run_seed, spec, scenario, explorer.nodes, explorer.count, tuple(explorer.kinds), fixed)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, seeds, chunksize=8)


def _seeds(text: str) -> range:
    first, colon, end = text.partition(":")
    if not first.isdecimal() or (colon and not end.isdecimal()):
        raise Failure(f"--seeds is {text!r}: write FIRST:END, such as 0:1000, or one number", USAGE)
    seeds = range(int(first), int(end) if colon else int(first) + 1)
    if not seeds:
        raise Failure(f"--seeds {text} are none: FIRST is below END", USAGE)
    return seeds


def _kinds(text: str | None) -> tuple[str, ...]:
    kinds = GENTLE if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
    for kind in kinds:
        if kind not in faults.KINDS:
            raise Failure(f"{kind!r} is no fault; they are {', '.join(faults.KINDS)}", USAGE)
    return kinds


def _read_schedule(path: str) -> list[faults.Happening]:
    try:
        return faults.from_json(Path(path).read_bytes())
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", USAGE) from error
    except msgspec.DecodeError as error:
        raise Failure(f"{path} is no schedule of faults: {error}", USAGE) from error


def _tell_broken(broken: Run, spec: str, scenario: str, nodes: int, out: Path, *, as_json: bool) -> int:
    name = f"simulate-{broken.seed}"
    schedule = out / f"{name}.json"
    command = f"genesis simulate {spec} --scenario {scenario} --seeds {broken.seed} --nodes {nodes} --schedule {schedule}"
    out.mkdir(parents=True, exist_ok=True)
    schedule.write_bytes(faults.to_json(broken.schedule))
    (out / f"{name}.txt").write_text(f"seed {broken.seed}: {broken.error}\n{broken.story()}\n{command}\n", encoding="utf-8")
    (out / f"{name}.html").write_text(page(broken, command), encoding="utf-8")
    if as_json:
        fields: dict[str, Any] = {"schema": SCHEMA, "ok": False, "seed": broken.seed, "error": broken.error, "repeat": command}
        show_json(fields | {"schedule": json.loads(faults.to_json(broken.schedule)), "timeline": broken.timeline})
    else:
        show(f"seed {broken.seed} breaks a promise: {broken.error}\n{broken.story()}\n")
        show(f"the same again:  {command}\nits story:       {out / name}.html")
    return FAILED


def _tell_good(found: Exploration, took_s: float, *, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"schema": SCHEMA, "ok": True, "worlds": found.runs, "deliveries": found.deliveries}
        show_json(fields | {"kills": found.kills, "virtual_s": found.virtual_s, "faults": dict(found.injected)})
        return
    show(f"{found.runs:,} worlds kept every promise: {found.deliveries:,} deliveries, {found.kills:,} kills, {took_s:.1f} s")
    for kind, times in found.injected.most_common():
        show(f"{times:10,}  {kind}")


def _end_progress() -> None:
    if sys.stderr.isatty():
        say("")
