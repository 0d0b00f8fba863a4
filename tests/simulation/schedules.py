"""Schedules of faults that Hypothesis draws, and makes smaller: fewer faults, earlier ones, and simpler values in them."""

from __future__ import annotations

import json
from random import Random

from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from genesis.chaos import faults as f
from genesis.core.ports import CrashPoint
from tests.simulation.mutants import SOURCE
from tests.simulation.run import nodes_of, run

EVENTS = 96
OVER_S = 2.0
"""Faults begin in the first so many seconds: about as long as the producers send so few events."""
FAULTS_MAX = 12
LOOKS_MAX = 400
"""Schedules that are drawn until one fails; making it smaller comes on top."""


def _seconds(low: float, high: float) -> st.SearchStrategy[float]:
    """In hundredths, which shrink towards the lowest."""
    return st.integers(0, round(100 * (high - low))).map(lambda n: round(low + n / 100, 2))


def fault(nodes: int) -> st.SearchStrategy[f.AnyFault]:
    """Any fault of any kind, the plainest first."""
    node = st.integers(0, nodes - 1)
    few = st.integers(1, 5)
    kinds: dict[str, st.SearchStrategy[f.AnyFault]] = {
        "crash": st.builds(f.Crash, node),
        "commit-fails": st.builds(f.CommitFails, node, st.booleans()),
        "commit-twice": st.builds(f.CommitTwice, node),
        "read-fails": st.builds(f.ReadFails, node),
        "handler-raises": st.builds(f.HandlerRaises, node, few),
        "handler-hangs": st.builds(f.HandlerHangs, node),
        "stop": st.builds(f.Stop, node),
        "pause": st.builds(f.Pause, node, _seconds(0.05, 20)),
        "cut-off": st.builds(f.CutOff, node, _seconds(0.05, 10)),
        "crash-at-point": st.builds(f.CrashAtPoint, node, st.sampled_from(CrashPoint), st.integers(0, 5)),
        "crash-at-step": st.builds(f.CrashAtStep, node, st.integers(1, 1000)),
        "commit-late": st.builds(f.CommitLate, node, _seconds(0.01, 5)),
        "slow-store": st.builds(f.SlowStore, node, _seconds(0.5, 10), _seconds(0.01, 0.5)),
        "store-full": st.builds(f.StoreFull, node, _seconds(0.5, 5)),
        "handler-ignores-cancel": st.builds(f.HandlerIgnoresCancel, node, _seconds(5, 100)),
        "handler-blocks": st.builds(f.HandlerBlocks, node, _seconds(0.01, 3)),
        "handler-slow": st.builds(f.HandlerSlow, node, st.integers(1, 20), _seconds(0.01, 2)),
        "dependency-down": st.builds(f.DependencyDown, node, _seconds(0.5, 20)),
        "clock-jump": st.builds(f.ClockJump, node, _seconds(0.1, 600) | _seconds(0.1, 600).map(lambda s: -s)),
        "clock-drift": st.builds(f.ClockDrift, node, st.integers(-20, 20).map(lambda n: n / 1000)),
    }
    assert set(kinds) == set(f.KINDS), "a strategy for each kind of fault"
    return st.one_of(*kinds.values())


def schedule(nodes: int) -> st.SearchStrategy[list[f.Happening]]:
    """Faults in order of time, while the producers of the bank send."""
    one = st.builds(f.Happening, _seconds(0, OVER_S), fault(nodes))
    return st.lists(one, max_size=FAULTS_MAX).map(lambda found: sorted(found, key=lambda happening: happening.at_s))


def smallest(seed: int) -> list[f.Happening]:
    """A schedule of which a world of the bank complains, as small as Hypothesis can make it; the same in every process.

    Raises:
        hypothesis.errors.NoSuchExample: none was found.
    """

    def fails(found: list[f.Happening]) -> bool:
        return bool(run(seed, events=EVENTS, schedule=found).complaints)

    tries = settings(max_examples=LOOKS_MAX, deadline=None, database=None, phases=(Phase.generate, Phase.shrink))
    return find(schedule(nodes_of(seed)), fails, settings=tries, random=Random(seed))


def attempt(seed: int) -> None:
    """Look for a schedule in the Genesis that this process imported. Prints it, and the complaints without and with it."""
    print(SOURCE, flush=True)
    calm = run(seed, events=EVENTS, schedule=[]).complaints
    found = smallest(seed)
    again = run(seed, events=EVENTS, schedule=found).complaints
    print(json.dumps({"calm": calm, "schedule": json.loads(f.to_json(found)), "complaints": again}))
