"""What all benchmarks share: figures, fresh processes in pairs, and how results are printed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".dev" / "bench"
"""Where stores are made: on the disk of the project, because a file system in memory would hide what a sync costs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured, what it is measured beside, and the goal for it."""

    name: str
    unit: str
    goal: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    runs: int = 5
    scale: float = 1.0

    def size(self, events: int) -> int:
        """A number of events, scaled; at least a thousand."""
        return max(1000, int(events * self.scale))


@dataclass(frozen=True, slots=True)
class Result:
    """One figure as measured: one line of JSON."""

    bench: str
    figure: str
    value: float
    """Median of the runs."""
    unit: str
    raw: float | None
    """Median of the raw limit in the same runs; None where there is none."""
    ratio: float | None
    """Median of value / raw, each pair taken from one run."""
    runs: int
    spread: tuple[float, float]
    """Lowest and highest value."""


def result(bench: str, figure: Figure, values: list[float], raws: list[float] | None = None) -> Result:
    """Sum up the runs of a figure."""
    raw, ratio = None, None
    if raws is not None:
        raw = _short(median(raws))
        ratio = _short(median(v / r if r else 0.0 for v, r in zip(values, raws, strict=True)))
    spread = (_short(min(values)), _short(max(values)))
    return Result(bench, figure.name, _short(median(values)), figure.unit, raw, ratio, len(values), spread)


def results(bench: str, figures: Sequence[Figure], runs: list[tuple[Any, Any]]) -> Iterator[Result]:
    """Sum up figures that both sides of each pair have by name."""
    for figure in figures:
        yield result(bench, figure, [ours[figure.name] for _, ours in runs], [raw[figure.name] for raw, _ in runs])


def _short(number: float) -> float:
    """Four digits: more would pretend a precision that no shared machine has."""
    return float(f"{number:.4g}")


# ---- processes ------------------------------------------------------------------------------


def child(side: Callable[..., Any], **arguments: Any) -> Any:
    """Run one side in a fresh process, and return what it returns."""
    ended = subprocess.run(command(side, **arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"benchmarks: {side.__module__}.{side.__name__} ended with {ended.returncode}")
    return json.loads(ended.stdout)


def command(side: Callable[..., Any], **arguments: Any) -> list[str]:
    """The command of a fresh process for one side."""
    return [sys.executable, "-m", "benchmarks.child", side.__module__, side.__name__, json.dumps(arguments)]


def leave(answer: Any) -> None:
    """End the process of a side at once, with its answer: nothing is closed or drained."""
    print(json.dumps(answer), flush=True)
    os._exit(0)


@contextmanager
def scratch() -> Iterator[str]:
    """A folder on the disk that is gone afterwards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        yield folder


def copy(source: Path, folder: str) -> None:
    """Copy the files of a folder, down to the disk: what is measured next does not pay for their write-back."""
    for file in source.iterdir():
        target = shutil.copy(file, folder)
        with open(target, "rb+") as handle:
            os.fsync(handle.fileno())


def pairs(what: str, runs: int, raw: Callable[[], Any], genesis: Callable[[], Any]) -> Iterator[tuple[Any, Any]]:
    """Run both sides in turns: raw, genesis, raw, genesis, ..."""
    for run in range(1, runs + 1):
        beside, ours = raw(), genesis()
        progress(f"{what} {run}/{runs}: {_told(ours)} beside raw {_told(beside)}")
        yield beside, ours


def _told(answer: dict[str, float]) -> str:
    return ", ".join(f"{name} {_short(value):,}" for name, value in answer.items() if isinstance(value, (int, float)))


def progress(text: str) -> None:
    """Say how far it is, and how busy the machine."""
    print(f"{text}  (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


# ---- figures --------------------------------------------------------------------------------


def percentiles(took_s: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    took = sorted(took_s)
    return {"p50_ms": 1e3 * took[len(took) // 2], "p99_ms": 1e3 * took[len(took) * 99 // 100]}


def rss_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def as_json(measured: Result) -> str:
    """One line for programs."""
    return json.dumps(asdict(measured))


def as_row(measured: Result, goal: str) -> str:
    """One line of a table for people."""
    low, high = measured.spread
    raw = f"{measured.raw:,.10g}" if measured.raw is not None else "-"
    ratio = f"{measured.ratio:.3f}" if measured.ratio is not None else "-"
    value = f"{measured.value:,.10g} {measured.unit}"
    between = f"{low:,.10g} to {high:,.10g}"
    return f"{measured.bench:10} {measured.figure:28} {value:>18}  {between:>22}  {raw:>11} {ratio:>8}  {goal}"


HEADING = f"{'bench':10} {'figure':28} {'median':>18}  {'lowest to highest':>22}  {'raw':>11} {'ratio':>8}  goal"

clock = time.perf_counter
