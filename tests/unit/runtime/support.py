"""What the tests of the runtime share: a message, a state, and a disk in memory that outlives its nodes and can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from random import Random
from typing import Any

import msgspec

from genesis import App, DeadLetter, Message, Node, Priority, State
from genesis.chaos.loop import InlineExecutor
from genesis.chaos.process import EPOCH
from genesis.chaos.simulation import Simulation
from genesis.core.errors import StoreError, StoreFailedError
from genesis.core.ports import CrashPoint
from genesis.engines.memory import MemoryEngine, MemoryStorage
from genesis.runtime.life import Life, NodeSettings

CRASH_POINTS = list(CrashPoint)
COMMIT_S = 0.001
"""How long a commit takes on a `Disk`."""


class Job(Message, type="job"):
    """Something to do."""

    key: str = "a"
    n: int = 0


class Alarm(Message, type="alarm", priority=Priority.CRITICAL):
    """The same, and urgent."""

    key: str = "a"
    n: int = 0


class Done(Message, type="done"):
    """What a handler says when it is done. Nobody has to listen."""

    key: str = "a"
    n: int = 0


class Log(State):
    """The numbers that a key has seen, in order."""

    seen: list[int] = []  # noqa: RUF012 - msgspec copies it


def spoken(sim: Simulation, message: type[Message] = Done) -> list[int]:
    """The numbers that were emitted, in order."""
    return [found.n for found in sim.emitted(message)]


async def inside(sim: Simulation, work: Callable[[Node], Awaitable[Any]]) -> Any:
    """Run a coroutine function beside the node: for calls that must be under way at the same time."""
    return sim._run(work)


async def until(true: Callable[[], Any], *, limit_s: float = 60.0) -> None:
    """Wait until something is so, in the time of the running loop."""
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(0.01)


class _Clock:
    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time

    def wall(self) -> float:
        return EPOCH + self.now()


class Disk:
    """A store in memory. One node after the other may use it, and its commits fail where they are told to."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self._faults: dict[CrashPoint, tuple[int, StoreError]] = {}
        self.engine: MemoryEngine

    def fail_at(self, point: CrashPoint, *, after: int = 0, error: StoreError | None = None) -> None:
        """Let the (`after` + 1)-th commit fail: at EXECUTE nothing of it is stored, at COMMIT all of it."""
        self._faults[point] = after, error or StoreFailedError("the disk failed")

    @property
    def failed(self) -> bool:
        """Whether all that was to fail has failed."""
        return not self._faults

    def _pass(self, point: CrashPoint) -> None:
        if point in self._faults:
            left, error = self._faults.pop(point)
            if not left:
                raise error
            self._faults[point] = left - 1, error

    async def dead(self) -> list[DeadLetter]:
        """The dead letters that are stored, oldest first."""
        await asyncio.sleep(0.1)  # what is counted is on its way to the disk
        rows = await self.engine.scan(0, "dead", "", 10_000)
        return sorted((msgspec.msgpack.decode(body, type=DeadLetter) for _, body in rows), key=lambda d: d.died_at)

    @asynccontextmanager
    async def node(
        self, app: App, *, delay: Callable[[], float] = lambda: COMMIT_S, immediate: bool = False, **settings: Any
    ) -> AsyncIterator[Node]:
        """A node on this disk, in the time of the running loop. `immediate`: its commits take no time and cannot fail."""
        crash = None if immediate else self._pass
        self.engine = MemoryEngine(self.storage, immediate=immediate, crash=crash, delay=delay)
        life = Life(
            app.definition(),
            self.engine,
            NodeSettings(**settings),
            rng=Random(1),
            executor=InlineExecutor(),
            clock=_Clock,
        )
        async with Node(life).run() as node:
            yield node


def in_real_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test in a loop of the real world."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run
