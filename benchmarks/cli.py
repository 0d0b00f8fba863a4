"""What it costs to begin: the import, and the first answer of the command line."""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import ROOT, Figure, Options, Result, clock, pairs, result

STARTS = 5
"""Starts of one run; the fastest counts, since all that disturbs a start makes it longer."""
FIGURES = (
    Figure(
        "import_ms",
        "ms",
        "< 120",
        "`from genesis import *`, over a bare interpreter. Raw: the bare interpreter, from start to end.",
    ),
    Figure("help_ms", "ms", "< 150", "`genesis --help`, from start to end. Raw: the bare interpreter."),
)


def _start_ms(*arguments: str) -> float:
    def once() -> float:
        begin = clock()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return 1e3 * (clock() - begin)

    return min(once() for _ in range(STARTS))


def measure(options: Options) -> Iterator[Result]:
    def bare() -> dict[str, float]:
        return {"bare_ms": _start_ms("-c", "pass")}

    def ours() -> dict[str, float]:
        return {"import_ms": _start_ms("-c", "from genesis import *"), "help_ms": _start_ms("-m", "genesis", "--help")}

    runs = list(pairs("cli", options.runs, bare, ours))
    raws = [raw["bare_ms"] for raw, _ in runs]
    yield result("cli", FIGURES[0], [ours["import_ms"] - raw["bare_ms"] for raw, ours in runs], raws)
    yield result("cli", FIGURES[1], [ours["help_ms"] for _, ours in runs], raws)
