"""The checker: reads a store and a producer's log after the end, recomputes what must be there, and compares.

It knows nothing of Genesis but the tables of its file, and shares no code with it. A delivery is judged as an element of a
queue (Jepsen's total-queue): lost = answered with yes and without effect; doubled = more than one effect; unexpected =
effect of an id that was never offered; recovered = effect without a yes, which is fine.

    python -m tests.torture.check STORE PRODUCER_LOG OUTSIDE_FILE        exit code 1: a promise was broken
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

LEDGER = ["offered", "accepted", "refused", "duplicate", "external", "emitted", "timer", "replay"]
LEDGER += ["done", "expired", "dead", "in_lanes", "in_pending", "retries", "in_outbox"]
CLERK = 9
"""The link of what was filed in the store itself."""
SHOWN = 8
"""Examples of one kind of violation that are printed."""


@dataclass
class Offered:
    """What the producer wrote of an event."""

    link: int
    key: str
    level: int
    amount: int
    plan: str
    at: int
    """Number of its offer among all."""
    said_yes: bool = False
    refused: bool = False
    """At least once."""
    given_up: bool = False
    """Refused, and not offered again."""


@dataclass
class History:
    """A producer's log."""

    events: dict[str, Offered] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    """By id: the key asked."""
    answers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    yes_times: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> History:
        history = cls()
        for at, line in enumerate(path.read_text().splitlines()):
            kind, *words = line.split()
            if kind == "S":
                link, event, key, level, amount, plan = words
                history.events[event] = Offered(int(link), key, int(level), int(amount), plan, at)
            elif kind == "Q":
                history.questions[words[0]] = words[2]
            elif kind == "Y":
                history.events[words[0]].said_yes = True
                history.yes_times.append(float(words[2]))
            elif kind == "A":
                history.answers[words[0]].add(int(words[1]))
                history.yes_times.append(float(words[2]))
            else:
                history.refusals[words[1]] += 1
                if words[0] in history.events:
                    history.events[words[0]].refused = True
                    history.events[words[0]].given_up = kind == "X"
        return history


class Store:
    """The tables of a store at rest."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def close(self) -> None:
        self._db.close()

    def rows(self, table: str) -> dict[str, Any]:
        """A named table, bodies decoded."""
        return {key: msgspec.msgpack.decode(body) for key, body in self._db.execute(f"SELECT key, body FROM {table}")}

    def count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def states(self, component: str) -> dict[str, dict[str, Any]]:
        """States of a component, by key."""
        sql = "SELECT substr(address, ?), body FROM state WHERE address GLOB ?"
        rows = self._db.execute(sql, (len(component) + 2, f"{component}/*"))
        return {key: msgspec.msgpack.decode(body) for key, body in rows}

    def head(self) -> dict[str, Any]:
        (body,) = self._db.execute("SELECT body FROM head WHERE partition = 0").fetchone()
        head: dict[str, Any] = msgspec.msgpack.decode(body)
        head["ledger"] = dict(zip(LEDGER, head["ledger"], strict=True))
        return head

    def damage(self) -> list[str]:
        return [row[0] for row in self._db.execute("PRAGMA integrity_check") if row[0] != "ok"]


@dataclass
class Row:
    """A line of the verdict: a promise, how many things it was checked on, and what broke it."""

    promise: str
    checked: int
    broken: list[str]


class Verdict:
    """All promises, one after the other."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.lost = self.doubled = self.unexpected = self.disordered = 0

    def judge(self, promise: str, checked: int, broken: Iterable[str]) -> int:
        """Note a promise, and how often it was broken."""
        found = list(broken)
        self.rows.append(Row(promise, checked, found))
        return len(found)

    def equal(self, promise: str, found: object, wanted: object) -> None:
        self.judge(promise, 1, [] if found == wanted else [f"{found!r}, must be {wanted!r}"])

    def queue(self, what: str, effects: Counter[str], acknowledged: set[str], attempted: set[str]) -> None:
        """Jepsen's total-queue."""
        self.lost += self.judge(f"{what}: none lost", len(acknowledged), sorted(acknowledged - effects.keys()))
        twice = (f"{event} x{n}" for event, n in effects.items() if n > 1 and event in attempted)
        self.doubled += self.judge(f"{what}: none doubled", len(effects), twice)
        self.unexpected += self.judge(f"{what}: none unexpected", len(effects), sorted(effects.keys() - attempted))

    def order(self, what: str, checked: int, broken: Iterable[str]) -> None:
        self.disordered += self.judge(f"{what}: order", checked, broken)

    @property
    def good(self) -> bool:
        return not any(row.broken for row in self.rows)

    def table(self) -> str:
        width = max(len(row.promise) for row in self.rows)
        lines = [f"{'promise':{width}}  {'checked':>8}  broken"]
        for row in self.rows:
            lines.append(f"{row.promise:{width}}  {row.checked:>8,}  {len(row.broken) or '-'}")
            lines += [f"{'':{width}}  {'':>8}    {example}" for example in row.broken[:SHOWN]]
        return "\n".join([*lines, "every promise was kept" if self.good else "PROMISES WERE BROKEN"])


