"""What came to the archive, outside of all processes. Knows nothing of genesis."""

from __future__ import annotations

from itertools import pairwise

from tests.simulation.facts import Facts

BATCH = 20
"""Items of one call."""


def refused_by_archive(n: int) -> bool:
    """Whether the archive never takes a deposit."""
    return n % 53 == 7


def archive(facts: Facts) -> list[str]:
    """Each deposit came, under a number of its own, in the order of numbers; few came again after they had been taken."""
    must = {e["id"] for e in facts.kind("deposit") if not refused_by_archive(e["n"])}
    came = {e["id"] for e in facts.kind("deposit")}
    taken = [event_id for _, event_id in facts.archived]
    wrong = []
    if lost := must - set(taken):
        wrong.append(f"the archive: lost {sorted(lost)}")
    if strange := (set(taken) - must) | ({event_id for _, event_id in facts.arrived} - came):
        wrong.append(f"the archive: has {sorted(strange)}, and should not")
    numbered = dict.fromkeys(facts.arrived)
    if len({number for number, _ in numbered}) != len(numbered) or len({found for _, found in numbered}) != len(numbered):
        wrong.append(f"the archive: {len(numbered)} numbered ids, and some share a number, or have two")
    if back := [pair for pair in pairwise(number for number, _ in numbered) if pair[0] >= pair[1]]:
        wrong.append(f"the archive: numbers of first arrivals go back: {back[:3]}")
    again = len(taken) - len(set(taken))
    if again > BATCH * facts.epochs:
        wrong.append(f"the archive: {again} items were taken again, and the store had {facts.epochs} owners")
    return wrong
