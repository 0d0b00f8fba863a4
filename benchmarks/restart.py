"""kill -9 with a million keys and a million waiting events: how long until the next process works, and is all there?"""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from benchmarks import backlog, raw_open
from benchmarks.app import Committed
from benchmarks.harness import (
    ROOT,
    Figure,
    Options,
    Result,
    child,
    command,
    copy,
    leave,
    pairs,
    progress,
    result,
    results,
    scratch,
)
from benchmarks.job import reached
from genesis import App, Context, Message, Settings, State, on

CHECKED_EVENTS, CHECKED_KEYS, PRODUCERS, KILLS = 20_000, 1000, 64, 3
FIGURES = (
    Figure(
        "first_event_s",
        "s",
        "<= 2",
        "A store with 1,000,000 keys and 1,000,000 waiting events whose owner was killed with -9: from the start of a new "
        "process to its first committed result. Raw: a bare process with sqlite3 that opens the same store, reads one event "
        "and commits its end.",
    ),
    Figure("accepting_s", "s", "", "The same, to the receipt of a new event; what ran at the kill has run again by then."),
    Figure(
        "lost",
        "events",
        "0",
        "20,000 events, the process killed with -9 three times while it takes them in and handles them, each time sent again "
        "with their ids from the last receipt on: events with a receipt that no state holds.",
    ),
    Figure("doubled", "events", "0", "The same: events that a state holds more than once."),
)

checked = App("checked")


class Noted(Message, type="checked.noted"):
    id: int
    key: str


class Notes(State, version=1):
    ids: list[int] = []  # noqa: RUF012 - msgspec copies it


@checked.component(key="key", state=Notes)
class Keeper:
    @on(Noted)
    async def note(self, noted: Noted, notes: Notes, ctx: Context) -> None:
        notes.ids.append(noted.id)
        if noted.id % 7 == 0:
            await asyncio.sleep(0)  # some are under way when the end comes


class First(Committed):
    """Notes when the first result was durable, on the clock of the machine."""

    at = 0.0

    def durable(self, events: list[int]) -> None:
        self.at = self.at or time.monotonic()


async def reopen(path: str) -> None:
    first = backlog.Accounts.meter = First(0)
    async with backlog.app.running(path, settings=Settings(), crash=first) as node:
        await node.send(next(backlog.orders(-1, 1)), id="new")
        accepting = time.monotonic()
        await reached(lambda: first.at > 0)
        leave([first.at, accepting])


def opened(side: Any, n: int) -> dict[str, float]:
    """Seconds from the start of a process to what it reached."""
    with scratch() as folder:
        copy(backlog.ready(n), folder)
        begin = time.monotonic()
        reached = child(side, path=f"{folder}/backlog.db")
    if isinstance(reached, float):
        reached = [reached, reached]
    return {"first_event_s": reached[0] - begin, "accepting_s": reached[1] - begin}


# ---- is all there? ----------------------------------------------------------------------------


async def produce(path: str, receipts: str, n: int) -> None:
    """Send what has no receipt yet, and note each receipt where kill -9 cannot reach it."""
    known = set(_receipts(receipts))
    log = os.open(receipts, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    async with checked.running(path, settings=Settings()) as node:
        numbers = iter([i for i in range(n) if i not in known])

        async def send() -> None:
            for i in numbers:
                await node.send(Noted(i, f"k{i % CHECKED_KEYS}"), id=str(i))
                os.write(log, b"%d\n" % i)

        async with asyncio.TaskGroup() as group:
            for _ in range(PRODUCERS):
                group.create_task(send())
        await reached(lambda: not node.status().ledger.waiting, 0.01)


def _receipts(path: str) -> list[int]:
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        return [int(line) for line in file.read().split(b"\n")[:-1]]


def check(n: int) -> tuple[int, int]:
    """Kill, restart, and count from the outside: events that are lost, events that are doubled."""
    with scratch() as folder:
        path, receipts = f"{folder}/checked.db", f"{folder}/receipts"
        start = command(produce, path=path, receipts=receipts, n=n)
        for kill in range(1, KILLS + 1):
            with subprocess.Popen(start, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
                while len(_receipts(receipts)) < n * kill // (KILLS + 1) and process.poll() is None:
                    time.sleep(0.005)
                time.sleep(random.random() * 0.02)
                process.send_signal(signal.SIGKILL)
        subprocess.run(start, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        with sqlite3.connect(path) as db:
            states = db.execute("SELECT body FROM state").fetchall()
        held = Counter(i for (body,) in states for i in msgspec.msgpack.decode(body)["ids"])
        accepted = _receipts(receipts)
    assert len(set(accepted)) == n
    return sum(i not in held for i in set(accepted)), sum(count > 1 for count in held.values())


def measure(options: Options) -> Iterator[Result]:
    n = options.size(backlog.EVENTS)
    runs = list(pairs("restart", options.runs, lambda: opened(raw_open.first_event, n), lambda: opened(reopen, n)))
    yield from results("restart", FIGURES[:2], runs)
    counts = []
    for run in range(options.runs):
        counts.append(check(options.size(CHECKED_EVENTS)))
        progress(f"restart {run + 1}/{options.runs}: {counts[-1][0]} lost, {counts[-1][1]} doubled")
    yield result("restart", FIGURES[2], [lost for lost, _ in counts])
    yield result("restart", FIGURES[3], [doubled for _, doubled in counts])
