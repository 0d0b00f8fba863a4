"""The application under torture: keyed, single and threaded components, retries, rejects, timers, `once`, a source.

What becomes of an event is written in its `plan`, a word of letters that the producer made and logged, so that a checker
that knows the log can tell what must have happened:

    fN  accounts fails the first N attempts        r  accounts rejects         s  accounts suspends
    mN  mirror fails the first N attempts          t  a timer                  T  a timer that replaces the last
    o   accounts calls the outside once

A failure comes after everything else was done: nothing of a failed attempt may be seen.

As a process: listens on an inherited socket, one line a request, and answers when Genesis said yes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator

import msgspec

from genesis import App, Context, GenesisError, Message, Priority, Reject, Request, Retry, State, on
from genesis.cli.run import SWITCH_S, CrashAt
from genesis.runtime.node import Node

PRIORITIES = 5
PATIENT = Retry(attempts=1000, base_s=0.01, cap_s=0.05)
"""A delivery that ran when the process was killed has one attempt less: nothing here dies of that."""

app = App("torture")
outside = os.open(os.environ.get("TORTURE_OUTSIDE", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
calm = "TORTURE_CALM" in os.environ
"""The source has ended: the world comes to rest."""


class Hit(Message, type="torture.hit"):
    key: str
    amount: int
    plan: str = ""


class Follow(Message, type="torture.follow"):
    key: str
    event: str
    amount: int


class Fired(Message, type="torture.fired", priority=Priority.LOW):
    key: str
    event: str
    named: bool


class Step(Message, type="torture.step"):
    number: int


class Take(Request[int], type="torture.take"):
    key: str


def lists() -> list[list[str]]:
    return [[] for _ in range(PRIORITIES)]


class Account(State):
    """What was done for a key, by priority, in order."""

    count: int = 0
    sum: int = 0
    order: list[list[str]] = msgspec.field(default_factory=lists)
    chains: list[str] = msgspec.field(default_factory=lambda: [""] * PRIORITIES)
    """Hash over the ids so far: a lost write in the middle of a list is seen."""
    tokens: dict[str, str] = msgspec.field(default_factory=dict)
    """By event: what its call to the outside returned."""


def chained(chain: str, event: str) -> str:
    return hashlib.blake2b(f"{chain} {event}".encode(), digest_size=8).hexdigest()


def number_in(plan: str, letter: str) -> int:
    found = re.search(rf"{letter}(\d+)", plan)
    return int(found[1]) if found else 0


class PlannedError(Exception):
    """A planned failure."""


@app.component(key="key", state=Account, retry=PATIENT)
class Accounts:
    @on(Hit)
    async def hit(self, hit: Hit, state: Account, ctx: Context) -> None:
        level, event = int(ctx.priority), ctx.event_id
        state.count += 1
        state.sum += hit.amount
        state.order[level].append(event)
        state.chains[level] = chained(state.chains[level], event)
        if "t" in hit.plan:
            ctx.after(hit.amount / 1000, Fired(hit.key, event, False))
        if "T" in hit.plan:
            ctx.after(hit.amount / 1000, Fired(hit.key, event, True), name=f"named-{level}")
        if "o" in hit.plan:
            state.tokens[event] = await ctx.once("call", lambda key: call(key, event))
        ctx.emit(Follow(hit.key, event, hit.amount), priority=ctx.priority)
        if "s" in hit.plan:
            await asyncio.sleep(hit.amount / 10_000)
        if "r" in hit.plan:
            raise Reject("as planned")
        if ctx.attempt <= number_in(hit.plan, "f"):
            raise PlannedError


async def call(key: str, event: str) -> str:
    """The outside: an append-only file."""
    token = secrets.token_hex(4)
    os.write(outside, f"{event} {key} {os.getpid()} {token}\n".encode())
    await asyncio.sleep(0)
    return token


class Reflection(State):
    order: list[list[str]] = msgspec.field(default_factory=lists)
    """``event attempt``."""


@app.component(key="key", state=Reflection, retry=PATIENT, order="skip")
class Mirror:
    """The same events again, for a component that does not wait for its retries."""

    @on(Hit)
    async def hit(self, hit: Hit, state: Reflection, ctx: Context) -> None:
        state.order[int(ctx.priority)].append(f"{ctx.event_id} {ctx.attempt}")
        if ctx.attempt <= number_in(hit.plan, "m"):
            raise PlannedError


class Path(State):
    order: list[list[str]] = msgspec.field(default_factory=lists)
    """``event id``; the id of an emitted event begins with that of the delivery that emitted it."""
    chains: list[str] = msgspec.field(default_factory=lambda: [""] * PRIORITIES)


@app.component(key="key", state=Path, retry=PATIENT)
class Trail:
    @on(Follow)
    async def follow(self, follow: Follow, state: Path, ctx: Context) -> None:
        level = int(ctx.priority)
        state.order[level].append(f"{follow.event} {ctx.event_id}")
        state.chains[level] = chained(state.chains[level], follow.event)


class Sums(State):
    count: int = 0
    sum: int = 0


@app.component(single=True, state=Sums, retry=PATIENT)
class Total:
    """One hot key for everything."""

    @on(Follow)
    async def follow(self, follow: Follow, state: Sums, ctx: Context) -> None:
        state.count += 1
        state.sum += follow.amount


class Rung(State):
    once: list[str] = msgspec.field(default_factory=list)
    named: list[str] = msgspec.field(default_factory=list)


@app.component(key="key", state=Rung, retry=PATIENT)
class Alarms:
    @on(Fired)
    def fired(self, fired: Fired, state: Rung, ctx: Context) -> None:
        (state.named if fired.named else state.once).append(fired.event)


class Ladder(State):
    last: int = 0
    count: int = 0
    wrong: list[int] = msgspec.field(default_factory=list)
    """Steps that did not follow the one before."""


@app.component(single=True, state=Ladder, retry=PATIENT)
class Steps:
    @on(Step)
    async def step(self, step: Step, state: Ladder, ctx: Context) -> None:
        if step.number != state.last + 1:
            state.wrong.append(step.number)
        state.last, state.count = step.number, state.count + 1


@app.source
async def stairs(position: int | None) -> AsyncIterator[tuple[int, Message]]:
    number = position or 0
    while not calm:
        number += 1
        yield number, Step(number)
        await asyncio.sleep(0.002)


class Roll(State):
    taken: int = 0


@app.component(key="key", state=Roll, retry=PATIENT)
class Tickets:
    @on(Take)
    async def take(self, take: Take, state: Roll, ctx: Context) -> int:
        state.taken += 1
        return state.taken


# --- the process ----------------------------------------------------------------------------------------------------


class Door:
    """Serves the socket: each line is a task, begun in the order of the lines."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                task = asyncio.get_running_loop().create_task(self._answer(line.decode().split(), writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (ConnectionError, asyncio.CancelledError):
            pass
        writer.close()

    async def _answer(self, words: list[str], writer: asyncio.StreamWriter) -> None:
        try:
            if words[0] == "send":
                _, event, key, level, amount, plan = words
                message = Hit(key, int(amount), plan)
                receipt = await self._node.send(message, id=event, source="producer", priority=Priority(int(level)))
                said = f"yes {event} {int(receipt.duplicate)}"
            else:
                _, event, key = words
                said = f"answer {event} {await self._node.ask(Take(key), id=event, source='producer')}"
        except GenesisError as error:
            said = f"no {words[1]} {error.code}"
        writer.write(f"{said}\n".encode())


async def serve(store: str, listening: socket.socket, crash: CrashAt | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(0, _follow_parent)
    async with app.running(store, crash=crash) as node:
        server = await asyncio.start_server(Door(node).serve, sock=listening)
        await stop.wait()
        server.close()


def _follow_parent() -> None:
    if not os.read(0, 1):  # whoever started us is gone
        os._exit(9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("listening", type=int, help="descriptor of a listening socket")
    given = parser.parse_args()
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    sys.setswitchinterval(SWITCH_S)
    point = os.environ.get("GENESIS_CRASH")
    asyncio.run(serve(given.store, socket.socket(fileno=given.listening), CrashAt.of(point) if point else None))


if __name__ == "__main__":
    main()
