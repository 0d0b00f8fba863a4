"""What must be so in the end, computed from what was sent. Knows nothing of genesis: plain values in, complaints out.

The queue checks are those of Jepsen's total-queue: nothing acknowledged is lost, nothing unexpected or doubled appears.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.simulation import check_archive, check_effects, check_letters, check_time
from tests.simulation.facts import Event, Facts

HIGH, NORMAL = 1, 2


def complaints(facts: Facts) -> list[str]:
    """Everything that is wrong, in words."""
    return [
        *check_effects.accounts(facts),
        *check_effects.notes(facts),
        *check_effects.logs(facts),
        *check_effects.safes(facts),
        *check_effects.answers(facts),
        *check_archive.archive(facts),
        *check_letters.letters(facts),
        *check_time.times(facts),
        *_receipts(facts),
        *_ledger(facts),
    ]


def _receipts(facts: Facts) -> list[str]:
    """The first yes of an event says that it is new if it was the first try; any later one, that it is a duplicate."""
    wrong = []
    for e in facts.accepted:
        for number, (attempt, duplicate) in enumerate(e["told"]):
            if number and not duplicate:
                wrong.append(f"{e['id']}: sent again after its yes, and taken for new")
            if attempt == 1 and duplicate:
                wrong.append(f"{e['id']}: sent for the first time, and taken for a duplicate")
    for bulk in facts.bulks:
        if bulk["told"] is not None and bulk["told"] != [False] * len(bulk["lines"]):
            wrong.append(f"sent in one go: the yes to {bulk['lines']} says of duplicates {bulk['told']}")
    return wrong


def _by_priority(events: Iterable[Event]) -> Counter[int]:
    return Counter(e["priority"] for e in events)


def _ledger(facts: Facts) -> list[str]:
    ledger, statements, good = facts.ledger, facts.kind("statement"), facts.good
    dead, replays = len(facts.letters), ledger["replay"]
    asks = sum(1 for answer in facts.answers if not answer["read_only"])
    rates = sum(1 for e in facts.kind("deposit") if e["asks"])
    notes = sum(e["notes"] for e in good) + sum(1 for e in statements if e["rejects"] != "mail")
    notes += len(facts.kind("sealed")) - facts.dropped
    timers = sum(1 for e in good if e["timer_s"]) + sum(len(state["dues"]) for state in facts.states["clockwork"].values())
    expired = len({e["n"] for e in facts.kind("fleeting")} - set(facts.seen("desks")))
    accepted = len(facts.accepted) + len(facts.lines) + asks + rates + facts.readings
    rates_again = ledger["accepted"] - accepted  # a replayed one asks anew
    external = accepted + rates_again + len(statements) + len(facts.kind("deposit"))  # the archive gets those, too
    want = {
        "external": external,
        "emitted": notes,
        "timer": timers,
        "done": external + notes + timers - dead - facts.dropped - expired,
        "dead": dead + facts.dropped + replays,
        "expired": expired,
        "in_lanes": 0,
        "in_pending": 0,
        "in_outbox": 0,
        "offered": ledger["accepted"] + ledger["refused"] + ledger["duplicate"],
    }
    wrong = [f"ledger: {name} is {ledger[name]}, not {count}" for name, count in want.items() if ledger[name] != count]
    low, high = facts.replayed
    if not low <= replays <= high:
        wrong.append(f"ledger: {replays} replays, and {low} to {high} were made")
    if not 0 <= rates_again <= replays:
        wrong.append(f"ledger: {ledger['accepted']} accepted, and {accepted} were sent")
    if ledger["refused"] + ledger["duplicate"] > facts.calls + facts.asked + facts.readings - accepted:
        wrong.append(f"ledger: more was refused or a duplicate than was sent again: {ledger}")
    return wrong + _priorities(facts, asks + rates + rates_again + facts.readings + len(facts.lines), notes, timers, replays)


def _priorities(facts: Facts, normal: int, notes: int, timers: int, replays: int) -> list[str]:
    ticks = sum(len(state["dues"]) for state in facts.states["clockwork"].values())
    born = _by_priority(facts.accepted) + _by_priority(facts.kind("statement", "deposit"))
    born[NORMAL] += normal + ticks
    born[HIGH] += notes + timers - ticks
    wrong = []
    if sum(facts.born) != sum(born.values()) + replays or any(facts.born[p] < born[p] for p in range(5)):
        wrong.append(f"born by priority: {facts.born}, not {[born[p] for p in range(5)]} and {replays} replays")
    if list(facts.ended) != list(facts.born):
        wrong.append(f"ended by priority: {facts.ended}, and born were {facts.born}")
    if any(facts.waiting):
        wrong.append(f"waiting by lane: {facts.waiting}, and nothing waits")
    return wrong
