"""A simulated machine, and the processes that serve the app on it one after the other.

In: the steps of everything that runs in a process, and what it is told to suffer. Out: which of them run. A process that
is killed is gone at once: its store is cut off, its calls are not answered, and what is left of it unwinds unheard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from genesis.chaos.loop import PLACE
from genesis.chaos.mischief import Mischief
from genesis.chaos.model import ModelEngine, Weather
from genesis.core.errors import FencedError, StoreFailedError, StoreFullError
from genesis.core.message import Message
from genesis.core.ports import CrashPoint, Head
from genesis.runtime.life import Life
from genesis.runtime.node import Node

if TYPE_CHECKING:
    from genesis.chaos.world import World

T = TypeVar("T")
SWEEP_MIN = 64
"""Tasks of a process, ended ones among them, that are let lie."""
EPOCH = 1_000_000_000.0
"""Wall clock at the start of every world: 9 September 2001, 01:46:40 UTC."""


class Killed(BaseException):
    """Ends the simulated process where it stands."""


class Process:
    """One process of a world, from its start to its end: a `Place` for everything that it runs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.node: Node | None = None
        self.died: asyncio.Future[None] = host.world.loop.create_future()
        """Done when it was killed, or ended by itself."""
        self._told_to_end: asyncio.Future[None] = host.world.loop.create_future()
        self._epoch = 0
        """Of its last claim."""
        self.error: BaseException | None = None
        self.dead = False
        self._killed = False
        self._sealed: list[Message] = []
        """Emitted in the group whose commit is under way."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._sweep_at = SWEEP_MIN
        self._doomed_at: int | None = None
        self.steps = 0
        host.world.processes += 1
        self.number = host.world.processes
        world = host.world
        self.engine = ModelEngine(world.store, host.weather, world.rng("engine"), world.loop, crash=self.passes, owner=self)

    # --- its steps --------------------------------------------------------------------------------------------------

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether a callback of this process runs now."""
        if self.dead:
            return False
        if self.host.paused and not self._killed:
            self.host.held.append(handle)
            return False
        self.steps += 1
        if self._doomed_at is not None and self.steps >= self._doomed_at and not self._killed:
            self.host.world.told(self.host, "killed between two awaits")
            self.kill()
        return True

    def passes(self, point: CrashPoint) -> None:
        """It passes a named point of the commit path, and dies there if it was told to."""
        if self._killed:
            raise Killed
        host = self.host
        if host.armed and host.armed[point]:
            host.armed[point] -= 1
            if not host.armed[point]:
                host.world.told(host, f"killed at {point}")
                host.world.killed_at[point] += 1
                self.kill()
                raise Killed

    def observes(self, what: str, fact: Any) -> None:
        """Something happened in it; of a dead one it is not told."""
        if what == "sealed":
            self._sealed = fact
        elif not self._killed:
            self.host.world.observe(what, fact)

    def tried(self, head: Head) -> None:
        """The store works on its commit."""
        self.host.world.history.tried(head, self._sealed)
        self._sealed = []

    def applied(self, head: Head) -> None:
        """Its commit took effect, whoever gets to know of it."""
        self.host.world.history.applied(head)

    def claimed(self, head: Head) -> None:
        """It owns the store now, and this is what it found."""
        self._epoch = head.epoch
        self.host.world.history.claimed(head)

    def doom(self, steps: int) -> None:
        """It will be killed so many callbacks from now."""
        self._doomed_at = self.steps + steps

    # --- its life ---------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task inside it."""
        context = copy_context()
        context.run(PLACE.set, self)
        return self.host.world.loop.create_task(work, name=f"{self.host.name}-{name}", context=context)

    def owns(self, task: asyncio.Task[Any]) -> None:
        """A task was made inside it."""
        if len(self._tasks) >= self._sweep_at:
            self._tasks = self.remains
            self._sweep_at = max(SWEEP_MIN, 2 * len(self._tasks))
        self._tasks.append(task)
        if self._killed:
            task.add_done_callback(seen)

    async def run(self, life: Life, up: asyncio.Future[None]) -> None:
        """From the opening of its store to its end."""
        try:
            async with Node(life).run() as node:
                self.node = node
                self.host.world.serves_now()
                if not up.done():
                    up.set_result(None)
                await self._told_to_end
            self._check_head()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = error
            what = f"{type(error).__name__}: {error}"[:200]
            self.host.world.told(self.host, f"stops: {what}")
            if not isinstance(error, (StoreFailedError, StoreFullError, FencedError, Killed)):
                # A store may fail, be full, or have another owner; nothing else may end a process.
                self.host.world.violations.append(f"{self.host.name} stops: {what}")
        finally:
            self.node = None
            if not up.done():
                up.set_result(None)
            if not self.died.done():
                self.died.set_result(None)

    def _check_head(self) -> None:
        """Who has ended in order, and nobody took over meanwhile, has left word that nothing runs."""
        store = self.host.world.store
        head = store.head()
        if store.epoch() == self._epoch and (head.running or not head.clean):
            left = f"clean: {head.clean}, running: {head.running}"
            self.host.world.violations.append(f"{self.host.name} ended in order, and its store says {left}")

    def stop(self) -> None:
        """It is told to end in order, as by SIGTERM: to drain and to close."""
        if not self._told_to_end.done():
            self._told_to_end.set_result(None)

    def kill(self) -> None:
        """It is gone at once. What is left of it unwinds, and touches nothing any more."""
        if self._killed:
            return
        self._killed, self.node = True, None
        self.engine.cut()
        self.host.world.kills += 1
        if not self.died.done():
            self.died.set_result(None)
        self.host.release()
        for task in self._tasks:
            task.add_done_callback(seen)
            task.cancel()
        self.host.world.ends.bury(self)

    @property
    def remains(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]


class Host:
    """A machine on which one process after the other serves the app: what is wrong with it outlives them."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.name = world, number, f"node-{number}"
        self.weather = Weather(changed=world.changed.set)
        self.process: Process | None = None
        self.paused = False
        self.held: list[asyncio.Handle] = []
        """What became ready while it was paused: of the process that serves, and of what earlier ones left running."""
        self.wall_offset_s, self.wall_rate = 0.0, 1.0
        self._wall_from = 0.0
        self.armed: Counter[CrashPoint] = Counter()
        self.mischief = Mischief(world.loop)

    def now(self) -> float:
        """Monotonic seconds."""
        return self.world.loop.time()

    def wall(self) -> float:
        """Its wall clock, right or wrong."""
        return EPOCH + self.wall_offset_s + self._wall_from + (self.now() - self._wall_from) * self.wall_rate

    def drift(self, rate: float) -> None:
        """Its clock goes on from where it stands, at another rate."""
        self.wall_offset_s, self._wall_from, self.wall_rate = self.wall() - EPOCH - self.now(), self.now(), 1.0 + rate

    def release(self) -> None:
        """What was held is ready again; what is still paused is held anew."""
        ready: Any = self.world.loop._ready  # type: ignore[attr-defined]
        ready.extend(self.held)
        self.held.clear()

    @property
    def serves(self) -> bool:
        """Whether a client would reach it."""
        return self.process is not None and self.process.node is not None and not self.paused

    @property
    def silent(self) -> bool:
        """Whether others hear nothing of it."""
        return self.paused or not self.weather.reachable.is_set()


def seen(task: asyncio.Future[Any]) -> None:
    """Look at what a task ended with, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()
