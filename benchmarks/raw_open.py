"""The raw limit of a restart: a bare process that opens a store of Genesis with `sqlite3`, and commits one event."""

import sqlite3
import time


def first_event(path: str) -> float:
    """When the first commit was durable, on the monotonic clock of the machine."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = full")
    id, body = db.execute("SELECT id, body FROM event ORDER BY id LIMIT 1").fetchone()
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM event WHERE id = ?", (id,))
    db.execute("UPDATE state SET body = ? WHERE rowid = 1", (body,))
    db.execute("UPDATE head SET commit_id = commit_id + 1 WHERE partition = 0")
    db.execute("COMMIT")
    return time.monotonic()
