"""The production application in virtual time, on the memory engine: what users test their components with.

In: messages, the passing of time, crashes at named points. Out: states, emitted messages, dead letters. The same seed and
the same calls give the same world.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from random import Random
from typing import Any, TypeVar

import msgspec

from genesis.chaos.loop import InlineExecutor, VirtualLoop
from genesis.core.errors import GenesisError
from genesis.core.event import DeadLetter, Delivery, Priority, Reason, Receipt
from genesis.core.message import Message, Request
from genesis.core.ports import CrashPoint, Ledger
from genesis.engines.memory import MemoryEngine, MemoryStorage
from genesis.runtime.definition import Definition
from genesis.runtime.life import Life, NodeSettings
from genesis.runtime.node import Node
from genesis.runtime.status import Status

A = TypeVar("A")
M = TypeVar("M", bound=Message)
T = TypeVar("T")
EPOCH = 1_000_000_000.0
"""Wall clock at the start of every simulation: 9 September 2001, 01:46:40 UTC."""
SETTLE_MAX_S = 3600.0
STEP_S = 0.05
STEP_SHARE = 0.01
"""Settling looks whether all is quiet every 50 ms at first, later every hundredth of what it has waited."""


class SettleError(GenesisError):
    """Work is left that an hour of virtual time did not end."""

    code = "settle"


class _Crash(BaseException):
    """Ends the simulated process where it stands."""


class _Clock:
    """The loop's virtual time as both clocks."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.now = loop.time

    def wall(self) -> float:
        return EPOCH + self.now()


