"""The producer: outside of the process that is killed. Offers events with ids and writes down what it was answered.

Each record is one write(2). `S` before an event is offered for the first time, with all that it asks for; then `Y` (yes),
`A` (answer to a question) or `N` (refused: offered again later). What has no answer when a connection is lost is offered
again on the next one, in the same order, with the same ids, before anything new.

    python -m tests.torture.producer PORT LOG SEED RATE      "stop" on stdin: finish what is begun; its end: leave
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from random import Random
from typing import Protocol

LINKS = 4
WINDOW = 48
"""Offers of one link that wait for an answer."""
KEYS = 40
"""Keys that events go to at a time."""
FRESH = 4000
"""Events after which new keys are used: states stay small."""
QUESTION_KEYS = 8
PLANS = {"f1": 0.02, "f3": 0.005, "m1": 0.03, "r": 0.02, "s": 0.05, "t": 0.05, "T": 0.03, "o": 0.05}
"""What an event asks for (see the application), and how often."""


class Log:
    """Append-only, a write a record."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class Events:
    """Makes events, all links together."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.made = 0

    def line(self, link: int, *, asks: bool = True) -> tuple[str, str, str]:
        """(id, record, request)."""
        rng = self._rng
        self.made += 1
        event = f"{link}-{self.made:x}"
        if asks and rng.random() < 0.02:
            key = f"q{rng.randrange(QUESTION_KEYS)}"
            return event, f"Q {event} {link} {key}", f"ask {event} {key}\n"
        key = f"g{self.made // FRESH}k{min(rng.randrange(KEYS), rng.randrange(KEYS))}"
        level = rng.choice((0, 1, 2, 2, 2, 3, 4))
        what = f"{event} {key} {level} {rng.randrange(1, 100)} {planned(rng)}"
        return event, f"S {link} {what}", f"send {what}\n"


def planned(rng: Random) -> str:
    """A plan, as a word."""
    return "-" + "".join(word for word, share in PLANS.items() if rng.random() < share)


class Link:
    """One connection after the other, one stream of ids."""

    def __init__(self, number: int, port: int, log: Log, events: Events, rng: Random, rate: float) -> None:
        self._number, self._port, self._log, self._events, self._rng, self._rate = number, port, log, events, rng, rate
        self._open: dict[str, str] = {}
        """Requests without an answer, in the order of their offers."""
        self._refused: list[str] = []
        self._answered: list[str] = []
        """Requests to offer again although they were answered: duplicates."""
        self._stopping = False
        self._writer: asyncio.StreamWriter | None = None

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True
        if self._done and self._writer is not None:
            self._writer.close()

    async def run(self) -> None:
        while not self._done:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            self._writer = writer
            for request in self._open.values():
                writer.write(request.encode())
            offering = asyncio.create_task(self._offer(writer))
            try:
                while not self._done and (line := await reader.readline()):  # done may have come while it connected
                    self._hear(line.decode().split())
            except ConnectionError:
                pass
            offering.cancel()
            writer.close()

    @property
    def _done(self) -> bool:
        return self._stopping and not self._open and not self._refused

    async def _offer(self, writer: asyncio.StreamWriter) -> None:
        pace = time.monotonic()
        while True:
            if self._refused:
                await asyncio.sleep(0.05)
            while self._refused and len(self._open) < WINDOW:
                request = self._refused.pop(0)
                self._open[request.split()[1]] = request
                writer.write(request.encode())
            if not self._stopping and len(self._open) < WINDOW:
                if self._answered and self._rng.random() < 0.02:
                    writer.write(self._answered.pop().encode())
                event, record, request = self._events.line(self._number)
                self._log.note(record)
                self._open[event] = request
                writer.write(request.encode())
            pace = max(pace + self._rng.expovariate(self._rate), time.monotonic() - 0.05)
            await asyncio.sleep(max(0.0, pace - time.monotonic()))

    def _hear(self, words: list[str]) -> None:
        kind, event, what = words
        request = self._open.pop(event, None)
        if kind == "no":
            self._log.note("N", event, what)
            if request is not None:
                self._refused.append(request)
            return
        self._log.note("A" if kind == "answer" else "Y", event, what, f"{time.monotonic():.4f}")
        if request is not None and self._rng.random() < 0.05:
            self._answered = [*self._answered[-20:], request]


class Runs(Protocol):
    """A link of any kind."""

    def stop(self) -> None: ...
    async def run(self) -> None: ...


async def produce(links: Sequence[Runs]) -> None:
    """Let them run until standard input says stop and all is answered."""

    def told() -> None:
        if not os.read(0, 16):
            os._exit(9)  # whoever started us is gone
        for link in links:
            link.stop()

    asyncio.get_running_loop().add_reader(0, told)
    await asyncio.gather(*(link.run() for link in links))


async def main(port: int, log: Log, rng: Random, rate: float) -> None:
    events = Events(rng)
    await produce([Link(n, port, log, events, rng, rate / LINKS) for n in range(LINKS)])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Log(sys.argv[2]), Random(int(sys.argv[3])), float(sys.argv[4])))
