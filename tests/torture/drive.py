"""The driver: starts the application and the producer, kills the application again and again, lets it drain, has it judged.

It keeps the listening socket and hands it down, so that a connection made while the application is dead waits for the
next one. A kill is at a point of the commit path (the application kills itself there), at a random moment, or an orderly
stop (SIGTERM). Each life gets other limits, so that windows, caches and slots run short too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from tests.torture.check import CLERK, Verdict, check
from tests.torture.history import History

ROOT = Path(__file__).parents[2]
POINTS = ("append", "execute", "commit", "answer", "handoff")
LIMITS: tuple[dict[str, str], ...] = (
    {},
    {"GENESIS_WINDOW_BYTES": "20000"},
    {"GENESIS_CACHE_BYTES": "20000"},
    {"GENESIS_SLOTS": "3"},
    {"GENESIS_WINDOW_BYTES": "5000", "GENESIS_CACHE_BYTES": "5000", "GENESIS_SLOTS": "2"},
)
ERRORS = r'ERROR|CRITICAL|Traceback|.*"level":"(ERROR|CRITICAL)"'
"""Lines of either log that nobody wants to read."""
POINT_PASSES = 150
"""A point kills at one of its first so many passings."""
HTTP_PASSES = 800
"""The same behind the door, which opens when the source has made its first commits."""
POINT_WAIT_S = 20.0
STOP_WAIT_S = 30.0
DRAIN_WAIT_S = 90.0
RANDOM_S = 1.0
"""A random kill comes within so many seconds of the start: often enough while it is still opening the store."""
RANDOM_HTTP_S = 2.5
"""The same for `genesis run`, which takes longer to start."""


class TortureError(Exception):
    """The run itself failed: a process ended by itself, or did not come to its end."""


@dataclass
class Life:
    """One start of the application."""

    kind: str
    started: float
    ended: float = 0.0


@dataclass
class Report:
    """What a run gave."""

    seed: int
    seconds: float
    lives: list[Life]
    verdict: Verdict
    history: History
    complaints: list[str]
    """Lines that Genesis logged as errors, and processes that ended by themselves."""
    kills: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.kills = Counter(life.kind for life in self.lives[:-1])

    @property
    def good(self) -> bool:
        return self.verdict.good and not self.complaints

    def first_yes(self) -> list[float]:
        """Seconds from each start to the first answer, of the lives that gave one."""
        times, found = sorted(self.history.yes_times), []
        for life in self.lives:
            at = bisect_left(times, life.started)
            if at < len(times) and times[at] < life.ended:
                found.append(times[at] - life.started)
        return found

    def facts(self) -> dict[str, Any]:
        """The figures, as plain values."""
        verdict, events, first = self.verdict, self.history.events.values(), sorted(self.first_yes())
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "kills": dict(sorted(self.kills.items())),
            "offered": len(events) + len(self.history.questions),
            "accepted": sum(event.said_yes for event in events) + len(self.history.answers),
            "filed": sum(event.link == CLERK for event in events),
            "refused": dict(self.history.refusals),
            "batches": len(self.history.batches),
            "left": sum(event.left for event in events),
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "unexpected": verdict.unexpected,
            "out_of_order": verdict.disordered,
            "checked": sum(row.checked for row in verdict.rows),
            "broken": {row.promise: row.broken[:20] for row in verdict.rows if row.broken},
            "complaints": self.complaints[:20],
            "first_yes_s": {
                "lives": len(first),
                "median": round(median(first), 3) if first else None,
                "p90": round(first[int(0.9 * (len(first) - 1))], 3) if first else None,
                "max": round(first[-1], 3) if first else None,
            },
            "good": self.good,
        }

    def text(self) -> str:
        """The verdict and the figures, for people."""
        facts = self.facts()
        names = ("seed", "seconds", "kills", "offered", "accepted", "filed", "batches", "left", "refused", "first_yes_s")
        return "\n".join([self.verdict.table(), *self.complaints[:20], *(f"{name}: {facts[name]}" for name in names)])


class Torture:
    """One run, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, *, rate: float, say: Callable[[str], None], http: bool = False) -> None:
        self._folder, self._seed, self._rate, self._say, self._http = folder, seed, rate, say, http
        self._rng = Random(seed)
        self.store, self.log, self.outside = folder / "torture.db", folder / "producer.log", folder / "outside"
        self._words = folder / "app.log"
        self._lives: list[Life] = []
        self._complaints: list[str] = []

    def run(self, kills: list[str]) -> Report:
        """Kill the application in each of these ways, then let it come to rest.

        A way is ``random``, ``stop`` (in order), or the name of a point, with or without ``:N`` for its N-th passing.
        """
        began = time.monotonic()
        self.outside.touch()
        with closing(self._door()) as door:
            port = door.getsockname()[1]
            program = "tests.torture.web" if self._http else "tests.torture.producer"
            producer = [program, str(port), str(self.log), str(self._seed), str(self._rate)]
            clerk = ["tests.torture.clerk", str(self.store), str(self.log), str(self._seed)]
            with self._process(producer) as offers, self._process(clerk) as files:
                for number, kind in enumerate(kills, 1):
                    self._say(f"kill {number} of {len(kills)}: {kind}")
                    self._live(door, kind)
                self._rest(door, offers, files)
        verdict, history = check(self.store, self.log, self.outside)
        self._complaints += [line for line in self._words.read_text().splitlines() if re.match(ERRORS, line)]
        return Report(self._seed, time.monotonic() - began, self._lives, verdict, history, self._complaints)

    def _door(self) -> socket.socket:
        """The listening socket that is handed down; for HTTP, one that keeps the port for the door that opens it."""
        if not self._http:
            return socket.create_server(("127.0.0.1", 0), backlog=128)
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        return kept

    # --- lives ------------------------------------------------------------------------------------------------------

    def _live(self, door: socket.socket, kind: str) -> None:
        """Start the application, and end it in one way."""
        settings = dict(self._rng.choice(LIMITS))
        kind, _, given = kind.partition(":")
        if kind in POINTS:
            passes = given or self._passes()
            settings["GENESIS_CRASH"] = f"{kind}:{passes}"
        wait_s = POINT_WAIT_S if kind in POINTS else self._rng.uniform(0.0, RANDOM_HTTP_S if self._http else RANDOM_S)
        with self._life(door, kind, settings) as app:
            code = _ended(app, wait_s)
            if code is None and kind == "stop":
                app.send_signal(signal.SIGTERM)
                code = _ended(app, STOP_WAIT_S)
            elif code is None:
                app.kill()
                code = app.wait()
                if kind in POINTS:
                    self._complaints.append(f"{settings['GENESIS_CRASH']} was not passed in {wait_s:.0f} s")
        if code not in ((0, -signal.SIGTERM) if kind == "stop" else (-signal.SIGKILL,)):
            raise TortureError(f"{kind}: the application ended with {code}\n{self._last_words()}")

    def _passes(self) -> int:
        rng, many = self._rng, self._rng.randrange(1, HTTP_PASSES if self._http else POINT_PASSES)
        return rng.choice((3, many, many, many) if self._http else (1, 2, 3, many))

    def _rest(self, door: socket.socket, *outsiders: subprocess.Popen[bytes]) -> None:
        """One more life, without a kill: everything that was begun ends."""
        self._say("draining")
        with self._life(door, "rest", {"TORTURE_CALM": "1"}) as app:
            for outsider in outsiders:
                assert outsider.stdin is not None
                outsider.stdin.write(b"stop\n")
                outsider.stdin.flush()
            codes = [_ended(outsider, DRAIN_WAIT_S) for outsider in outsiders]
            if any(code != 0 for code in codes):
                raise TortureError(f"producer and clerk did not get their answers: {codes}\n{self._last_words()}")
            until = time.monotonic() + DRAIN_WAIT_S
            while waiting := self._waiting():
                if _ended(app, 0.05) is not None or time.monotonic() > until:
                    raise TortureError(f"no rest: {waiting} rows wait\n{self._last_words()}")
            app.send_signal(signal.SIGTERM)
            if _ended(app, STOP_WAIT_S) != 0:
                raise TortureError(f"the application did not stop in order: {app.returncode}\n{self._last_words()}")

    def _waiting(self) -> int:
        with closing(sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)) as db:
            return sum(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("event", "pending", "timer"))

    def _last_words(self) -> str:
        return self._words.read_text()[-4000:]

    # --- processes --------------------------------------------------------------------------------------------------

    @contextmanager
    def _life(self, door: socket.socket, kind: str, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        life = Life(kind, time.monotonic())
        self._lives.append(life)
        settings = {"TORTURE_OUTSIDE": str(self.outside), "GENESIS_TRUST_PRIORITY": "true", **settings}
        command = ["tests.torture.app", str(self.store), str(door.fileno())]
        if self._http:
            command = ["genesis", "run", "tests.torture.app:app", "--leash", "--store", str(self.store)]
            command += ["--http", str(door.getsockname()[1])]
        with self._process(command, settings, *([] if self._http else [door.fileno()])) as app:
            yield app
        life.ended = time.monotonic()

    @contextmanager
    def _process(
        self, command: list[str], settings: dict[str, str] | None = None, *handles: int
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A process that does not outlive the block, nor this one: it ends when its stdin does."""
        env = {**os.environ, **(settings or {})}
        with self._words.open("ab") as words:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                cwd=ROOT,
                env=env,
                pass_fds=handles,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _ended(process: subprocess.Popen[bytes], wait_s: float) -> int | None:
    """The exit code, or None when it still runs after so many seconds."""
    try:
        return process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return None


def plan(kills: int, seed: int) -> list[str]:
    """Ways to die, in random order: half at points, each as often as the others; the rest at random, some in order."""
    points = [POINTS[i % len(POINTS)] for i in range(max(kills // 2, min(kills, 2 * len(POINTS))))]
    others = ["stop" if i % 8 == 7 else "random" for i in range(kills - len(points))]
    ways = points + others
    Random(seed).shuffle(ways)
    return ways


def torture(
    kills: list[str],
    seed: int,
    *,
    http: bool = False,
    rate: float = 700.0,
    say: Callable[[str], None] = lambda line: None,
    keep: bool = False,
) -> Report:
    """Run it in a folder of its own, which is kept (and named) when a promise was broken.

    Raises:
        TortureError: the run did not come to its end.
    """
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        report = Torture(folder, seed, rate=rate, say=say, http=http).run(kills)
    except BaseException:
        say(f"kept: {folder}")
        raise
    if keep or not report.good:
        say(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return report


def write_report(report: Report, path: Path) -> None:
    """The figures as JSON."""
    path.write_text(json.dumps(report.facts(), indent=2) + "\n")
