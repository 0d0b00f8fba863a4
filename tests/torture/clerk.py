"""The clerk: another process that files events in the store itself, as ``genesis send`` does, and waits for the answers.

It gives no ids: the owner makes one of the request's number, so that a request that is served again after a death is a
duplicate. It writes the same log as the producer, with `X` for a refused request, which is not filed again.

    python -m tests.torture.clerk STORE LOG SEED      "stop" on stdin: finish what is begun; its end: leave
"""

from __future__ import annotations

import os
import select
import sqlite3
import sys
import time
from collections.abc import Callable
from random import Random

import msgspec

from tests.torture.producer import Log, planned

LINK = 9
KEYS = 6
WINDOW = 4
"""Requests that wait for an answer."""
NAP_S = 0.03
NAMES = ("critical", "high", "normal", "low", "background")


class Clerk:
    """Files and collects."""

    def __init__(self, store: str, log: Log, rng: Random) -> None:
        self._store, self._log, self._rng = store, log, rng
        self._open: list[str] = []
        """Keys of requests without an answer."""

    def run(self) -> None:
        """Work until told to stop and every request has its answer."""
        stopping = False
        while not stopping or self._open:
            try:
                with_store(self._store, self._collect)
                if not stopping and len(self._open) < WINDOW:
                    with_store(self._store, self._file)
            except sqlite3.OperationalError:
                pass  # there is no store yet, or somebody keeps it locked
            if select.select([0] if not stopping else [], [], [], NAP_S)[0]:
                if not os.read(0, 16):
                    return  # whoever started us is gone
                stopping = True

    def _file(self, db: sqlite3.Connection) -> None:
        rng = self._rng
        key, level, amount, plan = f"c{rng.randrange(KEYS)}", rng.randrange(5), rng.randrange(1, 100), planned(rng)
        fields = {"key": key, "amount": amount, "plan": plan}
        body = {"kind": "send", "type": "torture.hit", "fields": fields, "priority": NAMES[level]}
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE filed SET last = last + 1")
        (number,) = db.execute("SELECT last FROM filed").fetchone()
        request = f"{number:016d}:send"
        db.execute("INSERT INTO request VALUES (0, ?, ?)", (request, msgspec.msgpack.encode(body)))
        self._log.note("S", LINK, f"request-{request}", key, level, amount, plan)
        self._open.append(request)
        db.execute("COMMIT")

    def _collect(self, db: sqlite3.Connection) -> None:
        for request in list(self._open):
            row = db.execute("SELECT body FROM answer WHERE key = ?", (request,)).fetchone()
            if row is None:
                continue
            answer = msgspec.msgpack.decode(row[0])
            if "error" in answer:
                self._log.note("X", f"request-{request}", answer["code"])
            else:
                duplicate = int(answer["receipt"]["duplicate"])
                self._log.note("Y", f"request-{request}", duplicate, f"{time.monotonic():.4f}")
            self._open.remove(request)
            db.execute("DELETE FROM answer WHERE key = ?", (request,))


def with_store(path: str, work: Callable[[sqlite3.Connection], None]) -> None:
    """Open the store, as a command of the command line does, for one piece of work."""
    db = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5, isolation_level=None)
    try:
        work(db)
    finally:
        db.close()


if __name__ == "__main__":
    Clerk(sys.argv[1], Log(sys.argv[2]), Random(int(sys.argv[3]))).run()
