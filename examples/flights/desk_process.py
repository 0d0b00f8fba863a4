"""The notification desk as a child process of the demo: started, cut and stopped; and what its journal says."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

SERVICE = Path(__file__).with_name("desk.py")
END_S = 5.0


class DeskError(Exception):
    """The desk does not start, or died."""


class Arrival(NamedTuple):
    """An alert."""

    id: str
    number: int
    flight: str
    kind: str


@dataclass
class Arrivals:
    """What came to the desk."""

    first: list[Arrival] = field(default_factory=list)
    """Each alert that the desk had not seen before, in the order of their arrival, earlier runs with this store included."""
    again: int = 0
    """Alerts that came once more in this run, known by their id."""
    too_fast: int = 0
    """Requests that were answered with 429."""
    while_cut: int = 0
    """Requests that were answered with 503."""


class DeskProcess:
    """The child process. Its journal lies beside the store, and goes on with it."""

    def __init__(self, journal: Path, per_second: float) -> None:
        """Start it.

        Raises:
            DeskError: it does not start.
        """
        self.arrivals = Arrivals()
        self.cuts = 0
        self._cut_until = 0.0
        self._child = subprocess.Popen(
            [sys.executable, str(SERVICE), str(journal), "--per-second", str(per_second)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal reaches the demo alone
        )
        assert self._child.stdout is not None
        self.url = self._child.stdout.readline().strip()
        if not self.url:
            raise DeskError(f"the desk does not start (exit code {self._child.wait()}): what it said stands above")
        self._journal = journal
        self._read_to = 0
        self._rest = ""
        """The beginning of a line that was not yet there as a whole."""
        self._read()
        self.arrivals = Arrivals(self.arrivals.first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        assert self._child.stdout is not None
        self._child.stdout.close()

    @property
    def pid(self) -> int:
        """Of the child process."""
        return self._child.pid

    @property
    def cut_s(self) -> float:
        """Seconds for which it is still cut."""
        return max(0.0, self._cut_until - time.monotonic())

    def cut(self, seconds: float) -> bool:
        """Cut it. Returns whether it was not."""
        if self.cut_s:
            return False
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it died: the next look says so
            self._child.stdin.write(f"cut {seconds}\n")
            self._child.stdin.flush()
        self._cut_until = time.monotonic() + seconds
        self.cuts += 1
        return True

    def look(self) -> Arrivals:
        """Read what was written since the last look.

        Raises:
            DeskError: it died.
        """
        if self._child.poll() is not None:
            raise DeskError(f"the desk died (exit code {self._child.returncode})")
        self._read()
        return self.arrivals

    def stop(self) -> Arrivals:
        """Let it end, and read the rest."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._read()
        return self.arrivals

    def _read(self) -> None:
        if not self._journal.exists():  # nothing has come yet
            return
        with self._journal.open() as file:
            file.seek(self._read_to)
            *lines, self._rest = (self._rest + file.read()).split("\n")
            self._read_to = file.tell()
        for line in map(json.loads, lines):
            if "refused" not in line:
                if line["again"]:
                    self.arrivals.again += 1
                else:
                    self.arrivals.first.append(Arrival(line["id"], line["number"], line["flight"], line["kind"]))
            elif line["refused"] == 429:
                self.arrivals.too_fast += 1
            else:
                self.arrivals.while_cut += 1
