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
from contextlib import suppress
from pathlib import Path

from examples.flights.report import Report, for_programs, in_words
from examples.flights.screen import screen
from examples.flights.terminal import Keys, Told
from examples.flights.verdict import compare, rows_left
from examples.flights.watch import Trend, Watch
from examples.flights.worker import Worker, WorkerError
from genesis.core.errors import StoreError

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
        return _run(store.absolute(), math.inf if options.full_speed else options.speed, options)
    except (WorkerError, StoreError) as error:
        print(f"demo: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _run(store: Path, speed: float, options: Namespace) -> int:
    scale, as_json = options.scale, options.json
    with Told() as told, Watch(store, scale) as watch, Worker(store, speed, scale, watch.commit) as worker:
        run = Run(watch, worker, told, sorted(options.kill_at))
        with Keys() as keys, screen(speed, scale, as_json) as picture:
            while run.goes_on():
                if run.changed():
                    picture.draw(run.look, run.trend, watch, worker, keys=keys.usable, help=run.help)
                run.press(keys.pressed(TICK_S))
        report = run.report(speed, scale)
        print(json.dumps(for_programs(report)) if as_json else in_words(report), flush=True)
        if report.exit_code:
            print(worker.said(), file=sys.stderr)
    if told.signal:
        return SIGNALLED + told.signal
    return OK if report.ok else FAILED


class Run:
    """From the first start of the worker to its end."""

    def __init__(self, watch: Watch, worker: Worker, told: Told, kill_at: list[float]) -> None:
        self.look, self.trend, self.help = watch.look(), Trend(), False
        self._watch, self._worker, self._told, self._kill_at = watch, worker, told, kill_at
        self._first = self.look
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
        worker, left = self._worker, self._kill_at
        worker.tend()
        if left and time.monotonic() - worker.began >= left[0] and worker.kill("--kill-at"):
            left.pop(0)
        return True

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
        if look.head.commit_id != before.head.commit_id or (before.head.commit_id and not look.ledger.waiting):
            self._moved_at = now
        if now - self._moved_at > STALLED_S:
            waiting = f"{look.ledger.waiting:,} deliveries wait in {self._watch.store}"
            raise WorkerError(f"the worker has committed nothing for {STALLED_S:g} s; {waiting}")
        whole = look.position == self._watch.events - 1 and not look.ledger.waiting
        self._done_at = (self._done_at or look.now) if whole else None
        self._over = whole and not self._worker.doomed and self._watch.over(look, self._worker.pid)
        return True

    def press(self, key: str) -> None:
        """A key was pressed, or none."""
        self._touched = bool(key)
        if key == "k":
            self._worker.kill("key k")
        elif key == "q":
            self._quit = True
        elif key:
            self.help = key == "?" and not self.help

    def report(self, speed: float, scale: int) -> Report:
        """Stop the worker in order, and say what came out."""
        end = self._done_at or time.monotonic()
        code = self._worker.stop(hurry=lambda: self._told.times > 1)
        last, outside = self._watch.look(), self._watch.outside
        left = rows_left(outside, last.head) if outside is not None else ""
        return Report(
            store=self._watch.store,
            speed=speed,
            scale=scale,
            first=self._first,
            last=last,
            seconds=end - self._worker.began,
            exit_code=code,
            imbalance="; ".join(filter(None, (last.imbalance, left))),
            falls=self._worker.falls,
            kills_left=self._kill_at,
            verdict=compare(outside, scale, last.by_hand - last.ledger.waiting) if self._over and outside is not None else None,
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
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, to stdout")
    return parser.parse_args(arguments)


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
