"""Torture by hand: ``python -m tests.torture --kills 100 --seed 7 --report out.json``. Exit code 1: a promise was broken."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.torture.drive import plan, torture, write_report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Kill an application again and again.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--http", action="store_true", help="offer them as CloudEvents to genesis run --http")
    parser.add_argument("--rate", type=float, default=700.0, help="events offered a second")
    parser.add_argument("--report", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run")
    given = parser.parse_args()
    report = torture(
        plan(given.kills, given.seed),
        given.seed,
        http=given.http,
        rate=given.rate,
        say=lambda line: print(line, file=sys.stderr),
        keep=given.keep,
    )
    print(report.text())
    if given.report:
        write_report(report, given.report)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
