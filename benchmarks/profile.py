"""Where the time goes: the main thread looked at once a millisecond while a benchmark runs."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import memory, sqlite
from benchmarks.harness import ROOT, Options, child
from benchmarks.sqlite import on_disk

PERIOD_S = 0.001
LINES = 45


class Sampler:
    """Counts where the main thread is, by line (the innermost) and by function (any on the stack)."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.total = 0

    def look(self, number: int, frame: FrameType | None) -> None:
        self.total += 1
        self.lines[_line(frame)] += 1
        functions = set()
        while frame is not None:
            functions.add(f"{_place(frame)}  {frame.f_code.co_qualname}")
            frame = frame.f_back
        self.inside.update(functions)

    def report(self) -> dict[str, Any]:
        return {"total": self.total, "lines": self.lines.most_common(LINES), "inside": self.inside.most_common(LINES)}


def _place(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(f"{ROOT}/").removeprefix("src/")


def _line(frame: FrameType | None) -> str:
    return f"{_place(frame)}:{frame.f_lineno}  {frame.f_code.co_qualname}" if frame is not None else "?"


def sampled(bench: str, **arguments: Any) -> dict[str, Any]:
    """Run the Genesis side of a benchmark under the sampler."""
    sampler = Sampler()
    throughput = memory.throughput if bench == "memory" else sqlite.throughput
    signal.signal(signal.SIGALRM, sampler.look)
    signal.setitimer(signal.ITIMER_REAL, PERIOD_S, PERIOD_S)
    rate = asyncio.run(throughput(**arguments))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return sampler.report() | rate


def text(bench: str, options: Options) -> str:
    """The profile of `memory` or `sqlite`, to be read."""
    if bench == "memory":
        found = child(sampled, bench=bench, n=options.size(memory.EVENTS))
    else:
        found = on_disk(sampled, bench=bench, n=options.size(sqlite.EVENTS))
    parts = [f"{bench}: {found['events_per_s']:,.0f} events/s while looked at, {found['total']:,} looks"]
    for what, title in (("lines", "the innermost line"), ("inside", "functions, with all that they call")):
        parts += ["", f"share  {title}"]
        parts += [f"{100 * count / found['total']:4.1f} %  {_source(place)}" for place, count in found[what]]
    return "\n".join(parts)


def _source(place: str) -> str:
    """A line of Genesis with its text."""
    where, _, function = place.partition("  ")
    name, _, number = where.partition(":")
    for path in (ROOT / "src" / name, ROOT / name):
        if number and path.is_file() and not Path(name).is_absolute():
            return f"{where:42} {function:28} {path.read_text().splitlines()[int(number) - 1].strip()}"
    return f"{where:42} {function}"
