"""The raw limits on disk: plain `sqlite3` doing the work of a durable event platform, without being one.

Tables and PRAGMAs are those of src/genesis/engines/sqlite_schema.py, written out: a limit imports nothing of ours.
"""

import os
import sqlite3
import time
from hashlib import blake2b
from typing import Any

import msgspec

from benchmarks.harness import percentiles
from benchmarks.job import TICK_S, Meter, Spent, clock, due_by, event, expected

BATCH = 100
ROWS = 32
"""Rows of one statement: the fastest of 8, 16, 32, 64, and a fifth faster than executemany."""
PRAGMAS = ("journal_mode = wal", "synchronous = full", "fullfsync = 1", "cache_size = -32768", "wal_autocheckpoint = 8000")
TABLES = """
CREATE TABLE head (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, commit_id INTEGER NOT NULL, body BLOB);
CREATE TABLE event (id INTEGER PRIMARY KEY, expires_at REAL, body BLOB NOT NULL);
CREATE TABLE state (partition INTEGER NOT NULL, address TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (partition, address));
CREATE TABLE dedupe (partition INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (partition, key));
INSERT INTO head VALUES (0, 1, 0, x'');
"""
UPSERT = " ON CONFLICT (partition, address) DO UPDATE SET version = excluded.version, body = excluded.body"
pack = msgspec.msgpack.Encoder().encode


class Store:
    """Takes events in one commit, and their effects in the next."""

    def __init__(self, folder: str) -> None:
        self.db = sqlite3.connect(f"{folder}/raw.db", isolation_level=None, cached_statements=1024)
        for pragma in PRAGMAS:
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(TABLES)
        self.totals: dict[str, int] = {}
        self._seen: set[bytes] = set()
        self._hasher = blake2b(b"5:bench", digest_size=16)
        self._next = [1] * 5
        self._commits = 0
        self._done = 0

    def take_in(self, events: list[dict[str, Any]]) -> list[int]:
        """Commit 1: events that were not seen before, and their digests. Returns the ids of their rows."""
        rows: list[object] = []
        digests = []
        for e in events:
            hasher = self._hasher.copy()
            hasher.update(str(e["id"]).encode())
            digest = hasher.digest()
            if digest in self._seen:
                continue
            self._seen.add(digest)
            digests.append(digest)
            priority, key = e["priority"], e["key"]
            number = (2 * priority + 1) << 48 | self._next[priority]
            self._next[priority] += 1
            names = ("totals:bench.added", f"totals/{key}", str(e["id"]), "bench")
            rows += (number, None, pack((*names, pack(e), time.time(), 0, priority, None, "", None)))
        self._commits += 1
        self.db.execute("BEGIN IMMEDIATE")
        self._insert("event", 3, rows)
        body = pack((time.time(), b"".join(digests)))
        self.db.execute("INSERT INTO dedupe VALUES (0, ?, ?)", (f"{self._commits:016x}", body))
        self.db.execute("COMMIT")
        return rows[::3]  # type: ignore[return-value]

    def apply(self, events: list[dict[str, Any]], ids: list[int]) -> None:
        """Commit 2: the new states, the events gone, the head moved on."""
        changed: dict[str, None] = {}
        for e in events:
            key = e["key"]
            self.totals[key] = self.totals.get(key, 0) + e["amount"]
            changed[key] = None
        self._commits += 1
        self._done += len(ids)
        self.db.execute("BEGIN IMMEDIATE")
        values: list[object] = []
        for key in sorted(changed):
            values += (0, f"totals/{key}", 1, pack({"total": self.totals[key]}))
        self._insert("state", 4, values, UPSERT)
        for start in range(0, len(ids), ROWS):
            part = ids[start : start + ROWS]
            self.db.execute(f"DELETE FROM event WHERE id IN ({','.join('?' * len(part))})", part)
        head = pack((self._commits, self._done, self._next))
        self.db.execute("UPDATE head SET commit_id = ?, body = ? WHERE partition = 0 AND epoch = 1", (self._commits, head))
        self.db.execute("COMMIT")

    def _insert(self, table: str, width: int, values: list[object], tail: str = "") -> None:
        row = f"({','.join('?' * width)})"
        for start in range(0, len(values), ROWS * width):
            part = values[start : start + ROWS * width]
            self.db.execute(f"INSERT INTO {table} VALUES {','.join([row] * (len(part) // width))}{tail}", part)


def throughput(folder: str, n: int) -> dict[str, float]:
    store, meter = Store(folder), Meter(n)
    begin = Spent()
    for first in range(0, n, BATCH):
        events = [meter.take(i) for i in range(first, min(n, first + BATCH))]
        store.apply(events, store.take_in(events))
        for e in events:
            meter.handled(e["id"])
    spent = begin.per_event(n)
    assert store.totals == expected(n)
    return spent


def latency(folder: str, n: int, rate: float) -> dict[str, float]:
    """The same loop at a fixed rate: a commit takes what is due, up to its size."""
    store, meter = Store(folder), Meter(n)
    begin, first, tick = clock(), 0, 0
    while first < n:
        tick = max(tick, int((clock() - begin) / TICK_S) + 1)
        last = min(due_by(tick, rate, n), first + BATCH)
        if first == last:
            time.sleep(max(0.0, begin + tick * TICK_S - clock()))
            tick += 1
            continue
        events = [event(i) for i in range(first, last)]
        store.apply(events, store.take_in(events))
        for i in range(first, last):
            meter.sent[i] = begin + int(i / (rate * TICK_S)) * TICK_S
            meter.handled(i)
        first = last
    return percentiles(meter.latencies())


def kit(folder: str, n: int) -> dict[str, float]:
    """The queue that the peers were measured beside: commits of 100, synchronous = FULL, no dedupe, no envelope."""
    db = sqlite3.connect(f"{folder}/kit.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = wal")
    db.execute("PRAGMA synchronous = full")
    db.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, key TEXT, amount INTEGER, priority INTEGER, done INTEGER)")
    db.execute("CREATE INDEX todo ON events (id) WHERE done = 0")
    db.execute("CREATE TABLE state (key TEXT PRIMARY KEY, total INTEGER NOT NULL) WITHOUT ROWID")
    db.execute("CREATE TABLE effects (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL, t INTEGER NOT NULL)")
    upsert = "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET total = total + excluded.total"
    accepted = os.open(f"{folder}/accepted.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    begin = clock()
    for first in range(0, n, BATCH):
        events = [event(i) for i in range(first, min(n, first + BATCH))]
        db.execute("BEGIN IMMEDIATE")
        rows = [(e["id"], e["key"], e["amount"], e["priority"]) for e in events]
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, 0)", rows)
        db.execute("COMMIT")
        os.write(accepted, b"".join(b"%d %d\n" % (e["id"], time.monotonic_ns()) for e in events))
        db.execute("BEGIN IMMEDIATE")
        db.executemany(upsert, [(e["key"], e["amount"]) for e in events])
        db.executemany("INSERT INTO effects (id, t) VALUES (?, ?)", [(e["id"], time.monotonic_ns()) for e in events])
        db.executemany("UPDATE events SET done = 1 WHERE id = ?", [(e["id"],) for e in events])
        db.execute("COMMIT")
    return {"events_per_s": n / (clock() - begin)}
