"""Mistakes that somebody could make in Genesis, each with a seed of the bank that finds it.

A simulator is worth what it finds. Each mutant is one change of the text of one file, in a copy; the text must be there
exactly once, so that this file says so when the code moves. When the worlds change, the seeds change with them: look for
them again with ``python -m tests.simulation.mutants``, or for those of some mutants with a part of their names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import genesis

ROOT = Path(__file__).parents[2]
SOURCE = Path(genesis.__file__).parent
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
    seed: int
    """One that finds it."""


MUTANTS = [
    Mutant(
        "commit",
        "a commit that nobody knows of counts as stored",
        "runtime/pipeline.py",
        "if answer is Answer.UNKNOWN:",
        "if answer is Answer.UNKNOWN and not group.offers:",
        14,
    ),
    Mutant(
        "commit",
        "a fenced commit counts as stored",
        "runtime/pipeline.py",
        "if answer is Answer.FENCED:",
        "if answer is Answer.FENCED and not batch.append:",
        21,
    ),
    Mutant(
        "commit",
        "the commit before the failed one proves that it is stored",
        "runtime/pipeline.py",
        "ours and stored.commit_id >= self.head.commit_id",
        "ours and stored.commit_id >= self.head.commit_id - 1",
        15,
    ),
    Mutant(
        "commit",
        "answers are not kept",
        "runtime/pipeline.py",
        "            self.asks.keep(batch, group.replies)",
        '            batch.tables.setdefault("reply", {})',
        3,
    ),
    Mutant(
        "state",
        "the states of the open group go into the commit under way",
        "layers/recovery/overlay.py",
        "self._sealed, self._open = self._open, {}",
        "self._sealed = self._open",
        0,
    ),
    Mutant(
        "state",
        "a state that was read replaces a newer one",
        "layers/recovery/overlay.py",
        "if address not in self._newest:",
        "if address not in self._open:",
        1,
    ),
    Mutant(
        "state",
        "a state is forgotten while it is committed",
        "layers/recovery/overlay.py",
        "            if address in self._open or address in self._sealed:\n                kept",
        "            if address in self._open:\n                kept",
        4,
    ),
    Mutant(
        "state",
        "a state is forgotten before it is committed",
        "layers/recovery/overlay.py",
        "            if address in self._open or address in self._sealed:\n                kept",
        "            if address in self._sealed:\n                kept",
        0,
    ),
    Mutant(
        "lanes",
        "held keys count only when they are locked",
        "layers/prevention/lanes.py",
        "self.keys or self._held or self.pauses) and not",
        "self.keys or self.pauses) and not",
        0,
    ),
    Mutant(
        "lanes",
        "the first of a key goes behind the others",
        "layers/prevention/lanes.py",
        "blocked.appendleft(delivery)",
        "blocked.append(delivery)",
        0,
    ),
    Mutant(
        "lanes",
        "what is evicted keeps its room",
        "layers/prevention/lanes.py",
        "        for delivery in waiting:\n            self._forget(delivery)\n",
        "",
        3,
    ),
    Mutant(
        "pending",
        "an event passes pending work of its own priority",
        "layers/prevention/lanes.py",
        "if rank is None or delivery.priority < rank:",
        "if rank is None or delivery.priority <= rank:",
        0,
    ),
    Mutant(
        "pending",
        "a held delivery comes up beside a retry",
        "layers/recovery/pending.py",
        "any(key.active[: held + 1])",
        "any(key.active[:held])",
        0,
    ),
    Mutant(
        "pending",
        "the commit under way is overlooked",
        "runtime/loader.py",
        "for group in (self._pipeline.sealed, self._pipeline.group):",
        "for group in (self._pipeline.group,):",
        0,
    ),
    Mutant(
        "pending",
        "a due time that joins its group while due times are read is lost",
        "runtime/loader.py",
        "if row is not None and row.due is not None and (row.due",
        "if row is None and row.due is not None and (row.due",
        1,
    ),
    Mutant(
        "dedupe",
        "a duplicate does not wait for the commit of the first",
        "runtime/intake.py",
        "offer.waiter = first.echo",
        "offer.waiter = None",
        1,
    ),
    Mutant(
        "dedupe",
        "ids are forgotten while they are young",
        "layers/prevention/horizon.py",
        "if at > now - self.keep_s and",
        "if at < now - self.keep_s and",
        0,
    ),
    Mutant(
        "dedupe",
        "a refused event is known",
        "runtime/intake.py",
        "        ledger = self._ledger\n        try:",
        "        ledger = self._ledger\n        self._known.add(mark)\n        try:",
        1,
    ),
    Mutant(
        "timers",
        "a timer that fired stays in the store",
        "layers/recovery/timers.py",
        "        self._changed[key] = None\n        return",
        "        return",
        0,
    ),
    Mutant(
        "timers",
        "a cancelled timer fires",
        "layers/recovery/timers.py",
        "        self._timers.pop(key, None)\n\n    def seal",
        "\n    def seal",
        0,
    ),
    Mutant(
        "timers",
        "timers without a name replace each other",
        "runtime/context.py",
        'name = f"~{event_id}"',
        'name = f"~{self._records}"',
        0,
    ),
    Mutant(
        "once",
        "each attempt calls under its own key",
        "runtime/context.py",
        'key = f"{self._origin()}/{name}"',
        'key = f"{self._origin()}/{self.attempt}/{name}"',
        0,
    ),
    Mutant(
        "once",
        "the journal of a delivery stays",
        "runtime/outcome.py",
        '                group.batch.put("once", key, None)',
        '                group.batch.put("once", key, b"")',
        0,
    ),
    Mutant(
        "dead letters",
        "the dead letters of a key share a row",
        "runtime/outcome.py",
        'put("dead", f"{delivery.id:016x}",',
        'put("dead", delivery.address,',
        0,
    ),
    Mutant(
        "dead letters",
        "a dead letter forgets its first number",
        "runtime/outcome.py",
        '        kept.origin = kept.origin or f"{kept.id:x}"\n',
        "",
        1,
    ),
    Mutant(
        "intake",
        "a refusal is not counted",
        "runtime/intake.py",
        "            ledger.offered += 1\n            ledger.refused += 1\n",
        "            ledger.offered += 1\n",
        1,
    ),
    Mutant(
        "fence",
        "an older owner closes the store of a newer one",
        "engines/memory.py",
        "        if head.epoch == stored.epoch:\n",
        "        if head.epoch <= stored.epoch:\n",
        7,
    ),
    Mutant(
        "restart",
        "a suspect that was pending is not found",
        "runtime/restart.py",
        "scan_pending(partition, delivery_id - 1, 1)",
        "scan_pending(partition, delivery_id, 1)",
        4,
    ),
    Mutant(
        "restart", "a key does not wait after a restart", "runtime/restart.py", "pipeline.lanes.hold(address, rank)", "pass", 1
    ),
    Mutant(
        "slots",
        "the key of an abandoned handler stays locked",
        "runtime/slot.py",
        "        pipeline.lanes.release(delivery)\n        self.wake()",
        "        self.wake()",
        68,
    ),
    Mutant(
        "slots",
        "a handler that waits does not lock its key",
        "runtime/slot.py",
        "        pipeline.lanes.lock(context._delivery)\n",
        "",
        0,
    ),
    Mutant(
        "slots",
        "an abandoned handler ends twice",
        "runtime/slot.py",
        "        context._closed = context._abandoned = True\n        self.stuck += 1",
        "        context._closed = True\n        self.stuck += 1",
        68,
    ),
]


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


def look(folder: Path, first: int, end: int, *, limit_s: float | None = None) -> tuple[int, str] | None:
    """Run seeds with the Genesis of a folder until one finds something wrong. Returns that seed, and what it said.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit_s`.
        RuntimeError: no seed could be run.
    """
    code, told, everything = call(
        folder, f"from tests.simulation import mutants; mutants.attempt({first}, {end})", limit_s=limit_s
    )
    if code == QUIET:
        return None
    seed = int(told[-1].partition(" ")[0]) if told else first
    if code == -signal.SIGALRM:
        return seed, f"it goes on for more than {SEED_S} s"
    if code != FOUND:
        raise RuntimeError(f"seed {seed} could not be run: {everything}")
    return seed, told[-1].partition(" ")[2]


def attempt(first: int, end: int) -> None:
    """Run seeds in this process, and exit with `FOUND` at the first complaint or exception."""
    from tests.simulation.run import run

    print(SOURCE, flush=True)
    for seed in range(first, end):
        print(seed, "begins", flush=True)
        signal.alarm(SEED_S)  # ends this process: an exception would be taken for the failure of a handler
        try:
            wrong = run(seed).complaints
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            print(seed, " ".join(wrong[0].split())[:200], flush=True)
            sys.exit(FOUND)
    sys.exit(QUIET)


def main() -> int:
    """Look for the first seed of each mutant. Returns 1 when one is not found."""
    parser = argparse.ArgumentParser("tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; default: all mutants")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to try")
    given = parser.parse_args()
    missed = 0
    for mutant in MUTANTS:
        if given.names and not any(name in mutant.name for name in given.names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            plant(mutant, Path(folder))
            found = look(Path(folder), 0, given.seeds)
        missed += found is None
        seed, why = found or ("none", f"of {given.seeds}")
        print(f"{mutant.area}: {mutant.name}: seed {seed}: {why}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
