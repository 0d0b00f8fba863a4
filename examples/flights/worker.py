"""The application as a process of its own: started, killed, and started again when it dies.

It heals from its death to the first commit of the next process. A process that ends by itself before anything was ever
committed, or too many in a row that commit nothing, end the demo.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

APP = "examples.flights.app:app"
ROOT = Path(__file__).resolve().parents[2]
WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Before the next start, by the number of processes in a row that ended by themselves without a commit."""
DRAIN_S = 20.0
"""For an end in order: above the 10 s that running handlers have."""
HEAD_BYTES, TAIL_BYTES = 64_000, 4000
OPENED = re.compile(rb"  http (http://\S+:(\d+))")
"""What a worker says of its HTTP door."""


@dataclass
class Fall:
    """A death of the worker before its work was done."""

    at_s: float
    """Since the start of the demo."""
    by: str
    healed_s: float | None = None
    """From the death to the next commit; None: not yet."""


class WorkerError(Exception):
    """The worker cannot start, or dies again and again."""


class Worker:
    """The child process. `tend` looks after it and is to be called often; only `stop` waits."""

    def __init__(self, store: Path, speed: float, scale: int, commit: Callable[[], int], desk: str = "") -> None:
        """`commit` reads the number of the last commit, 0 when there is none; `desk` is the URL for alerts."""
        self.falls: list[Fall] = []
        self.began = time.monotonic()
        self.url = ""
        """Of the HTTP door; empty: not known yet. It is that of the first process for all, so that people find it again."""
        self._port = "0"
        self._command = [sys.executable, "-m", "genesis", "run", APP, "--store", str(store), "--host", "127.0.0.1", "--http"]
        self._environment = {
            **os.environ,
            "FLIGHTS_SPEED": str(speed),
            "FLIGHTS_SCALE": str(scale),
            "GENESIS_APP_ALERTS_DESK": desk,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self._commit = commit
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._child: subprocess.Popen[bytes] | None = None
        self._by = ""
        """Who killed the process that runs."""
        self._next_start = self.began
        self._failures = 0
        self._before = commit()
        """The last commit before the process that runs."""
        self._silent = True
        """It committed nothing yet."""

    def __enter__(self) -> Self:
        self.tend()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._stderr.close()

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None: it is down."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    @property
    def doomed(self) -> bool:
        """Whether it was killed and is not yet known to be dead."""
        return bool(self._by)

    def kill(self, by: str) -> bool:
        """`kill -9`. Returns whether there was a process to kill that did not have it coming yet."""
        if self._child is None or self._by or self._child.poll() is not None:
            return False
        self._by = by
        self._child.kill()
        return True

    def tend(self) -> None:
        """Notice a death, start again when it is time, notice the first commit after it.

        Raises:
            WorkerError: it is of no use.
        """
        now = time.monotonic()
        if not self.url:
            self._find_door()
        if self._child is not None and self._child.poll() is not None:
            self._bury(self._child.returncode, now)
        if self._child is None and now >= self._next_start:
            self._start()
        elif self._child is not None and self._silent and self._commit() > self._before:
            self._silent, self._failures = False, 0
            for fall in self.falls:
                if fall.healed_s is None:
                    fall.healed_s = now - self.began - fall.at_s

    def _start(self) -> None:
        self._silent = True
        self._child = subprocess.Popen(
            [*self._command, self._port],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C in the terminal reaches the demo alone, which stops the worker in order
        )

    def _find_door(self) -> None:
        said = OPENED.search(os.pread(self._stderr.fileno(), HEAD_BYTES, 0))
        if said is not None:
            self.url, self._port = said[1].decode(), said[2].decode()

    def _bury(self, code: int, now: float) -> None:
        by, self._by, self._child = self._by, "", None
        commit = self._commit()
        if not by:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._failures += self._silent and commit == self._before
            if not commit and code > 0:
                raise WorkerError(f"the worker does not start ({how}); it said:\n{self.said()}")
            if self._failures == len(WAITS_S):
                raise WorkerError(f"the worker ended {len(WAITS_S)} times without a commit ({how}); it said:\n{self.said()}")
            by = how
        self._before = commit
        self._next_start = now + WAITS_S[self._failures]
        self.falls.append(Fall(now - self.began, by))

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> int:
        """Let it end in order (SIGTERM), or kill it when that lasts too long or `hurry` says so. Returns its exit code."""
        child = self._child
        if child is None:
            return 0
        if child.poll() is None:
            child.terminate()
        end = time.monotonic() + DRAIN_S
        while child.poll() is None:
            if hurry() or time.monotonic() > end:
                child.kill()
            time.sleep(0.01)
        return child.returncode

    def said(self) -> str:
        """The end of what all its processes said on stderr."""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))  # its place is the child's too
        return tail.decode(errors="replace").strip()
