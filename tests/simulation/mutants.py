"""Mistakes that somebody could make in Genesis, each with a seed of the bank that finds it.

A simulator is worth what it finds. Each mutant of ``mutants.toml`` is one change of the text of one file, in a copy; the text
must be there exactly once, so that a test says so when the code moves. The list was written before any of it was tried, and
what is not found stays in it. When the worlds change, the seeds change with them: look for them again with
``python -m tests.simulation.mutants --jobs 2 --write``, or for those of some mutants with a part of their names.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import genesis

ROOT = Path(__file__).parents[2]
SOURCE = Path(genesis.__file__).parent
LIST = Path(__file__).parent / "mutants.toml"
SEED_S = 60
"""Longest run of a seed, in real seconds: what goes on for longer has no end."""
FOUND, QUIET = 1, 0
"""Exit codes of `attempt`."""


@dataclass(frozen=True)
class Mutant:
    """A mistake."""

    area: str
    name: str
    file: str
    old: str
    new: str
    seed: int | None = None
    """The first that finds it."""
    quiet: int = 0
    """Of one that is not found, how many seeds were tried."""
    store: str = "memory"
    """The store of the worlds in which it is looked for."""


def listed() -> list[Mutant]:
    """All of them, found or not."""
    return [Mutant(**fields) for fields in tomllib.loads(LIST.read_text())["mutant"]]


def write_down(name: str, result: str) -> None:
    """Note in the list what became of a mutant: ``seed = 3``, or ``quiet = 2000``."""
    text = LIST.read_text()
    begin = text.index(f'name = "{name}"\n')
    end = text.find("[[mutant]]", begin)
    entry = text[begin : end if end >= 0 else len(text)]
    LIST.write_text(text.replace(entry, re.sub(r"^(seed|quiet) = \d+$", result, entry, flags=re.MULTILINE)))


MUTANTS = listed()


def plant(mutant: Mutant | None, folder: Path) -> None:
    """Put a copy of Genesis with the mistake into a folder.

    Raises:
        ValueError: the code has changed, and the text is not there exactly once.
    """
    shutil.copytree(SOURCE, folder / "genesis", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is None:
        return
    file = folder / "genesis" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has changed: {mutant.old!r} is there {text.count(mutant.old)} times")
    file.write_text(text.replace(mutant.old, mutant.new))


def call(folder: Path, code: str, *, limit_s: float | None = None) -> tuple[int, list[str], str]:
    """Run code with the Genesis of a folder; it prints `SOURCE` first. Returns its exit code, what else it printed, and all.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit_s`.
        RuntimeError: it was run with another Genesis.
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    told = done.stdout.splitlines()
    if not told or not told[0].startswith(str(folder)):
        raise RuntimeError(f"the copy was not run: {done.stdout}{done.stderr}")
    return done.returncode, told[1:], done.stdout + done.stderr


def look(folder: Path, first: int, end: int, store: str = "memory", *, limit_s: float | None = None) -> tuple[int, str] | None:
    """Run seeds with the Genesis of a folder until one finds something wrong. Returns that seed, and what it said.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit_s`.
        RuntimeError: no seed could be run.
    """
    code, told, everything = call(
        folder, f"from tests.simulation import mutants; mutants.attempt({first}, {end}, {store!r})", limit_s=limit_s
    )
    if code == QUIET:
        return None
    seed = int(told[-1].partition(" ")[0]) if told else first
    if code == -signal.SIGALRM:
        return seed, f"it goes on for more than {SEED_S} s"
    if code != FOUND:
        raise RuntimeError(f"seed {seed} could not be run: {everything}")
    return seed, told[-1].partition(" ")[2]


def attempt(first: int, end: int, store: str) -> None:
    """Run seeds in this process, and exit with `FOUND` at the first complaint or exception."""
    from tests.simulation.run import run

    print(SOURCE, flush=True)
    for seed in range(first, end):
        print(seed, "begins", flush=True)
        signal.alarm(SEED_S)  # ends this process: an exception would be taken for the failure of a handler
        try:
            wrong = run(seed, store=store).complaints
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            print(seed, " ".join(wrong[0].split())[:200], flush=True)
            sys.exit(FOUND)
    sys.exit(QUIET)


def search(mutant: Mutant, seeds: int) -> tuple[int, str] | None:
    """The first seed that finds a mutant, of so many, and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        plant(mutant, Path(folder))
        return look(Path(folder), 0, seeds, mutant.store)


def main() -> int:
    """Look for the first seed of each mutant. Returns 1 when one is not found."""
    parser = argparse.ArgumentParser("tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; default: all mutants")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to try")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="note the results in the list")
    given = parser.parse_args()
    wanted = [mutant for mutant in MUTANTS if not given.names or any(name in mutant.name for name in given.names)]
    missed = 0
    with ThreadPoolExecutor(given.jobs) as pool:  # each search is a process of its own
        under_way = {pool.submit(search, mutant, given.seeds): mutant for mutant in wanted}
        for done in as_completed(under_way):
            mutant, found = under_way[done], done.result()
            missed += found is None
            seed, why = found or ("none", f"of {given.seeds}")
            print(f"{mutant.area}: {mutant.name}: seed {seed}: {why}", flush=True)
            if given.write:
                write_down(mutant.name, f"seed = {found[0]}" if found else f"quiet = {given.seeds}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
