"""What must be so in the end, computed from what was sent. Knows nothing of genesis: plain values in, complaints out.

The queue checks are those of Jepsen's total-queue: nothing acknowledged is lost, nothing unexpected or doubled appears.
"""

from collections import Counter
from typing import Any

Event = dict[str, Any]
"""An event as its producer wrote it down: producer, kind, priority, n, key, and what it was to do. The order is the order
in which its producer had its yes."""


def complaints(
    accepted: list[Event],
    accounts: dict[str, dict[str, Any]],
    books: dict[str, dict[str, Any]],
    ledger: dict[str, int],
    dead: list[str],
    charged: dict[int, list[str]],
    answers: int,
    *,
    zombies: bool,
) -> list[str]:
    """Everything that is wrong, in words. `zombies`: whether a process may have gone on after another took over."""
    wrong: list[str] = []
    good = [e for e in accepted if e["kind"] == "deposit" and e["end"] == "ok"]
    for key in sorted({e["key"] for e in accepted} | set(accounts)):
        account = accounts.get(key, {"total": 0, "seen": [], "charges": {}})
        wrong += _account(key, [e for e in good if e["key"] == key], account)
        wrong += _charges(key, [e for e in good if e["key"] == key], account, charged, zombies)
    wrong += _notes(good, books)
    wrong += _dead(accepted, dead)
    wrong += _ledger(accepted, good, ledger, answers)
    return wrong


def _account(key: str, good: list[Event], account: dict[str, Any]) -> list[str]:
    wrong = []
    want, have = Counter(e["n"] for e in good), Counter(n for _, n in account["seen"])
    if want - have:
        wrong.append(f"{key}: lost {sorted(want - have)}")
    if have - want:
        wrong.append(f"{key}: doubled or unexpected {sorted(have - want)}")
    if account["total"] != sum(e["n"] for e in good) and want == have:
        wrong.append(f"{key}: the total is {account['total']}, not {sum(e['n'] for e in good)}")
    for producer in sorted({e["producer"] for e in good}):
        for priority in range(5):
            order = [e["n"] for e in good if e["producer"] == producer and e["priority"] == priority]
            members = set(order)
            found = [n for p, n in account["seen"] if p == priority and n in members]
            if found != order and Counter(found) == Counter(order):
                wrong.append(
                    f"{key}: producer {producer}, priority {priority}: sent in the order {order}, took effect as {found}"
                )
    return wrong


def _charges(key: str, good: list[Event], account: dict[str, Any], charged: dict[int, list[str]], zombies: bool) -> list[str]:
    wrong = []
    for e in good:
        calls, counted = charged.get(e["n"], []), account["charges"].get(e["n"])
        if not e["charges"]:
            if calls or counted:
                wrong.append(f"{key}: {e['n']} called the outside, and was not to")
        elif len(set(calls)) != 1:
            wrong.append(f"{key}: {e['n']} called the outside under the keys {sorted(set(calls))}")
        elif counted != len(calls) and not (zombies and counted in range(1, len(calls))):
            wrong.append(f"{key}: {e['n']} counted call {counted} of {len(calls)}: none comes after the one that was committed")
    return wrong


def _notes(good: list[Event], books: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    want: dict[str, Counter[int]] = {}
    for e in good:
        want.setdefault(f"book-{e['n'] % 3}", Counter()).update(10 * e["n"] + i for i in range(e["notes"]))
        if e["timer_s"]:
            want.setdefault("late", Counter())[e["n"]] += 1
    for key in sorted(want.keys() | books.keys()):
        expected, found = want.get(key, Counter()), Counter(books.get(key, {"notes": {}})["notes"])
        if expected - found:
            wrong.append(f"{key}: never heard {sorted(expected - found)}")
        if found - expected:
            wrong.append(f"{key}: heard too often {sorted(found - expected)}")
    return wrong


def _dead(accepted: list[Event], dead: list[str]) -> list[str]:
    want = Counter(e["id"] for e in accepted if e["kind"] == "hopeless" or e["end"] == "rejected")
    have = Counter(dead)
    wrong = []
    if want - have:
        wrong.append(f"not among the dead letters: {sorted(want - have)}")
    if have - want:
        wrong.append(f"dead letters that should be none: {sorted(have - want)}")
    return wrong


def _ledger(accepted: list[Event], good: list[Event], ledger: dict[str, int], answers: int) -> list[str]:
    emitted = sum(e["notes"] for e in good)
    timers = sum(1 for e in good if e["timer_s"])
    dead = len(accepted) - len(good)
    want = {
        "accepted": len(accepted) + answers,
        "external": len(accepted) + answers,
        "emitted": emitted,
        "timer": timers,
        "done": len(good) + emitted + timers + answers,
        "dead": dead,
        "expired": 0,
        "in_lanes": 0,
        "in_pending": 0,
    }
    wrong = [f"ledger: {name} is {ledger[name]}, not {count}" for name, count in want.items() if ledger[name] != count]
    if ledger["offered"] != ledger["accepted"] + ledger["refused"] + ledger["duplicate"]:
        wrong.append(f"ledger: what was offered does not add up: {ledger}")
    return wrong