class Check:
    """One store against one history."""

    def __init__(self, store: Store, history: History, outside: list[list[str]]) -> None:
        self._store, self._history, self._outside = store, history, outside
        self._accounts, self._mirror = store.states("accounts"), store.states("mirror")
        self._trail, self._dead = store.states("trail"), store.rows("dead")
        self.verdict = Verdict()
        # What took effect, each id as often as it did.
        self._kept = Counter(event for _, _, order in _lists(self._accounts) for event in order)
        self._rejected = Counter(letter["delivery"][2] for letter in self._dead.values())
        self._taken = sum(state["taken"] for state in store.states("tickets").values())

    def run(self) -> Verdict:
        self._external()
        self._emitted()
        self._states()
        self._orders()
        self._timers()
        self._calls()
        self._questions()
        self._source()
        self._rest()
        self._ledger()
        return self.verdict

    # --- exactly once -----------------------------------------------------------------------------------------------

    def _external(self) -> None:
        """Every accepted event: one effect in `accounts` (done or dead), and one in `mirror`."""
        events, judge = self._history.events, self.verdict
        acknowledged = {event for event, offered in events.items() if offered.said_yes}
        attempted = {event for event, offered in events.items() if not offered.given_up}
        judge.queue("accounts", self._kept + self._rejected, acknowledged, attempted)
        seen = Counter(entry.split()[0] for _, _, order in _lists(self._mirror) for entry in order)
        judge.queue("mirror", seen, acknowledged, attempted)
        judge.judge("both components got the same", len(seen), (seen.keys() ^ (self._kept + self._rejected).keys()))
        planned = {event for event in self._rejected if event in events and "r" in events[event].plan}
        letters = {(letter["reason"], letter["delivery"][0]) for letter in self._dead.values()}
        judge.judge("dead letters: exactly the rejected", len(self._dead), self._rejected.keys() ^ planned)
        judge.judge(
            "rejected: exactly the dead letters",
            len(self._dead),
            (event for event in self._kept if event in events and "r" in events[event].plan),
        )
        judge.judge("dead letters: as rejected", len(letters), map(str, letters - {("rejected", "accounts:torture.hit")}))

    def _emitted(self) -> None:
        """Every delivery that was done: one event in `trail`, and one in `total`. A failed or rejected one: none."""
        entries = Counter(entry.split()[0] for _, _, order in _lists(self._trail) for entry in order)
        self.verdict.queue("emitted", entries, set(self._kept), set(self._kept))
        ids = Counter(entry.split()[1] for _, _, order in _lists(self._trail) for entry in order)
        self.verdict.judge("emitted: ids are unique", len(ids), (id for id, n in ids.items() if n > 1))
        total = self._store.states("total").get("", {"count": 0, "sum": 0})
        amounts = sum(self._amount(event) * n for event, n in self._kept.items())
        self.verdict.equal("emitted: total of all", (total["count"], total["sum"]), (self._kept.total(), amounts))

    def _amount(self, event: str) -> int:
        return self._history.events[event].amount if event in self._history.events else 0

    # --- states and order -------------------------------------------------------------------------------------------

    def _states(self) -> None:
        """Counters, sums and hash chains agree with the lists beside them, and events are at their own key."""
        wrong = []
        for key, state in self._accounts.items():
            events = [event for order in state["order"] for event in order]
            if state["count"] != len(events) or state["sum"] != sum(map(self._amount, events)):
                wrong.append(f"accounts/{key}: count {state['count']}, sum {state['sum']}, list of {len(events)}")
        for name, states in (("accounts", self._accounts), ("trail", self._trail)):
            for key, level, order in _lists(states):
                if states[key]["chains"][level] != _chain(entry.split()[0] for entry in order):
                    wrong.append(f"{name}/{key} priority {level}: hash chain")
        for name, states in (("accounts", self._accounts), ("trail", self._trail), ("mirror", self._mirror)):
            for key, level, order in _lists(states):
                for entry in order:
                    offered = self._history.events.get(entry.split()[0])
                    if offered is not None and (offered.key, offered.level) != (key, level):
                        wrong.append(f"{entry}: at {name}/{key} priority {level}")
        self.verdict.judge("states are whole", len(self._accounts) + len(self._trail) + len(self._mirror), wrong)

    def _orders(self) -> None:
        """Per key and priority. Each link offers in order, so what it offered first is first, unless it was refused."""
        judge = self.verdict
        entries = [(f"{key} {level}", order) for key, level, order in _lists(self._accounts)]
        judge.order("accounts (hold): as offered", self._kept.total(), self._disordered(entries))
        calm = [
            (f"{key} {level}", [entry.split()[0] for entry in order if entry.split()[1] == "1"])
            for key, level, order in _lists(self._mirror)
        ]
        judge.order("mirror (skip): as offered, if not retried", sum(len(o) for _, o in calm), self._disordered(calm))
        numbers, paths = [], 0
        for key, level, order in _lists(self._trail):
            parents = [int(entry.split()[1].partition(".")[0], 16) for entry in order]
            paths += len(parents)
            numbers += [f"{key} {level}: {a:x} then {b:x}" for a, b in pairwise(parents) if a >= b]
        judge.order("trail (hold): as accepted", paths, numbers)
        other = []
        for key, level, order in _lists(self._accounts):
            then = [entry.split()[0] for entry in self._trail.get(key, {"order": [[]] * 5})["order"][level]]
            if then != order:
                at = next((i for i, (a, b) in enumerate(zip(order, then, strict=False)) if a != b), len(then))
                other.append(f"{key} {level}: {order[at : at + 3]} became {then[at : at + 3]}")
        judge.order("trail: as emitted", paths, other)

    def _disordered(self, entries: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
        for place, order in entries:
            last: dict[int, tuple[int, str]] = {}
            for event in order:
                offered = self._history.events.get(event)
                if offered is None or offered.refused:
                    continue
                before = last.get(offered.link)
                if before is not None and before[0] > offered.at:
                    yield f"{place}: {before[1]} then {event}"
                last[offered.link] = (offered.at, event)

    # --- timers, calls, questions, the source -----------------------------------------------------------------------

    def _timers(self) -> None:
        alarms, events, judge = self._store.states("alarms"), self._history.events, self.verdict
        rung = Counter(event for state in alarms.values() for event in state["once"])
        wanted = {event for event in self._kept if event in events and "t" in events[event].plan}
        judge.queue("timers", rung, wanted, wanted)
        named = Counter(event for state in alarms.values() for event in state["named"])
        may = {event for event in self._kept if event in events and "T" in events[event].plan}
        last = {[e for e in order if e in may][-1] for _, _, order in _lists(self._accounts) if may & set(order)}
        judge.queue("timers that replace the last", named, last, may)

    def _calls(self) -> None:
        """At least once, with a key: one result counts, the last, and only a death makes a call again."""
        calls: dict[str, list[list[str]]] = defaultdict(list)
        for event, key, pid, token in self._outside:
            calls[event].append([key, pid, token])
        tokens = {e: t for state in self._accounts.values() for e, t in state["tokens"].items()}
        plans = {event for event in self._kept + self._rejected if "o" in self._plan(event)}
        judge = self.verdict
        done = {event for event in plans if event in self._kept}
        judge.judge("calls: every result is kept", len(plans), done ^ tokens.keys())
        judge.judge("calls: at least once", len(plans), plans - calls.keys())
        never = (event for event in calls if event not in self._history.events)
        judge.judge("calls: none unexpected", len(calls), never)
        judge.judge("calls: one key an event", len(calls), (e for e, c in calls.items() if len({key for key, _, _ in c}) > 1))
        other = (e for e, token in tokens.items() if e in calls and calls[e][-1][2] != token)
        judge.judge("calls: the last result counts", len(tokens), other)
        again = (e for e, c in calls.items() if len({pid for _, pid, _ in c}) < len(c))
        judge.judge("calls: again only after a death", len(calls), again)
        left = {letter["delivery"][9] for letter in self._dead.values() if "o" in self._plan(letter["delivery"][2])}
        judge.equal("calls: journal holds those of dead letters", set(self._store.rows("once")), {f"{o}/call" for o in left})

    def _plan(self, event: str) -> str:
        return self._history.events[event].plan if event in self._history.events else ""

    def _questions(self) -> None:
        history, judge = self._history, self.verdict
        judge.judge("questions: one answer each", len(history.answers), (q for q, a in history.answers.items() if len(a) > 1))
        given: dict[str, Counter[int]] = defaultdict(Counter)
        for question, answers in history.answers.items():
            given[history.questions.get(question, "?")].update(answers)
        taken = {key: state["taken"] for key, state in self._store.states("tickets").items()}
        wrong = []
        for key in history.questions.values():
            if given[key] != Counter(range(1, taken.get(key, 0) + 1)):
                wrong.append(f"{key}: {taken.get(key, 0)} taken, {given[key].total()} answers")
        judge.judge("questions: took effect once", self._taken, set(wrong))

    def _source(self) -> None:
        steps = self._store.states("steps").get("", {"last": 0, "count": 0, "wrong": []})
        position = self._store.rows("source").get("stairs", 0)
        self.verdict.judge("source: each step once, in order", steps["count"], map(str, steps["wrong"]))
        self.verdict.equal("source: position", (steps["last"], steps["count"]), (position, position))

    # --- the store at rest ------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        store, judge, events = self._store, self.verdict, self._history.events
        judge.judge("the file is whole", 1, store.damage())
        for table in ("event", "pending", "timer", "request", "answer"):
            judge.equal(f"table {table} is empty", store.count(table), 0)
        digests = [body[i : i + 16] for _, body in store.rows("dedupe").values() for i in range(0, len(body), 16)]
        wanted = {_digest(event) for event in (*(self._kept + self._rejected), *self._history.answers)}
        judge.judge("ids are remembered once", len(digests), (d.hex() for d, n in Counter(digests).items() if n > 1))
        judge.judge("ids of all accepted are remembered", len(wanted), (d.hex() for d in wanted ^ set(digests)))
        no_answer = [event for event, offered in events.items() if not offered.said_yes and not offered.given_up]
        judge.judge("the producer has every answer", len(events), no_answer)

    def _ledger(self) -> None:
        """All counters, recomputed from the effects."""
        head, judge = self._store.head(), self.verdict
        ledger = head["ledger"]
        hits, steps = (self._kept + self._rejected).total(), self._store.rows("source").get("stairs", 0)
        alarms = self._store.states("alarms").values()
        fired = sum(len(state["once"]) + len(state["named"]) for state in alarms)
        wanted = {
            "accepted": hits + self._taken + steps,
            "external": 2 * hits + self._taken + steps,
            "emitted": 2 * self._kept.total(),
            "timer": fired,
            "replay": 0,
            "expired": 0,
            "dead": self._rejected.total(),
            "in_lanes": 0,
            "in_pending": 0,
        }
        wanted["done"] = wanted["external"] + wanted["emitted"] + fired - wanted["dead"]
        judge.equal("ledger: as the effects say", {name: ledger[name] for name in wanted}, wanted)
        gate = ledger["accepted"] + ledger["refused"] + ledger["duplicate"]
        judge.equal("ledger: offered = accepted + refused + duplicate", ledger["offered"], gate)
        born = ledger["external"] + ledger["emitted"] + ledger["timer"]
        judge.equal("head: born by priority", sum(head["born_by_priority"]), born)
        judge.equal("head: ended by priority", head["ended_by_priority"], head["born_by_priority"])
        judge.equal("head: sequences", sum(n - 1 for n in head["next_sequence"]), born)
        judge.equal("head: nothing waits", sum(head["waiting_by_lane"]), 0)
        judge.equal("head: nothing runs", (head["running"], head["clean"]), ([], True))


def _lists(states: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int, list[str]]]:
    """(key, priority, entries in order)."""
    for key, state in states.items():
        for level, order in enumerate(state["order"]):
            yield key, level, order


def _chain(events: Iterable[str]) -> str:
    chain = ""
    for event in events:
        chain = hashlib.blake2b(f"{chain} {event}".encode(), digest_size=8).hexdigest()
    return chain


def _digest(event: str) -> bytes:
    source = "torture" if event.startswith("request-") else "producer"
    return hashlib.blake2b(f"{len(source)}:{source}{event}".encode(), digest_size=16).digest()


def check(store: Path, log: Path, outside: Path) -> tuple[Verdict, History]:
    """Judge a run that came to rest."""
    history = History.read(log)
    calls = [line.split() for line in outside.read_text().splitlines()]
    with closing(Store(store)) as tables:
        return Check(tables, history, calls).run(), history


if __name__ == "__main__":
    found, _ = check(*map(Path, sys.argv[1:4]))
    print(found.table())
    sys.exit(not found.good)
