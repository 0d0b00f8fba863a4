"""Where the time goes: the main thread looked at once a millisecond while a benchmark runs."""

import asyncio
import signal
from collections import Counter
from linecache import getline
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks import memory, sqlite
from benchmarks.harness import ROOT, Options, child
from benchmarks.sqlite import on_disk

PERIOD_S = 0.001
LINES = 45


class Sampler:
    """Counts where the main thread is, by line (the innermost) and by function (any on the stack)."""

    def __init__(self) -> None:
        self._lines: Counter[tuple[CodeType, int]] = Counter()
        self._inside: Counter[CodeType] = Counter()
        self._total = 0

    def look(self, number: int, frame: FrameType | None) -> None:
        assert frame is not None
        self._total += 1
        self._lines[frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno] += 1
        functions = set()
        outer: FrameType | None = frame
        while outer is not None:
            functions.add(outer.f_code)
            outer = outer.f_back
        self._inside.update(functions)

    def report(self) -> dict[str, Any]:
        """Places with their counts, the most frequent first."""
        lines = [((code.co_filename, line, code.co_qualname), n) for (code, line), n in self._lines.most_common(LINES)]
        inside = [((code.co_filename, 0, code.co_qualname), n) for code, n in self._inside.most_common(LINES)]
        return {"looks": self._total, "lines": lines, "inside": inside}


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
    parts = [f"{bench}: {found['events_per_s']:,.0f} events/s while looked at, {found['looks']:,} looks"]
    for what, title in (("lines", "the innermost line"), ("inside", "functions, with all that they call")):
        parts += ["", f"share   {title}"]
        parts += [f"{100 * count / found['looks']:4.1f} %  {_told(*place)}" for place, count in found[what]]
    return "\n".join(parts)


def _told(path: str, line: int, function: str) -> str:
    """A place, and the text of a line of ours."""
    inside = Path(path).is_relative_to(ROOT)
    name = str(Path(path).relative_to(ROOT)).removeprefix("src/") if inside else "/".join(Path(path).parts[-2:])
    where = f"{name}:{line}" if line else name
    return f"{where:42} {function:30} {getline(path, line).strip() if inside and line else ''}".rstrip()
