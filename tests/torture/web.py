"""The producer again, over HTTP: the same events, offered to `genesis run --http` as CloudEvents in all three modes.

It writes the log of the other producer, and beside it `D` (the source of questions), `B` (these events are one batch) and `L`
(left: an unanswered batch that is never offered again, so that only its effects can tell what became of it). Requests are
sent ahead on each connection, and answered in order. Some batches end with an event that is none: nothing of them may be seen.

    python -m tests.torture.web PORT LOG SEED RATE      "stop" on stdin: finish what is begun; its end: leave
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.torture.producer import LINKS, Events, Log, produce

AHEAD = 24
"""Requests of one link that wait for an answer."""
BATCH = 8
"""Largest batch."""
SOURCE, ASKED = "producer", "http-ask"
LEFT = 0.3
"""Share of the unanswered batches that are left when a connection is lost."""
RETRY_S = 0.01
BEHIND_S = 0.05
"""How long a link waits before it offers again what was refused."""


@dataclass
class Unit:
    """One request."""

    events: list[str]
    raw: bytes
    batch: bool = False
    wrong: bool = False
    """Its last event is none."""
    answered: bool = False


class Maker:
    """Makes requests, all links together."""

    def __init__(self, log: Log, events: Events, rng: Random) -> None:
        self._log, self._events, self._rng = log, events, rng

    def unit(self, link: int) -> Unit:
        kind = self._rng.random()
        if kind < 0.2:
            return self._batch(link)
        event, record, line = self._events.line(link)
        self._log.note(record)
        words = line.split()
        if words[0] == "ask":
            headers = {"idempotency-key": event, "content-type": "application/json"}
            return Unit([event], request("/ask/torture.take", headers, {"key": words[2]}))
        found = envelope(words)
        if kind < 0.4:
            return Unit([event], request("/events", {"content-type": "application/cloudevents+json"}, found))
        headers = {f"ce-{name}": value for name, value in found.items() if name != "data"}
        return Unit([event], request("/events", headers | {"content-type": "application/json"}, found["data"]))

    def _batch(self, link: int) -> Unit:
        events, body = [], []
        for _ in range(self._rng.randint(2, BATCH)):
            event, record, line = self._events.line(link, asks=False)
            self._log.note(record)
            events.append(event)
            body.append(envelope(line.split()))
        self._log.note("B", *events)
        wrong = self._rng.random() < 0.1
        if wrong:
            body.append(body[0] | {"id": "none", "data": {"key": 7}})
        headers = {"content-type": "application/cloudevents-batch+json"}
        return Unit(events, request("/events", headers, body), batch=True, wrong=wrong)


def envelope(words: list[str]) -> dict[str, object]:
    """An event, of a line of the other producer."""
    _, event, key, level, amount, plan = words
    data = {"key": key, "amount": int(amount), "plan": plan}
    return {"specversion": "1.0", "id": event, "source": SOURCE, "type": "torture.hit", "priority": level, "data": data}


def request(path: str, headers: dict[str, object], body: object) -> bytes:
    raw = json.dumps(body).encode()
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in {"host": "torture", **headers, "content-length": len(raw)}.items()
    )
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + raw


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Status and body of the next answer; the body of a text is None."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    return int(head.split()[1]), json.loads(body) if "json\r\n" in head else None


class Link:
    """One connection after the other, one stream of ids."""

    def __init__(self, number: int, port: int, log: Log, maker: Maker, rng: Random, rate: float) -> None:
        self._number, self._port, self._log, self._maker, self._rng, self._rate = number, port, log, maker, rng, rate
        self._open: deque[Unit] = deque()
        """Requests without an answer, in the order of their offers."""
        self._refused: deque[Unit] = deque()
        self._answered: deque[Unit] = deque(maxlen=20)
        """Requests to offer again although they were answered: duplicates."""
        self._stopping = False
        self._writer: asyncio.StreamWriter | None = None

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True
        if self._done and self._writer is not None:
            self._writer.close()

    @property
    def _done(self) -> bool:
        return self._stopping and not self._open and not self._refused

    async def run(self) -> None:
        while not self._done:
            try:
                reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # it is dead, or the node did not want more
                await self._talk(reader, self._writer)
            self._writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await self._ready(reader, writer) != 200:
            await asyncio.sleep(RETRY_S)
            return
        self._leave_some()
        for unit in self._open:
            writer.write(unit.raw)
        offering = asyncio.create_task(self._offer(writer))
        try:
            while not self._done:
                status, body = await answer_of(reader)
                self._hear(self._open.popleft(), status, body)
        finally:
            offering.cancel()

    async def _ready(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """Whether there is sense in offering: what is refused says nothing of the order."""
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: torture\r\n\r\n")
        status, _ = await answer_of(reader)
        return status

    def _leave_some(self) -> None:
        """Batches of which only the store knows what became."""
        for unit in list(self._open):
            if unit.batch and not unit.wrong and not unit.answered and self._rng.random() < LEFT:
                self._open.remove(unit)
                for event in unit.events:
                    self._log.note("L", event, "unanswered")

    async def _offer(self, writer: asyncio.StreamWriter) -> None:
        pace = time.monotonic()
        while True:
            if self._refused:
                await asyncio.sleep(BEHIND_S)
            while self._refused and len(self._open) < AHEAD:
                self._send(writer, self._refused.popleft())
            events = 1
            if not self._stopping and len(self._open) < AHEAD:
                if self._answered and self._rng.random() < 0.02:
                    self._send(writer, self._answered.popleft())
                unit = self._maker.unit(self._number)
                self._send(writer, unit)
                events = len(unit.events)
            pace = max(pace + events * self._rng.expovariate(self._rate), time.monotonic() - 0.05)
            await asyncio.sleep(max(0.0, pace - time.monotonic()))

    def _send(self, writer: asyncio.StreamWriter, unit: Unit) -> None:
        self._open.append(unit)
        writer.write(unit.raw)

    def _hear(self, unit: Unit, status: int, body: Any) -> None:
        now = f"{time.monotonic():.4f}"
        if status == 202 and not unit.wrong:
            for receipt in body["events"] if unit.batch else [body]:
                self._log.note("Y", receipt["id"], int(receipt["duplicate"]), now)
        elif status == 200:
            self._log.note("A", unit.events[0], body, now)
        elif status == 422 and unit.wrong:
            for event in unit.events:
                self._log.note("X", event, body["type"])
            return
        elif status in (503, 504):
            for event in unit.events:
                self._log.note("N", event, body["type"])
            self._refused.append(unit)
            return
        else:
            raise AssertionError(f"{status} {body} is no answer to {unit}")
        unit.answered = True
        if self._rng.random() < 0.05:
            self._answered.append(unit)


async def main(port: int, log: Log, rng: Random, rate: float) -> None:
    log.note("D", ASKED)
    maker = Maker(log, Events(rng), rng)
    await produce([Link(n, port, log, maker, rng, rate / LINKS) for n in range(LINKS)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Log(sys.argv[2]), Random(int(sys.argv[3])), float(sys.argv[4])))
