"""`genesis simulate`: a scenario of the user in many worlds, in several processes, with the story of the first that fails."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import msgspec

from genesis.chaos import faults, stores
from genesis.chaos.explore import Exploration, Explorer, Run, gentle
from genesis.chaos.traffic import NoExampleError, traffic
from genesis.chaos.vfs import NotWatchableError
from genesis.cli.moment import now
from genesis.cli.story import page
from genesis.cli.talk import FAILED, OK, SCHEMA, USAGE, Failure, say, show, show_json
from genesis.cli.where import load_app, load_resources, load_scenario
from genesis.config import Settings

PROGRESS_S = 0.2


@dataclass(frozen=True)
class Search:
    """What is to be looked at: one value, because it goes to worker processes as a whole."""

    spec: str
    scenario: str | None
    resources: str | None
    nodes: int
    count: int
    """Faults of each world."""
    kinds: tuple[str, ...]
    store: str
    fixed: list[faults.Happening] | None
    """Faults of every world, instead of those that its seed draws."""

    def command(self, seed: int, schedule: Path) -> str:
        """What repeats one world."""
        chosen = f" --scenario {self.scenario}" if self.scenario else ""
        chosen += f" --resources {self.resources}" if self.resources else ""
        where = f" --nodes {self.nodes} --store {self.store}"
        return f"genesis simulate {self.spec}{chosen} --seeds {seed}{where} --schedule {schedule}"


@click.command()
@click.argument("spec", metavar="MODULE:APP")
@click.option(
    "--scenario", metavar="NAME", help="A coroutine function of the module. Default: scenario, else made-up messages."
)
@click.option(
    "--resources",
    metavar="NAME",
    help="A mapping of the module, from types to what is given instead of the resources of the application.",
)
@click.option("--seeds", default="0:100", show_default=True, metavar="FIRST:END", help="Which worlds; one number is one seed.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@click.option(
    "--faults", "count", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="In each world."
)
@click.option("--kinds", metavar="NAME,...", help=f"Which faults. All: {', '.join(faults.KINDS + faults.ON_DISK)}.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Machines of each world.")
@click.option(
    "--store",
    type=click.Choice(stores.KINDS),
    default="memory",
    show_default=True,
    help="memory: a model of a store; sqlite: the real engine on a disk that breaks, on one machine.",
)
@click.option("--schedule", metavar="FILE", type=click.Path(), help="Faults of a run that failed, to see it again.")
@click.option("--out", default=".", show_default=True, metavar="FOLDER", type=click.Path(), help="Where stories are written.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(
    spec: str,
    scenario: str | None,
    resources: str | None,
    seeds: str,
    jobs: int,
    count: int,
    kinds: str | None,
    nodes: int,
    store: str,
    schedule: str | None,
    out: str,
    as_json: bool,
) -> int:
    """Run a scenario in many simulated worlds, each with other faults in another order.

    A scenario is `async def scenario(sim)` in the module of the application: it sends, waits and asserts. Where there is
    none, made-up messages of every type are sent, and only the promises of Genesis are checked. Exit code 1: a promise was
    broken; the fewest faults that break it, and the command that repeats it, are printed and kept.
    """
    wanted = _seeds(seeds)
    fixed = _read_schedule(schedule) if schedule else None
    search = Search(spec, scenario, resources, nodes, count, _kinds(kinds, store), store, fixed)
    explorer = explorer_of(search)
    if load_scenario(spec, scenario) is None:
        say(f"{spec.partition(':')[0]} has no scenario: made-up messages are sent, and the promises of Genesis are checked")
    found, begin, told, broken = Exploration(), now(), 0.0, list[Run]()
    for run in _runs(search, wanted, jobs):
        found.add(run)
        if now() - told > PROGRESS_S:
            told = now()
            _progress(f"{found.runs:,} of {len(wanted):,} worlds, {found.kills:,} kills")
        if run.error:
            broken.append(run)
    if not broken:
        _progress(f"{found.runs:,} of {len(wanted):,} worlds, {found.kills:,} kills\n")
        _tell_good(found, now() - begin, as_json=as_json)
        return OK
    first = min(broken, key=lambda run: run.seed)
    _progress(f"seed {first.seed} breaks a promise: looking for the fewest faults that do it\n")
    smallest = asyncio.run(explorer.smallest(first))
    return _tell_broken(smallest, search, Path(out), as_json=as_json)


def explorer_of(search: Search) -> Explorer:
    """How the application is explored."""
    app, resources = load_app(search.spec), load_resources(search.spec, search.resources)
    definition, found = app.definition(resources=resources), load_scenario(search.spec, search.scenario)
    try:
        scenario = found or traffic(definition)
    except NoExampleError as error:
        module = search.spec.partition(":")[0]
        raise Failure(f"{error}. Write `async def scenario(sim)` in {module}: it sends, waits and asserts", USAGE) from error
    return Explorer(definition, scenario, Settings().node(), search.nodes, search.count, search.kinds, search.store)


def run_seed(search: Search, seed: int) -> Run:
    """One world, maybe in a worker process."""
    return asyncio.run(_one(explorer_of(search), seed, search.fixed))


async def _one(explorer: Explorer, seed: int, fixed: list[faults.Happening] | None) -> Run:
    try:
        return await explorer.run(seed, await explorer.schedule(seed) if fixed is None else fixed)
    except (ValueError, NotWatchableError) as error:  # such a world cannot be
        raise Failure(str(error), USAGE) from error


def _runs(search: Search, seeds: range, jobs: int) -> Iterator[Run]:
    """Worlds as they finish. When one fails, those under way still finish, and the lowest seed that fails is among them."""
    work = partial(run_seed, search)
    if jobs == 1:
        for seed in seeds:
            yield (run := work(seed))
            if run.error:
                return
        return
    left = iter(seeds)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        under_way = {pool.submit(work, seed) for seed in islice(left, 2 * jobs)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            runs = [world.result() for world in done]
            yield from runs
            if any(run.error for run in runs):
                left = iter(())
            under_way |= {pool.submit(work, seed) for seed in islice(left, len(done))}


def _seeds(text: str) -> range:
    first, colon, end = text.partition(":")
    if not first.isdecimal() or (colon and not end.isdecimal()):
        raise Failure(f"--seeds is {text!r}: write FIRST:END, such as 0:1000, or one number", USAGE)
    seeds = range(int(first), int(end) if colon else int(first) + 1)
    if not seeds:
        raise Failure(f"--seeds {text} are none: FIRST is below END", USAGE)
    return seeds


def _kinds(text: str | None, store: str) -> tuple[str, ...]:
    kinds = gentle(store) if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
    for kind in kinds:
        if kind not in faults.KINDS + faults.ON_DISK:
            raise Failure(f"{kind!r} is no fault; they are {', '.join(faults.KINDS + faults.ON_DISK)}", USAGE)
    return kinds


def _read_schedule(path: str) -> list[faults.Happening]:
    try:
        return faults.from_json(Path(path).read_bytes())
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", USAGE) from error
    except msgspec.DecodeError as error:
        raise Failure(f"{path} is no schedule of faults: {error}", USAGE) from error


def _tell_broken(broken: Run, search: Search, out: Path, *, as_json: bool) -> int:
    name = f"simulate-{broken.seed}"
    schedule = out / f"{name}.json"
    command = search.command(broken.seed, schedule)
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
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "ok": True,
            "worlds": found.runs,
            "deliveries": found.deliveries,
            "dead": found.dead,
        }
        show_json(fields | {"kills": found.kills, "virtual_s": found.virtual_s, "faults": dict(found.injected)})
        return
    deliveries = f"{found.deliveries:,} deliveries" + (
        f" ({found.dead:,} dead letter{'s' * (found.dead != 1)})" if found.dead else ""
    )
    show(f"{found.runs:,} worlds kept every promise: {deliveries}, {found.kills:,} kills, {took_s:.1f} s")
    for kind, times in found.injected.most_common():
        show(f"{times:10,}  {kind}")


def _progress(text: str) -> None:
    """Talk in one line that changes, to a person who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