class Simulation:
    """A world with one node. Its calls run the virtual loop; between them time stands still."""

    def __init__(self, definition: Definition, seed: int, errors: str, settings: NodeSettings) -> None:
        if errors not in ("raise", "record"):
            raise ValueError(f"errors is {errors!r}: raise or record")
        self._definition, self._errors, self._settings = definition, errors, settings
        self._loop = VirtualLoop()
        self._rng = Random(seed)
        self._storage = MemoryStorage()
        self._engine: MemoryEngine | None = None
        self._node: Node | None = None
        self._life: AbstractAsyncContextManager[Node] | None = None
        self._armed: Counter[CrashPoint] = Counter()
        self._emitted: list[Message] = []
        self._sealed: list[Message] = []
        """Emitted in the group whose commit is under way."""
        self._unraised: list[BaseException] = []
        self.failures: list[tuple[str, BaseException]] = []
        """(route, error) of every failed attempt."""
        self.crashes = 0
        self._killed: asyncio.Future[None] = self._loop.create_future()
        """Done when the node passed a point where it was to die."""

    # --- what happens -----------------------------------------------------------------------------------------------

    async def send(
        self, message: Message, *, id: str | None = None, source: str | None = None, priority: Priority | None = None
    ) -> Receipt:
        """Send an event; returns when it is durable. An armed crash on the way is survived by sending again.

        Without an `id` one is given, so that the event is accepted once.
        """
        given = id if id is not None else f"sim-{self._rng.getrandbits(64):016x}"
        return self._run(lambda node: node.send(message, id=given, source=source, priority=priority))

    async def ask(self, request: Request[A], *, deadline: float = 30.0, id: str | None = None) -> A:
        """Ask, in virtual time."""
        given = id if id is not None else f"sim-{self._rng.getrandbits(64):016x}"
        return self._run(lambda node: node.ask(request, deadline=deadline, id=given))

    async def advance(self, seconds: float) -> None:
        """Let time pass; everything that falls due happens."""
        until = self._loop.time() + seconds
        self._run(lambda node: _sleep_until(self._loop, until))

    async def settle(self) -> None:
        """Run until no delivery waits, retries included; parked ones and timers that are not due stay.

        Raises:
            Exception: the first error that a handler raised, unless errors are recorded.
            SettleError: an hour was not enough.
        """
        begin = self._loop.time()
        while True:
            self._run(lambda node: _sleep_until(self._loop, self._loop.time()))
            if self._errors == "raise" and self._unraised:
                raise self._unraised.pop(0)
            if self._quiet():
                return
            waited = self._loop.time() - begin
            if waited > SETTLE_MAX_S:
                raise SettleError(f"after an hour {self.ledger.waiting} deliveries still wait: {self.ledger}")
            await self.advance(max(STEP_S, STEP_SHARE * waited))

    def crash_at(self, point: CrashPoint | str, *, after: int = 0) -> None:
        """Kill the node when it passes a named point of the commit path for the (`after` + 1)-th time; it is started again.

        Raises:
            ValueError: no such point; names them.
        """
        try:
            self._armed[CrashPoint(point)] = after + 1
        except ValueError:
            raise ValueError(f"{point!r} is no crash point; they are {', '.join(CrashPoint)}") from None

    async def crash(self) -> None:
        """Kill the node now, and start it again."""
        self._die()
        self._ensure()

    # --- what is seen -----------------------------------------------------------------------------------------------

    def state(self, component: type, key: object = None) -> Any:
        """The committed state of a key."""
        return self._run(lambda node: node.state(component, key))

    def emitted(self, message: type[M]) -> list[M]:
        """Messages of a class that were emitted and committed, in order."""
        return [found for found in self._emitted if type(found) is message]

    def dead(self) -> list[DeadLetter]:
        """Dead letters, oldest first."""
        rows = self._run(lambda node: self._engine_now().scan(0, "dead", "", 100_000))
        return sorted((msgspec.msgpack.decode(body, type=DeadLetter) for _, body in rows), key=lambda letter: letter.died_at)

    def now(self) -> float:
        """Virtual wall clock, seconds since the epoch."""
        return EPOCH + self._loop.time()

    @property
    def ledger(self) -> Ledger:
        """The counters of the partition."""
        return self._status().ledger

    @property
    def node(self) -> Node:
        """The running node."""
        return self._ensure()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _observe(self, what: str, fact: Any) -> None:
        if what == "sealed":
            self._sealed = fact
        elif what == "failure" and not self._killed.done():
            delivery, error = fact
            assert isinstance(delivery, Delivery)
            self.failures.append((delivery.route, error))
            self._unraised.append(error)

    def _maybe_crash(self, point: CrashPoint) -> None:
        if self._killed.done():  # what is left of a dead node goes nowhere
            raise _Crash
        if point is CrashPoint.COMMIT:  # durable, whoever gets to know of it
            self._emitted += self._sealed
        if point in self._armed:
            self._armed[point] -= 1
            if not self._armed[point]:
                del self._armed[point]
                self._engine_now().cut()
                self._killed.set_result(None)
                raise _Crash

    def _engine_now(self) -> MemoryEngine:
        assert self._engine is not None
        return self._engine

    def _ensure(self) -> Node:
        """The node, started if it is dead."""
        while self._node is None:
            self._engine = MemoryEngine(self._storage, immediate=False, crash=self._maybe_crash, delay=self._delay)
            life = Life(
                self._definition,
                self._engine,
                self._settings,
                rng=Random(self._rng.getrandbits(64)),
                crash=self._maybe_crash,
                observe=self._observe,
                executor=InlineExecutor(),
                clock=lambda: _Clock(self._loop),
            )
            node = Node(life)
            self._life = node.run()
            if self._drive(self._life.__aenter__()) and self._life is not None:
                self._node = node
        return self._node

    def _delay(self) -> float:
        return self._rng.uniform(0.0002, 0.002)

    def _run(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        """Run a call; when the node is killed meanwhile, start it again and repeat the call."""
        while True:
            ended = self._drive(work(self._ensure()))
            if ended:
                return ended[0]

    def _drive(self, work: Coroutine[Any, Any, T]) -> tuple[T] | None:
        """Run something to its end. None if the node was killed before; if it was killed at that moment, it is buried."""
        task = self._loop.create_task(work, name="test")
        task.add_done_callback(_seen)
        self._loop.run_nested(_first(task, self._killed))
        if not self._killed.done():
            return (task.result(),)
        ended = task.done() and not task.cancelled() and task.exception() is None
        task.cancel()
        self._die()
        return (task.result(),) if ended else None

    def _die(self) -> None:
        """End the node without any of its goodbyes reaching the store."""
        if self._engine is not None:
            self._engine.cut()
        if not self._killed.done():
            self._killed.set_result(None)
        life, self._node, self._life = self._life, None, None
        self.crashes += 1
        self._loop.run_nested(_bury(self._loop, life))
        self._killed = self._loop.create_future()

    def _status(self) -> Status:
        return self._run(_status)

    def _quiet(self) -> bool:
        """Whether everything that can run has ended, and is committed."""
        pipeline, status = self._ensure()._ready(), self._status()
        if status.running or pipeline.sealed or pipeline.intake.waiting or not pipeline.group.empty:
            return False
        return status.ledger.waiting == (self._run(lambda node: _asleep(self._engine_now())) if status.parked else 0)

    def close(self) -> None:
        """End the world."""
        self._armed.clear()
        if self._life is not None and self._node is not None:
            self._loop.run_nested(self._life.__aexit__(None, None, None))
        self._loop.run_nested(_bury(self._loop, None))
        self._loop.close()


@asynccontextmanager
async def simulation(definition: Definition, *, seed: int, errors: str, settings: NodeSettings) -> AsyncIterator[Simulation]:
    """A world for the length of a block."""
    world = Simulation(definition, seed, errors, settings)
    try:
        world._ensure()  # started: what it stores at first is no part of what the user's crash points count
        yield world
    finally:
        world.close()


async def _sleep_until(loop: VirtualLoop, until: float) -> None:
    await asyncio.sleep(max(0.0, until - loop.time()))


async def _status(node: Node) -> Status:
    return node.status()


async def _asleep(engine: MemoryEngine) -> int:
    """Deliveries that wait for a person: the parked ones, and those behind them."""
    rows = await engine.scan_pending(0, 0, 1_000_000)
    parked = {row.delivery.address for row in rows if row.reason is Reason.PARKED}
    return sum(row.reason is Reason.PARKED or (row.reason is Reason.HELD and row.delivery.address in parked) for row in rows)


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at what a task ended with, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _bury(loop: VirtualLoop, life: Any) -> None:
    """Cancel every task of a dead node and wait for their end."""
    me = asyncio.current_task()
    left = [task for task in asyncio.all_tasks(loop) if task is not me]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)
    if life is not None:
        with suppress(asyncio.CancelledError, GenesisError, _Crash):
            await life.gen.aclose()
