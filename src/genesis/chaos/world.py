"""A world of simulated processes that share one store: they run the production app, and are killed, paused and cut off.

In: a definition, a seed, and faults as they happen. Out: calls to whichever process serves, what became of them, and a
timeline of what happened. A client's call ends when its process dies: an answer of the dead is not heard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, NoReturn, TypeVar

from genesis.chaos import faults as f
from genesis.chaos.ends import Ends
from genesis.chaos.history import History
from genesis.chaos.loop import PLACE, InlineExecutor, VirtualLoop
from genesis.chaos.process import Host, Killed, Process, seen
from genesis.chaos.stores import KINDS, MemoryStore, SqliteStore, Store
from genesis.core.errors import GenesisError, StoreFailedError, StoreFullError
from genesis.core.ports import CrashPoint
from genesis.runtime.definition import Definition
from genesis.runtime.life import Life, NodeSettings
from genesis.runtime.node import Node
from genesis.runtime.pipeline import Observer

T = TypeVar("T")
RESTART_S = (0.02, 0.5)
"""How long it takes to start a process again."""
SUSPECT_S = 2.0
"""How long a process may be silent until another one takes over."""


class NodeDownError(GenesisError):
    """The process that was called died, or stands still: call again."""

    code = "node-down"


class World:
    """The loop, the store, and the machines."""

    def __init__(
        self,
        definition: Definition,
        *,
        seed: int,
        nodes: int = 1,
        store: str = "memory",
        settings: NodeSettings,
        seeded_order: bool = True,
        restart_s: tuple[float, float] = RESTART_S,
        trace: bool = False,
        observe: Observer = lambda what, fact: None,
    ) -> None:
        """Make it; nothing runs yet.

        Args:
            definition: The app.
            seed: Decides everything that is left to chance.
            nodes: How many machines there are: one serves, the others take over.
            store: ``memory``: a model of a store, which nodes share; ``sqlite``: the real engine, on the disk of one machine.
            settings: Limits of each process.
            seeded_order: Whether the seed draws the order in which ready callbacks run; else it is that of asyncio.
            restart_s: Shortest and longest time until a dead process is started again.
            trace: Whether the loop keeps a digest of every step.
            observe: Told what happens inside the processes that live, and of each commit that takes effect what was emitted
                in it: ("emitted", messages).

        Raises:
            ValueError: there is no such store, or it does not take so many nodes.
            NotWatchableError: the disk of a SQLite file cannot be simulated with this Python.
        """
        self._definition, self._settings, self.observe = definition, settings, observe
        self._seed, self._restart_s = seed, restart_s
        self._rngs: dict[str, Random] = {}
        self.store = self._make_store(store, nodes)
        self.loop = VirtualLoop(Random(f"{seed}/order") if seeded_order else None, trace=trace)
        self.loop.owned_by = self._owned
        self.loop.set_exception_handler(self._broke)
        self.timeline: list[tuple[float, str, str]] = []
        """(virtual seconds, where, what)."""
        self.violations: list[str] = []
        self.killed_at: Counter[CrashPoint] = Counter()
        self.injected: Counter[str] = Counter()
        self.kills = 0
        self.processes = 0
        self.history = History(self.violations.append, partial(observe, "emitted"))
        self.changed = asyncio.Event()
        """A process started, ended, was paused, woke, or lost sight of its store."""
        self.hosts = [Host(self, number) for number in range(nodes)]
        self._callers: list[asyncio.Future[None]] = []
        """Clients that wait for somebody who serves."""
        self.ends = Ends(self.loop, settings, self.violations.append)
        self._keeper: asyncio.Task[None] | None = None

    def _make_store(self, name: str, nodes: int) -> Store:
        if name not in KINDS:
            raise ValueError(f"store is {name!r}: {' or '.join(KINDS)}")
        store: Store = MemoryStore() if name == "memory" else SqliteStore(self.rng("disk"), self._lose_power)
        if nodes > store.nodes_max:
            store.close()
            raise ValueError(f"a file of SQLite belongs to one machine: nodes=1, not {nodes}, or store='memory'")
        return store

    def _lose_power(self) -> None:
        host = self.hosts[0]
        self.told(host, "loses its power")
        if host.process is not None:
            host.process.kill()

    def rng(self, purpose: str) -> Random:
        """A source of chance for one purpose: a draw for one does not shift the others."""
        if purpose not in self._rngs:
            self._rngs[purpose] = Random(f"{self._seed}/{purpose}")
        return self._rngs[purpose]

    def told(self, host: Host | None, what: str) -> None:
        """Something happened."""
        self.timeline.append((self.loop.time(), host.name if host else "world", what))

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context:  # a callback failed; the other complaints come when garbage is collected, in no certain order
            self.violations.append(f"{context['message']}: {context.get('exception')!r}")

    def _owned(self, task: asyncio.Task[Any], place: Any) -> None:
        if isinstance(place, Process):
            place.owns(task)

    # --- processes --------------------------------------------------------------------------------------------------

    async def start(self, host: Host) -> None:
        """Start a process on a machine, and wait until it serves, or is gone."""
        process = host.process = Process(host)
        life = Life(
            self._definition,
            process.engine,
            self._settings,
            rng=Random(self.rng("node").getrandbits(64)),
            crash=process.passes,
            observe=process.observes,
            executor=InlineExecutor(),
            clock=lambda: host,
            wrap=host.mischief.wrap,
        )
        up: asyncio.Future[None] = self.loop.create_future()
        process.spawn(process.run(life, up), "main")
        process.died.add_done_callback(self._wake_keeper)
        await asyncio.wait([up, process.died], return_when=asyncio.FIRST_COMPLETED)
        if process.node is not None:
            self.told(host, "serves")
        elif process.error is not None and not isinstance(process.error, (StoreFailedError, StoreFullError, Killed)):
            self._refuse(process.error)

    def _wake_keeper(self, _: object) -> None:
        self.changed.set()

    async def keep_one_up(self) -> None:
        """As an orchestrator does: start a process when none serves, on another machine when one is silent for too long."""
        rng, at = self.rng("keeper"), 0
        while True:
            host = self.hosts[at % len(self.hosts)]
            if host.process is not None and host.process.number < self.processes:
                await self._end_deposed(host.process)
            if host.process is None or host.process.died.done():
                await asyncio.sleep(rng.uniform(*self._restart_s))
                if not host.paused:
                    await self.start(host)
            self.changed.clear()
            if host.silent and len(self.hosts) > 1:
                await asyncio.sleep(SUSPECT_S)
            elif host.silent or host.serves:
                await self.changed.wait()
            if host.silent or not host.serves:
                at += 1

    async def _end_deposed(self, process: Process) -> None:
        """Whoever promotes a machine ends what is left there, unless a commit tells it soon that another has taken over."""
        await asyncio.wait([process.died], timeout=SUSPECT_S)
        if not process.died.done():
            process.kill()

    def die(self) -> NoReturn:
        """Called by a handler: kill the process that it runs in, as a fault in native code would.

        Raises:
            asyncio.CancelledError: what called it unwinds like all else of its process, and begins nothing any more.
        """
        process = PLACE.get()
        assert isinstance(process, Process), "only what runs in a process can die with it"
        self.told(process.host, "killed by a handler")
        process.kill()
        raise asyncio.CancelledError

    # --- clients ----------------------------------------------------------------------------------------------------

    async def call(self, work: Callable[[Node], Coroutine[Any, Any, T]], *, patience_s: float = 30.0) -> T:
        """Call the process that serves.

        Raises:
            NodeDownError: it died, or nobody answered in time. What was asked for may have happened.
            GenesisError: as the call raises.
        """
        until = self.loop.time() + patience_s
        process = await self._somebody(until)
        assert process.node is not None
        task = process.spawn(work(process.node), "call")
        heard: asyncio.Future[None] = self.loop.create_future()
        hear = partial(_hear, heard)
        task.add_done_callback(hear)
        process.died.add_done_callback(hear)
        patience = self.loop.call_at(until, hear, None)
        try:
            await heard
        finally:
            patience.cancel()
            process.died.remove_done_callback(hear)
        if process.died.done():
            task.cancel()
        if not task.done() or (process.died.done() and (task.cancelled() or task.exception() is not None)):
            raise NodeDownError(f"{process.host.name} died or did not answer")  # a call that is given up goes on over there
        return task.result()

    async def _somebody(self, until: float) -> Process:
        """The process that serves, as soon as there is one."""
        while (process := self.serving()) is None:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._callers.append(waiter)
            await asyncio.wait([waiter], timeout=until - self.loop.time())
            if not waiter.done():
                raise NodeDownError("nobody serves")
            waiter.result()
        return process

    def _refuse(self, error: BaseException) -> None:
        """The app cannot be started: whoever waits for it is told, instead of waiting for ever."""
        callers, self._callers = self._callers, []
        for waiter in callers:
            if not waiter.done():
                waiter.set_exception(error)

    def serves_now(self) -> None:
        """Tell those who wait for somebody who serves."""
        callers, self._callers = self._callers, []
        for waiter in callers:
            if not waiter.done():
                waiter.set_result(None)

    def serving(self) -> Process | None:
        """The process that clients reach; of two, the younger."""
        found: Process | None = None
        for host in self.hosts:
            if host.serves and host.process is not None and (found is None or host.process.number > found.number):
                found = host.process
        return found

    # --- faults -----------------------------------------------------------------------------------------------------

    def check(self, schedule: f.Schedule) -> None:
        """See that all of it can happen here. Raises `ValueError`."""
        for happening in schedule:
            if isinstance(happening.fault, f.DiskFault) and not self.store.has_disk:
                name = f.name_of(happening.fault)
                raise ValueError(f"{name} happens to a disk, and the model of a store in memory has none: store='sqlite'")

    async def follow(self, schedule: f.Schedule) -> None:
        """Let the faults of a schedule happen at their times; returns when the last one began."""
        for happening in schedule:
            await asyncio.sleep(max(0.0, happening.at_s - self.loop.time()))
            self.inject(happening.fault)

    def inject(self, fault: f.AnyFault) -> None:
        """Let something go wrong now. What lasts ends by itself. Raises `ValueError`: it cannot happen here."""
        self.check([f.Happening(self.loop.time(), fault)])
        host = self.hosts[fault.node % len(self.hosts)]
        self.injected[f.name_of(fault)] += 1
        self.told(host, f"fault {fault!r}")
        if isinstance(fault, f.DiskFault):
            self.store.suffer(fault, self.loop.call_later)
        elif not (self._hits_process(host, fault) or self._hits_clock(host, fault) or host.weather.suffer(fault, self.loop)):
            host.mischief.plan(fault)

    def _hits_process(self, host: Host, fault: f.AnyFault) -> bool:
        match fault:
            case f.Crash():
                if host.process is not None:
                    host.process.kill()
            case f.CrashAtPoint(point=point, after=after):
                host.armed[point] = after + 1
            case f.CrashAtStep(steps=steps):
                if host.process is not None:
                    host.process.doom(steps)
            case f.Stop():
                if host.process is not None and not host.process.died.done():
                    self.ends.stop(host.process)
            case f.Pause(seconds=seconds):
                self._pause(host, seconds)
            case _:
                return False
        return True

    def _hits_clock(self, host: Host, fault: f.AnyFault) -> bool:
        match fault:
            case f.ClockJump(by_s=by_s):
                host.wall_offset_s += by_s
            case f.ClockDrift(rate=rate):
                host.drift(rate)
            case _:
                return False
        return True

    def _pause(self, host: Host, seconds: float) -> None:
        if host.paused:
            return
        host.paused = True
        self.changed.set()
        self.loop.call_later(seconds, self._wake, host)

    def _wake(self, host: Host) -> None:
        if not host.paused:
            return
        host.paused = False
        self.told(host, "wakes")
        host.release()
        self.changed.set()
        self.serves_now()

    def calm(self) -> None:
        """Everything that is wrong is right again; clocks stay as they are."""
        for host in self.hosts:
            host.weather.clear()
            host.mischief.clear()
            host.armed.clear()
            self._wake(host)
        self.store.calm()
        self.told(None, "calm")

    # --- from outside -----------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a scenario in this world, which keeps one process up meanwhile."""
        if self._keeper is None:
            self._keeper = self.loop.create_task(self.keep_one_up(), name="keeper")
        return self.loop.run_nested(work)

    def close(self) -> None:
        """End the world: every process closes in order, as far as it lives. What is left behind is a violation."""
        self.loop.run_nested(self._end())
        self.violations += self.store.trouble()
        self.store.close()
        self.loop.close()

    async def _end(self) -> None:
        self.calm()
        if self._keeper is not None:
            self._keeper.cancel()
        for host in self.hosts:
            if host.process is not None:
                self.ends.stop(host.process)
        await self.ends.all()


def _hear(heard: asyncio.Future[None], ended: asyncio.Future[Any] | None) -> None:
    """A call has ended, or its process, or the patience of the client."""
    if ended is not None:
        seen(ended)
    if not heard.done():
        heard.set_result(None)
