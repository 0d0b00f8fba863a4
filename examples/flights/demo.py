"""Replay New York's storm, kill the worker as often as you like, and see that the totals are right in the end.

    python -m examples.flights.demo

Exit code 0 when all totals are as `totals.py` says and the ledger adds up (after `q`: when the ledger adds up), 1 when
not, 2 for wrong arguments, 130 after Ctrl-C.
"""

import json
import math
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from examples.flights.alerts import AlertSettings
from examples.flights.app import app
from examples.flights.circuit import refused_by
from examples.flights.desk_process import DeskError, DeskProcess
from examples.flights.post import Poster, PostError
from examples.flights.report import Report, for_programs, in_words
from examples.flights.screen import screen
from examples.flights.terminal import Keys, Told
from examples.flights.verdict import compare, rows_left
from examples.flights.watch import Trend, Watch
from examples.flights.worker import Worker, WorkerError
from genesis import Settings, SettingsError, StoreError

LOOK_S = 0.25
TICK_S = 0.02
"""How often keys, the worker and, while it heals, the number of the last commit are looked at."""
STALLED_S = 30.0
"""Without a commit although something waits: above the waits before starts in a row, and any disk that still works."""
OK, FAILED, SIGNALLED = 0, 1, 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    options = _options(arguments)
    store: Path = options.store or Path(tempfile.mkdtemp(prefix="genesis-demo-"), "flights.db")
    try:
        return _run(store.absolute(), math.inf if options.full_speed else options.speed, options, _settings())
    except (WorkerError, DeskError, PostError, SettingsError, StoreError) as error:
        print(f"demo: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _settings() -> AlertSettings:
    """As the worker will have them. Raises SettingsError."""
    values, _ = app.own_settings().fill(Settings.load().app)
    settings = values[AlertSettings]
    assert isinstance(settings, AlertSettings)
    return settings


def _run(store: Path, speed: float, options: Namespace, settings: AlertSettings) -> int:
    scale, as_json = options.scale, options.json
    poster = Poster(speed, scale) if options.over_http else None
    with (
        Told() as told,
        Watch(store, scale, (lambda: poster.position) if poster else None) as watch,
        DeskProcess(store.with_name(f"{store.name}.desk"), settings.desk_per_s) as desk,
        Worker(store, 0 if poster else speed, scale, watch.commit, desk.url) as worker,
        poster.posting(lambda: worker.url) if poster else nullcontext(),
    ):
        run = Run(watch, worker, desk, poster, told, options)
        with Keys() as keys, screen(speed, scale, as_json) as picture:
            while run.goes_on():
                if run.changed():
                    picture.draw(run.look, run.trend, watch, worker, desk, keys=keys.usable, help=run.help)
                run.press(keys.pressed(TICK_S))
        report = run.report(speed, scale, settings.late_min)
        print(json.dumps(for_programs(report)) if as_json else in_words(report), flush=True)
        if report.exit_code:
            print(worker.said(), file=sys.stderr)
    if told.signal:
        return SIGNALLED + told.signal
    return OK if report.ok else FAILED


class Run:
    """From the first start of the worker to its end."""

    def __init__(
        self, watch: Watch, worker: Worker, desk: DeskProcess, poster: Poster | None, told: Told, options: Namespace
    ) -> None:
        self.look, self.trend, self.help = watch.look(), Trend(), False
        self._watch, self._worker, self._desk, self._poster, self._told = watch, worker, desk, poster, told
        self._kill_at, self._outage_at = sorted(options.kill_at), sorted(options.outage_at)
        self._outage_s: float = options.outage
        self._first = self.look
        self._worked_at: float | None = None
        """When the feed had come in whole and nothing waited but alerts for the desk."""
        self._done_at: float | None = None
        """When the feed had come in whole and nothing waited any more."""
        self._moved_at = time.monotonic()
        """When the number of the last commit was last seen to grow."""
        self._over = self._quit = self._touched = False
        self._next_look = 0.0

    def goes_on(self) -> bool:
        """Look after the worker. Returns whether there is anything left to do."""
        if self._over or self._quit or self._told.times:
            return False
        worker = self._worker
        worker.tend()
        if self._poster is not None:
            self._poster.check()
        if self._due(self._kill_at) and worker.kill("--kill-at"):
            self._kill_at.pop(0)
        if self._due(self._outage_at) and self._desk.cut(self._outage_s):
            self._outage_at.pop(0)
        return True

    def _due(self, times: list[float]) -> bool:
        return bool(times) and time.monotonic() - self._worker.began >= times[0]

    def changed(self) -> bool:
        """Look at the store, four times a second. Returns whether there is anything new to show."""
        touched, self._touched = self._touched, False
        now = time.monotonic()
        if now < self._next_look:
            return touched
        self._next_look = now + LOOK_S
        before, look = self.look, self._watch.look()
        self.look = look
        self.trend.add(look)
        self._desk.look()
        resting = not look.ledger.waiting or (not look.busy and self._desk.cut_s)
        if look.head.commit_id != before.head.commit_id or (before.head.commit_id and resting):
            self._moved_at = now
        if now - self._moved_at > STALLED_S:
            waiting = f"{look.ledger.waiting:,} deliveries wait in {self._watch.store}"
            raise WorkerError(f"the worker has committed nothing for {STALLED_S:g} s; {waiting}")
        worked = look.position == self._watch.events - 1 and not look.busy
        whole = worked and not look.outbox
        self._worked_at = (self._worked_at or look.now) if worked else None
        self._done_at = (self._done_at or look.now) if whole else None
        self._over = whole and not self._worker.doomed and self._watch.over(look, self._worker.pid)
        return True

    def press(self, key: str) -> None:
        """A key was pressed, or none."""
        self._touched = bool(key)
        if key == "k":
            self._worker.kill("key k")
        elif key == "o":
            self._desk.cut(self._outage_s)
        elif key == "q":
            self._quit = True
        elif key:
            self.help = key == "?" and not self.help

    def report(self, speed: float, scale: int, late_min: int) -> Report:
        """Stop the worker and the desk in order, and say what came out."""
        end = self._done_at or time.monotonic()
        worked = self._worked_at or end
        if self._poster is not None:
            self._poster.stop()
        refused = refused_by(self._worker.url)
        code = self._worker.stop(hurry=lambda: self._told.times > 1)
        desk = self._desk.stop()
        last, outside = self._watch.look(), self._watch.outside
        left = rows_left(outside, last.head) if outside is not None else ""
        by_hand = last.by_hand - last.ledger.waiting  # what came in at the very end still waits
        return Report(
            store=self._watch.store,
            speed=speed,
            scale=scale,
            over_http=self._poster is not None,
            first=self._first,
            last=last,
            seconds=worked - self._worker.began,
            desk_s=end - worked,
            desk=desk,
            outages=self._desk.cuts,
            circuit=self.trend.circuit,
            refused=refused,
            exit_code=code,
            imbalance="; ".join(filter(None, (last.imbalance, left))),
            falls=self._worker.falls,
            kills_left=self._kill_at,
            outages_left=self._outage_at,
            verdict=compare(outside, desk.first, scale, late_min, by_hand) if self._over and outside is not None else None,
        )


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog="./dev demo",
        description="Replay New York's flights of 7 to 10 February 2013, the days of a snow storm, through a worker that"
        " you may kill; then compare what came out with totals counted without Genesis.",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed",
        type=_positive,
        default=1440.0,
        metavar="X",
        help="seconds of 2013 in one of ours; 1440, a day a minute, by default",
    )
    pace.add_argument("--full-speed", action="store_true", help="do not wait for the clock at all")
    parser.add_argument("--scale", type=_copies, default=1, metavar="N", help="copies of the world; 1 by default")
    parser.add_argument(
        "--store", type=Path, metavar="PATH", help="where to keep the store, or one to go on with; a new folder by default"
    )
    parser.add_argument(
        "--kill-at", type=_positive, nargs="+", default=[], metavar="SECONDS", help="kill -9 the worker after so many seconds"
    )
    parser.add_argument(
        "--outage-at", type=_positive, nargs="+", default=[], metavar="SECONDS", help="cut the desk after so many seconds"
    )
    parser.add_argument("--outage", type=_positive, default=30.0, metavar="SECONDS", help="how long a cut lasts; 30 by default")
    parser.add_argument(
        "--over-http", action="store_true", help="post the feed to the worker, in batches, instead of its reading it itself"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, to stdout")
    options = parser.parse_args(arguments)
    if options.over_http and options.store and options.store.exists():
        parser.error(f"--over-http begins at the beginning, and {options.store} is there: name another")
    return options


def _positive(text: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if 0 < number < math.inf:
            return number
    raise ArgumentTypeError(f"{text!r} is no number above 0")


def _copies(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise ArgumentTypeError(f"{text!r} is no whole number from 1")


if __name__ == "__main__":
    sys.exit(main())
