"""What took effect: in accounts, books and logs, and in the answers to questions. Knows nothing of genesis."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.simulation.facts import Bulk, Event, Facts

EMPTY: dict[str, Any] = {"total": 0, "seen": [], "charges": {}, "rates": {}}


def accounts(facts: Facts) -> list[str]:
    """Each deposit counts once, in order, with what the outside and other components said."""
    wrong: list[str] = []
    states, good = facts.states["accounts"], facts.good
    for key in sorted({e["key"] for e in facts.kind("deposit", "hopeless", "deadly")} | set(states)):
        account, mine = states.get(key, EMPTY), [e for e in good if e["key"] == key]
        wrong += _account(key, mine, account)
        for e in mine:
            wrong += _charge(key, e, account, facts)
            wrong += _rate(key, e, account)
    return wrong + _same_each_time(facts)


def _account(key: str, good: list[Event], account: dict[str, Any]) -> list[str]:
    want, have = Counter(e["n"] for e in good), Counter(n for _, n in account["seen"])
    wrong = _compared(key, want, have)
    if account["total"] != sum(e["n"] for e in good) and want == have:
        wrong.append(f"{key}: the total is {account['total']}, not {sum(e['n'] for e in good)}")
    return wrong + _order(key, good, account["seen"])


def _order(key: str, good: list[Event], seen: list[tuple[int, int]]) -> list[str]:
    wrong = []
    for producer in sorted({e["producer"] for e in good}):
        for priority in range(5):
            order = [e["n"] for e in good if e["producer"] == producer and e["priority"] == priority]
            members = set(order)
            found = [n for p, n in seen if p == priority and n in members]
            if found != order and Counter(found) == Counter(order):
                wrong.append(
                    f"{key}: producer {producer}, priority {priority}: sent in the order {order}, took effect as {found}"
                )
    return wrong


def _compared(key: str, want: Counter[int], have: Counter[int]) -> list[str]:
    wrong = []
    if want - have:
        wrong.append(f"{key}: lost {sorted((want - have).elements())}")
    if have - want:
        wrong.append(f"{key}: doubled or unexpected {sorted((have - want).elements())}")
    return wrong


def _charge(key: str, e: Event, account: dict[str, Any], facts: Facts) -> list[str]:
    calls, counted = facts.charged.get(e["n"], []), account["charges"].get(e["n"])
    wrong = []
    if not e["charges"]:
        if calls or counted:
            wrong.append(f"{key}: {e['n']} called the outside, and was not to")
    elif len(set(calls)) != 1:
        wrong.append(f"{key}: {e['n']} called the outside under the keys {sorted(set(calls))}")
    elif counted != len(calls) and not (facts.zombies and counted in range(1, len(calls))):
        wrong.append(f"{key}: {e['n']} counted call {counted} of {len(calls)}: none comes after the one that was committed")
    elif counted not in facts.got.get(e["n"], []):
        wrong.append(f"{key}: {e['n']} counted call {counted}, and its attempts were given {facts.got.get(e['n'])}")
    return wrong


def _same_each_time(facts: Facts) -> list[str]:
    """What `ctx.once` gives was committed before: every later attempt is given the same, that of a replay too."""
    return [f"{n}: its attempts were given {given}" for n, given in facts.got.items() if len(set(given)) > 1]


def _rate(key: str, e: Event, account: dict[str, Any]) -> list[str]:
    want = 2 * e["n"] if e["asks"] else None
    found = account["rates"].get(e["n"])
    return [] if found == want else [f"{key}: {e['n']} was answered {found}, not {want}"]


def notes(facts: Facts) -> list[str]:
    """Each note is heard once, with the trace of the event that caused it."""
    want: dict[str, Counter[int]] = {"mail": Counter()}
    traces: dict[str, dict[int, str]] = {}
    for e in [*facts.good, *facts.kind("statement", "sealed")]:
        for book, n in _caused(e):
            want.setdefault(book, Counter())[n] += 1
            if e["headers"]:
                traces.setdefault(book, {})[n] = repr({"traceparent": e["headers"]["traceparent"]})
    wrong = []
    books = facts.states["books"]
    for key in sorted(want.keys() | books.keys()):
        book = books.get(key, {"notes": {}, "traces": {}})
        wrong += _compared(key, want.get(key, Counter()), Counter(book["notes"]))
        if book["traces"] != traces.get(key, {}):
            wrong.append(f"{key}: heard with the traces {book['traces']}, not {traces.get(key, {})}")
    return wrong


def _caused(e: Event) -> list[tuple[str, int]]:
    if e["kind"] == "statement":
        return [("mail", e["n"])] if e["rejects"] != "mail" else []
    if e["kind"] == "sealed":
        return [] if e["dropped"] else [("safe", e["n"])]
    emitted = [(f"book-{e['n'] % 3}", 10 * e["n"] + i) for i in range(e["notes"])]
    return emitted + [("late", e["n"])] * bool(e["timer_s"])


def logs(facts: Facts) -> list[str]:
    """Of two components that get one event, each has its own end; what may expire or die takes effect once at most."""
    want = Counter(e["n"] for e in facts.kind("statement") if e["rejects"] != "audit")
    wrong = _compared("audit", want, Counter(facts.seen("audit")))
    desks = dict(facts.states["desks"])
    readings = desks.pop("meter", {"seen": []})["seen"]
    if readings != list(range(facts.readings)):
        wrong.append(f"the source gave 0 to {facts.readings - 1}, and took effect as {readings}")
    seen = Counter(n for log in desks.values() for n in log["seen"])
    lost = {letter["id"] for letter in facts.letters}
    must = {e["n"] for e in facts.kind("lasting", "fragile", "encore") if e["id"] not in lost} | set(facts.lines)
    may = Counter(e["n"] for e in facts.kind("fleeting"))
    wrong += _compared("desks", Counter(must), Counter({n: count for n, count in seen.items() if n not in may}))
    if twice := {n for n in may if seen[n] > 1}:
        wrong.append(f"desks: doubled {sorted(twice)}")
    return wrong + [complaint for bulk in facts.bulks for complaint in _bulk_order(bulk, desks)]


def _bulk_order(bulk: Bulk, desks: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    for key in sorted({key for key, _ in bulk["lines"]}):
        order = [n for to, n in bulk["lines"] if to == key]
        found = [n for n in desks.get(key, {"seen": []})["seen"] if n in order]
        if found and found != order:
            wrong.append(f"{key}: sent in one go in the order {order}, took effect as {found}")
    return wrong


def safes(facts: Facts) -> list[str]:
    """What jams a safe keeps its place until somebody comes: order holds beyond the last attempt, and nothing dies."""
    wrong: list[str] = []
    states, sealed = facts.states["safes"], facts.kind("sealed")
    for key in sorted({e["key"] for e in sealed} | set(states)):
        good, seen = [e for e in sealed if e["key"] == key and not e["dropped"]], states.get(key, EMPTY)["seen"]
        wrong += _compared(key, Counter(e["n"] for e in good), Counter(n for _, n in seen))
        wrong += _order(key, good, seen)
    return wrong


def answers(facts: Facts) -> list[str]:
    """Each answer is a state that was committed, at some time between question and answer."""
    wrong = []
    for answer in facts.answers:
        key, count = answer["key"], answer["count"]
        numbers = [n for _, n in facts.states["accounts"].get(key, EMPTY)["seen"]]
        if answer["total"] != sum(numbers[:count]):
            wrong.append(f"{key}: the answer {answer} is no state that ever was")
        before = 0 if answer["read_only"] and facts.zombies else answer["before"]  # who lost the store may not know it yet
        if not before <= count <= answer["after"]:
            wrong.append(f"{key}: the answer {answer} was no committed state while it was asked for")
    return wrong
