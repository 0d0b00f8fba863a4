"""``python -m benchmarks NAME``: measure, and print a table, or a line of JSON for each figure."""

import argparse
import os
import sys
from importlib import import_module
from textwrap import fill

from benchmarks.harness import HEADING, Figure, Options, as_json, as_row

NAMES = (
    *("memory", "sqlite", "restart", "waiting", "busy", "simulation", "ingest", "cli", "new_user"),
    *("call", "hedge", "outage", "probes", "leaks", "circuit", "timeouts", "latencies"),
)


def figures(name: str) -> dict[str, Figure]:
    return {figure.name: figure for figure in import_module(f"benchmarks.{name}").FIGURES}


def listing() -> None:
    for name in NAMES:
        print(f"{name}: {import_module(f'benchmarks.{name}').__doc__}")
        for figure in figures(name).values():
            print(f"\n  {figure.name} [{figure.unit}]" + (f"  goal: {figure.goal}" if figure.goal else ""))
            print(fill(figure.meaning, 110, initial_indent="    ", subsequent_indent="    "))
        print()
    print("profile memory | profile sqlite: where the time goes, as text.\n")
    print("A ratio is value / raw, the median of pairs that ran one after the other in processes of their own.")


def measure(names: list[str], options: Options, json: bool) -> None:
    if not json:
        print(HEADING)
    for name in names:
        goals = figures(name)
        for measured in import_module(f"benchmarks.{name}").measure(options):
            print(as_json(measured) if json else as_row(measured, goals[measured.figure].goal), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure Genesis beside its raw limits.")
    parser.add_argument("name", choices=[*NAMES, "all", "list", "profile"], help="what to measure; `list` says what each means")
    parser.add_argument("of", nargs="?", choices=["memory", "sqlite"], help="of `profile`: which benchmark")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each figure")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side; the median counts (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the events, for a quick look (default 1)")
    given = parser.parse_args()
    options = Options(max(1, given.runs), given.scale)
    if given.name == "list":
        listing()
    elif given.name == "profile":
        from benchmarks.profile import text

        print(text(given.of or "memory", options))
    else:
        measure(list(NAMES) if given.name == "all" else [given.name], options, given.json)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        os._exit(130)
    except BrokenPipeError:
        os._exit(0)
