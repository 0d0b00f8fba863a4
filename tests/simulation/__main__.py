"""Run seeds of the bank: ``python -m tests.simulation 0:10000 --jobs 2``, or one of them with its story: ``... 183``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from genesis.chaos import faults
from genesis.chaos.shrink import shrink
from tests.simulation.run import Outcome, run


def main() -> int:
    """Returns 1 when a seed complained."""
    parser = argparse.ArgumentParser("tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="one, or FIRST:END")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=24)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--digests", action="store_true", help="print a digest of every step of each seed")
    parser.add_argument("--clutter", type=int, default=0, help="objects to make first, so that addresses differ")
    parser.add_argument("--schedule", help="a file with faults, instead of those that the seed draws")
    parser.add_argument("--shrink", action="store_true", help="find the fewest faults that a seed complains of")
    given = parser.parse_args()
    clutter = [object() for _ in range(given.clutter)]
    first, _, end = given.seeds.partition(":")
    if end:
        return many(range(int(first), int(end)), given)
    schedule = None
    if given.schedule:
        with open(given.schedule, encoding="utf-8") as file:
            schedule = faults.from_json(json.dumps(json.load(file)["schedule"]))
    one = partial(run, events=given.events, count=given.faults, store=given.store, trace=given.digests)
    outcome = one(int(first), schedule=schedule)
    if given.shrink and outcome.complaints:
        outcome = asyncio.run(smallest(outcome, one))
        print(faults.to_json(outcome.schedule).decode())
    tell(outcome)
    del clutter
    return bool(outcome.complaints)


def tell(outcome: Outcome) -> None:
    """The story of a seed."""
    for at, where, what in outcome.timeline:
        print(f"{at:10.4f} s  {where:8} {what}")
    print(f"seed {outcome.seed}: {outcome.events} events, {outcome.kills} kills, {outcome.virtual_s:.0f} virtual seconds")
    print("\n".join(outcome.complaints) or "nothing to complain of")


async def smallest(outcome: Outcome, run: Callable[..., Outcome]) -> Outcome:
    """The same seed with the fewest faults that it still complains of."""
    best = outcome

    async def fails(part: list[faults.Happening]) -> bool:
        nonlocal best
        again = run(outcome.seed, schedule=part)
        if again.complaints:
            best = again
        return bool(again.complaints)

    await shrink(outcome.schedule, fails)
    return best


def many(seeds: range, given: argparse.Namespace) -> int:
    """Run seeds, and sum up what they went through."""
    bad, begin = 0, time.perf_counter()
    injected, killed_at, events, kills, virtual_s = Counter[str](), Counter[str](), 0, 0, 0.0
    work = partial(run, events=given.events, count=given.faults, store=given.store, trace=given.digests)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(work, seeds, chunksize=4) if given.jobs > 1 else map(work, seeds):
            injected += outcome.injected
            killed_at += outcome.killed_at
            events, kills, virtual_s = events + outcome.events, kills + outcome.kills, virtual_s + outcome.sending_s
            if given.digests:
                print(outcome.seed, outcome.digest)
            if outcome.complaints:
                bad += 1
                print(f"seed {outcome.seed}: {'; '.join(outcome.complaints)[:400]}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{outcome.seed + 1 - seeds.start} of {len(seeds)} seeds, {bad} bad", end="", file=sys.stderr)
    took_s = time.perf_counter() - begin
    if not given.digests:
        print(f"{len(seeds)} seeds, {bad} bad, {events} events, {kills} kills, {took_s:.0f} s")
        print(f"{virtual_s / took_s:.1f} virtual seconds of sending in a real one, {events / took_s:.0f} events/s")
        print(f"faults: {dict(injected.most_common())}")
        print(f"killed at: {dict(killed_at.most_common())}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
