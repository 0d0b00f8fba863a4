"""The production application in virtual time, on the memory engine: what users test their components with.

In: messages, the passing of time, crashes at named points. Out: states, emitted messages, dead letters. The same seed and
the same calls give the same world.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from genesis.chaos import faults
from genesis.chaos.loop import VirtualLoop
from genesis.chaos.process import Process
from genesis.chaos.world import RESTART_S, NodeDownError, World
from genesis.core.errors import DrainingError, GenesisError, IntakeFullError, NotAcceptedError, StoreFailedError
from genesis.core.event import DeadLetter, Delivery, Pending, Priority, Reason, Receipt
from genesis.core.message import Message, Request
from genesis.core.ports import CrashPoint, Ledger
from genesis.runtime.definition import Definition
from genesis.runtime.life import NodeSettings
from genesis.runtime.node import Node
from genesis.runtime.pipeline import Pipeline
from genesis.runtime.status import Status

A = TypeVar("A")
M = TypeVar("M", bound=Message)
T = TypeVar("T")
SETTLE_MAX_S = 3600.0
STEP_S = 0.05
STEP_SHARE = 0.01
"""Settling looks whether all is quiet every 50 ms at first, later every hundredth of what it has waited."""


class SettleError(GenesisError):
    """Work is left that an hour of virtual time did not end."""

    code = "settle"


class Simulation:
    """A world that a test drives. Its calls run the virtual loop; between them time stands still."""

    def __init__(
        self,
        definition: Definition,
        *,
        seed: int,
        errors: str,
        settings: NodeSettings,
        nodes: int = 1,
        store: str = "memory",
        schedule: faults.Schedule = (),
        exploring: bool = False,
    ) -> None:
        """Start a world.

        Args:
            definition: The app.
            seed: Decides everything that is left to chance.
            errors: ``raise`` or ``record`` what handlers raise.
            settings: Limits of each node.
            nodes: How many machines there are.
            store: ``memory`` or ``sqlite``, as `World` takes it.
            schedule: Faults that happen by themselves.
            exploring: Whether the seed draws the order of what is ready, restarts take time, and clients that are told to
                come back do so.
        """
        if errors not in ("raise", "record"):
            raise ValueError(f"errors is {errors!r}: raise or record")
        self.world = World(
            definition,
            seed=seed,
            nodes=nodes,
            store=store,
            settings=settings,
            seeded_order=exploring,
            restart_s=RESTART_S if exploring else (0.0, 0.0),
            observe=self._observe,
        )
        self._errors, self._exploring = errors, exploring
        self._rng = self.world.rng("ids")
        self._emitted: list[Message] = []
        self._unraised: list[BaseException] = []
        self.failures: list[tuple[str, BaseException]] = []
        """(route, error) of every failed attempt."""
        try:
            self.world.check(schedule)
            self._run(_nothing)  # started: what it stores at first is no part of what the user's crash points count
        except BaseException:
            self.world.close()
            raise
        self._trouble = self.world.loop.create_task(self.world.follow(schedule), name="faults")

    # --- what happens -----------------------------------------------------------------------------------------------

    async def send(
        self, message: Message, *, id: str | None = None, source: str | None = None, priority: Priority | None = None
    ) -> Receipt:
        """Send an event; returns when it is durable. An armed crash on the way is survived by sending again.

        Without an `id` one is given, so that the event is accepted once.
        """
        given = id if id is not None else f"sim-{self._rng.getrandbits(64):016x}"
        return self._run(lambda node: node.send(message, id=given, source=source, priority=priority))

    async def send_all(self, messages: Iterable[Message]) -> list[Receipt]:
        """Send events side by side, each by a client of its own: in which order they arrive is left to chance."""
        clients = [self._call(self._sending(message)) for message in messages]
        return self.world.run(self._all(clients))

    async def _all(self, calls: list[Coroutine[Any, Any, T]]) -> list[T]:
        tasks = [self.world.loop.create_task(call, name=f"client-{number}") for number, call in enumerate(calls)]
        if tasks:
            await asyncio.wait(tasks)
        return [task.result() for task in tasks]

    def _sending(self, message: Message) -> Callable[[Node], Coroutine[Any, Any, Receipt]]:
        given = f"sim-{self._rng.getrandbits(64):016x}"
        return lambda node: node.send(message, id=given)

    async def ask(self, request: Request[A], *, deadline: float = 30.0, id: str | None = None) -> A:
        """Ask, in virtual time."""
        given = id if id is not None else f"sim-{self._rng.getrandbits(64):016x}"
        return self._run(lambda node: node.ask(request, deadline=deadline, id=given))

    async def advance(self, seconds: float) -> None:
        """Let time pass; everything that falls due happens."""
        until = self.world.loop.time() + seconds
        self._run(lambda node: _sleep_until(self.world.loop, until))

    async def settle(self) -> None:
        """Run until no delivery waits, retries included; parked ones and timers that are not due stay.

        Raises:
            Exception: the first error that a handler raised, unless errors are recorded.
            SettleError: an hour was not enough.
        """
        begin = self.world.loop.time()
        while True:
            self._run(lambda node: _sleep_until(self.world.loop, self.world.loop.time()))
            if self._errors == "raise" and self._unraised:
                raise self._unraised.pop(0)
            if self._quiet():
                return
            waited = self.world.loop.time() - begin
            if waited > SETTLE_MAX_S:
                raise SettleError(f"after an hour {self.ledger.waiting} deliveries still wait: {self.ledger}")
            await self.advance(max(STEP_S, STEP_SHARE * waited))

    def crash_at(self, point: CrashPoint | str, *, after: int = 0) -> None:
        """Kill the node when it passes a named point of the commit path for the (`after` + 1)-th time; it is started again.

        Raises:
            ValueError: no such point; names them.
        """
        try:
            found = CrashPoint(point)
        except ValueError:
            raise ValueError(f"{point!r} is no crash point; they are {', '.join(CrashPoint)}") from None
        self.inject(faults.CrashAtPoint(point=found, after=after))

    async def crash(self) -> None:
        """Kill the node that serves now; it, or another, is started again."""
        self.inject(faults.Crash(self._serving().host.number))
        self._run(_nothing)

    async def pause(self, seconds: float) -> None:
        """Let the node that serves stand still, as by SIGSTOP. With several nodes another takes over, and it wakes a zombie."""
        self.inject(faults.Pause(self._serving().host.number, seconds))

    async def partition(self, seconds: float) -> None:
        """Cut the node that serves off from its store. With several nodes another takes over."""
        self.inject(faults.CutOff(self._serving().host.number, seconds))

    def inject(self, fault: faults.AnyFault) -> None:
        """Let something go wrong now."""
        self.world.inject(fault)

    # --- what is seen -----------------------------------------------------------------------------------------------

    def state(self, component: type, key: object = None) -> Any:
        """The committed state of a key."""
        return self._run(lambda node: node.state(component, key))

    def emitted(self, message: type[M]) -> list[M]:
        """Messages of a class that were emitted and committed, in order."""
        return [found for found in self._emitted if type(found) is message]

    def dead(self) -> list[DeadLetter]:
        """Dead letters, oldest first."""
        rows = self.world.store.table("dead").values()
        return sorted((msgspec.msgpack.decode(body, type=DeadLetter) for body in rows), key=lambda letter: letter.died_at)

    def now(self) -> float:
        """Virtual wall clock, seconds since the epoch."""
        return self._serving().host.wall()

    @property
    def crashes(self) -> int:
        """How often a node was killed."""
        return self.world.kills

    @property
    def ledger(self) -> Ledger:
        """The counters of the partition."""
        return self._status().ledger

    @property
    def node(self) -> Node:
        """The node that serves."""
        node = self._serving().node
        assert node is not None
        return node

    # --- inside -----------------------------------------------------------------------------------------------------

    def _observe(self, what: str, fact: Any) -> None:
        if what == "emitted":
            self._emitted += fact
        elif what == "failure":
            delivery, error = fact
            assert isinstance(delivery, Delivery)
            self.failures.append((delivery.route, error))
            self._unraised.append(error)

    def _serving(self) -> Process:
        """The process that serves, started first if it is dead."""
        while (process := self.world.serving()) is None:
            self._run(_nothing)
        return process

    def _run(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        """Run a call; when the node is killed meanwhile, repeat it at the one that is started again."""
        return self.world.run(self._call(work))

    async def _call(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await self.world.call(work, patience_s=math.inf)
            except NodeDownError:
                continue
            except (DrainingError, IntakeFullError, NotAcceptedError, StoreFailedError) as refusal:
                if not self._exploring and not isinstance(refusal, (DrainingError, NotAcceptedError)):
                    raise
                await asyncio.sleep(getattr(refusal, "retry_after_s", 0.1))

    def _status(self) -> Status:
        return self._run(_status)

    def _quiet(self) -> bool:
        """Whether everything that can run has ended, and is committed."""
        status, pipeline = self._run(_look)
        if pipeline.head.epoch != self.world.store.epoch():  # it was deposed, and does not know
            return False
        if status.running or pipeline.sealed or pipeline.intake.waiting or not pipeline.group.empty:
            return False
        return status.ledger.waiting == (_asleep(self.world.store.pending()) if status.parked else 0)

    def close(self) -> None:
        """End the world."""
        self._trouble.cancel()
        self.world.close()


@asynccontextmanager
async def simulation(definition: Definition, **options: Any) -> AsyncIterator[Simulation]:
    """A world for the length of a block; options as `Simulation` takes them."""
    sim = Simulation(definition, **options)
    try:
        yield sim
    finally:
        sim.close()


async def _nothing(node: Node) -> None:
    """For a call that only needs somebody to serve."""


async def _sleep_until(loop: VirtualLoop, until: float) -> None:
    await asyncio.sleep(max(0.0, until - loop.time()))


async def _status(node: Node) -> Status:
    return node.status()


async def _look(node: Node) -> tuple[Status, Pipeline]:
    return node.status(), node._ready()


def _asleep(rows: list[Pending]) -> int:
    """Deliveries that wait for a person: the parked ones, and those behind them."""
    parked = {row.delivery.address for row in rows if row.reason is Reason.PARKED}
    return sum(row.reason is Reason.PARKED or (row.reason is Reason.HELD and row.delivery.address in parked) for row in rows)
