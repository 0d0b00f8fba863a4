"""Timers and schedules: none before its time, none much later, missed ticks collapse. Knows nothing of genesis."""

from __future__ import annotations

from itertools import pairwise

from tests.simulation.facts import Facts

LATE_S = 90.0
"""How long after the last fault a timer may be late: what was evicted comes back within a minute, hung handlers end."""
PROMPT_S = 3.0
"""How late it may be once that is over."""


def times(facts: Facts) -> list[str]:
    """Everything that is wrong with timers and ticks."""
    return [*facts.early, *_late(facts), *_ticks(facts)]


def _late(facts: Facts) -> list[str]:
    wrong = []
    for n, (due, wall, at) in facts.states["books"].get("late", {"heard": {}})["heard"].items():
        late_s = max(0.0, wall - due)  # by the slowest clock: the one in force has come as far
        trouble_until = facts.calm_at + LATE_S + facts.skew_s  # its key may wait for a retry that is due by another clock
        if late_s > PROMPT_S and at > trouble_until:
            wrong.append(f"the timer of {n} was heard {late_s:.1f} s late, {at - facts.calm_at:.1f} s after the last fault")
    return wrong


def _ticks(facts: Facts) -> list[str]:
    dues = [due for state in facts.states["clockwork"].values() for due in state["dues"]]
    wrong = []
    for before, after in pairwise(dues):
        periods = (after - before) / facts.tick_s
        if periods < 0.5 or abs(periods - round(periods)) > 0.01:
            wrong.append(f"a tick that was due at {after:.3f} came after the one at {before:.3f}")
    if not dues or dues[-1] < facts.wall_at_end - 2 * facts.tick_s:
        wrong.append(f"the last tick was due at {dues[-1:]}, and it is {facts.wall_at_end:.3f}")
    return wrong
