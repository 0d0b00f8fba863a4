"""The life of a node: opens the store, keeps one partition going, and closes in order.

In: a definition, an engine, settings. Out: a pipeline that runs, as long as there is one. When the store fails, the
partition is dropped and loaded anew from what is stored; when another owner took over, the life ends.
"""

from __future__ import annotations

import asyncio
import copy
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

from genesis.core.errors import FencedError, StoreError, StoreFailedError
from genesis.core.event import Delivery
from genesis.core.ports import Clock, Crasher, Engine, Head
from genesis.layers.prevention.admission import Admission, AdmissionSettings
from genesis.layers.prevention.horizon import KEEP_IDS, KEEP_S, Horizon
from genesis.layers.prevention.lanes import WINDOW_BYTES, Lanes
from genesis.layers.recovery.overlay import CACHE_BYTES, Overlay
from genesis.runtime.bound import Bound
from genesis.runtime.clock import LoopClock
from genesis.runtime.definition import Definition
from genesis.runtime.loader import Loader
from genesis.runtime.log import log
from genesis.runtime.operate import Operator
from genesis.runtime.pipeline import Observer, Pipeline
from genesis.runtime.resource import call, giver
from genesis.runtime.restart import restore
from genesis.runtime.sink import Give, SinkRunner, clear_of_gone
from genesis.runtime.slot import CAREFUL, GRACE_S, SLOTS, Slots
from genesis.runtime.source import SourceRunner
from genesis.runtime.status import Housekeeper
from genesis.runtime.supervisor import Supervisor
from genesis.runtime.threads import Threads

DRAIN_S = 10.0
"""Time that running handlers have to end at a stop: below the 30 s after which most supervisors kill."""
REOPENS = 5
"""Tries to open a failed store again, with waits of 0.1, 0.2, ... s: longer trouble needs a person or a supervisor."""
SUSPECT_S = 1.0
"""How long everything else waits for one suspect."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Limits of a node. Times in seconds, sizes in bytes."""

    slots: int = SLOTS
    window_bytes: int = WINDOW_BYTES
    cache_bytes: int = CACHE_BYTES
    threads: int = 8
    """Plain `def` handlers that may run at once."""
    drain_s: float = DRAIN_S
    grace_s: float = GRACE_S
    dedupe_s: float = KEEP_S
    dedupe_ids: int = KEEP_IDS
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)

    def __post_init__(self) -> None:
        for name in ("slots", "window_bytes", "cache_bytes", "threads", "dedupe_ids"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1")
        for name in ("drain_s", "grace_s", "dedupe_s"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 0, and no infinity")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A partition read back from the store."""

    pipeline: Pipeline
    suspects: list[Delivery]
    """What was running when the last owner died."""


class Life:
    """From the first claim to the last commit of one node."""

    def __init__(
        self,
        definition: Definition,
        engine: Engine,
        settings: NodeSettings,
        *,
        rng: Random,
        crash: Crasher | None = None,
        observe: Observer | None = None,
        executor: Executor | None = None,
        clock: Callable[[], Clock] = LoopClock,
        edges: bool = True,
        wrap: Callable[[object], Any] = lambda instance: instance,
    ) -> None:
        self.definition, self._engine, self._settings = definition, engine, settings
        self._rng, self._crash, self._observe, self._make_clock = rng, crash, observe, clock
        self._executor = executor
        self._wrap = wrap
        self._with_edges = edges
        """Whether sources and sinks run."""
        self.pipeline: Pipeline | None = None
        self.slots: Slots | None = None
        self.sources: list[SourceRunner] = []
        self.sinks: list[SinkRunner] = []
        self._instances: dict[str, Any] = {}
        self._gives: dict[str, Give] = {}
        """By sink: its function, with what it asks for."""
        self._head = Head()
        """As the store had it when it was claimed last."""
        self._loaded = False
        """The store was read back before: it is opened again after a failure."""
        self._unclean = False
        """The last owner did not close in order."""
        self.draining = False
        self.error: BaseException | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Open, run while the block runs, drain, close. Resources are the first to be opened and the last to be closed.

        Raises:
            ResourceError: a resource cannot be opened.
            StoreError: the store cannot be opened, or was lost for good while the block ran.
        """
        async with self.definition.resources.open() as held:
            components = self.definition.components.values()
            self._instances = {c.name: self._wrap(call(c.cls, c.needs, held)) for c in components}
            self._gives = {name: giver(sink.function, sink.needs, held) for name, sink in self.definition.sinks.items()}
            async with self._running():
                yield

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        threads = Threads(self._settings.threads, self._executor)
        loop = asyncio.get_running_loop()
        body = asyncio.current_task()
        assert body is not None
        opened: asyncio.Future[None] = loop.create_future()
        stop = asyncio.Event()
        life = loop.create_task(self._live(opened, stop, threads, body), name=f"genesis-{self.definition.name}")
        try:
            await opened
            yield
        except asyncio.CancelledError:
            if self.error is None:
                raise
            body.uncancel()
        finally:
            stop.set()
            await asyncio.shield(life)
            threads.close()
        if self.error is not None:
            raise self.error

    async def _live(self, opened: asyncio.Future[None], stop: asyncio.Event, threads: Threads, body: asyncio.Task[Any]) -> None:
        """Load the partition and serve it, again after each failure of the store, until the stop."""
        failures = 0
        while True:
            try:
                loaded = await self._load()
            except Exception as error:
                failures += 1
                if not opened.done():
                    opened.set_exception(error)
                    return
                if failures >= REOPENS or not isinstance(error, StoreError):
                    await self._leave()
                    self._give_up(StoreFailedError(f"the store could not be opened again: {error}"), stop, body)
                    return
                await asyncio.sleep(0.1 * failures)
                continue
            failure = await self._serve(loaded, opened, stop, threads)
            if failure is None:
                return
            failures = failures + 1 if stop.is_set() else 0
            if not isinstance(failure, StoreError) or isinstance(failure, FencedError) or failures >= REOPENS:
                await self._leave()
                self._give_up(failure, stop, body)
                return
            log.error("the store failed, it is opened again: %s", failure)

    def _give_up(self, error: BaseException, stop: asyncio.Event, body: asyncio.Task[Any]) -> None:
        self.error = error
        if not stop.is_set():
            body.cancel()

    async def _load(self) -> Loaded:
        head = await self._engine.claim(0, f"{os.getpid()}@{socket.gethostname()}")
        self._head = copy.deepcopy(head)
        if self._loaded:  # this process lives: what was running was cancelled, and is not suspected of having killed it
            head.clean, head.running = True, []
        settings = self._settings
        pipeline = Pipeline(
            self.definition,
            self._engine,
            head,
            clock=self._make_clock(),
            rng=self._rng,
            horizon=Horizon(settings.dedupe_s, settings.dedupe_ids, stored=not self._engine.traits.immediate),
            admission=Admission(settings.admission),
            lanes=Lanes(settings.window_bytes),
            overlay=Overlay(settings.cache_bytes),
            crash=self._crash,
            observe=self._observe,
        )
        pipeline.asks.instances = self._instances
        self._unclean |= head.commit_id > 0 and not head.clean
        try:
            suspects = await restore(pipeline)
        except BaseException:
            await self._leave()
            raise
        self._loaded = True
        return Loaded(pipeline, suspects)

    async def _serve(
        self, loaded: Loaded, opened: asyncio.Future[None], stop: asyncio.Event, threads: Threads
    ) -> BaseException | None:
        """Run a loaded partition until the stop (None) or the first failure."""
        pipeline, supervisor = loaded.pipeline, Supervisor()
        slots = self.slots = Slots(
            pipeline,
            {
                name: Bound(route, self._instances[route.component.name], threads)
                for name, route in self.definition.routes.items()
                if route.component.name in self._instances
            },
            spawn=supervisor.spawn,
            count=self._settings.slots,
            grace_s=self._settings.grace_s,
            careful=CAREFUL if self._unclean and not pipeline.engine.traits.immediate else 0,
        )
        if not pipeline.engine.traits.immediate:
            supervisor.spawn(pipeline.run_commits(), "commits")
        definition, edges = self.definition, self._with_edges
        self.sources = [SourceRunner(source, pipeline) for source in definition.sources] if edges else []
        self.sinks = [SinkRunner(s, self._gives[s.name], pipeline) for s in definition.sinks.values()] if edges else []
        starting = supervisor.spawn(self._start(pipeline, slots, loaded.suspects, supervisor, opened), "start")
        stopping = supervisor.spawn(_until(stop), "stop")
        await _first(stopping, supervisor.failure)
        stopping.cancel()
        if supervisor.failure.done():
            slots.stop()
            return await self._broken(pipeline, supervisor, supervisor.failure.result(), opened)
        await _first(starting, supervisor.failure)
        return await self._drain(pipeline, slots, supervisor, opened)

    async def _start(
        self,
        pipeline: Pipeline,
        slots: Slots,
        suspects: list[Delivery],
        supervisor: Supervisor,
        opened: asyncio.Future[None],
    ) -> None:
        for suspect in suspects:
            await slots.run_alone(suspect, SUSPECT_S)
        self.pipeline = pipeline
        supervisor.spawn(Loader(pipeline).run(), "loader")
        supervisor.spawn(Housekeeper(pipeline, slots, self.sources, self.sinks).run(), "housekeeper")
        if pipeline.engine.traits.durable:
            supervisor.spawn(Operator(pipeline).run(), "operator")
        for runner in self.sources:
            supervisor.spawn(runner.run(), f"source-{runner.source.name}")
        for sink in self.sinks:
            supervisor.spawn(sink.run(), f"sink-{sink.sink.name}")
        supervisor.spawn(clear_of_gone(pipeline), "outbox")
        if not opened.done():
            opened.set_result(None)

    async def _broken(
        self, pipeline: Pipeline, supervisor: Supervisor, error: BaseException, opened: asyncio.Future[None]
    ) -> BaseException:
        """Drop the partition: its layers, attempts and tasks."""
        self.pipeline = None
        for sink in self.sinks:
            sink.close()
        stubborn = await supervisor.stop(self._settings.grace_s)
        if stubborn:
            log.error("still running after %s s: %s", self._settings.grace_s, ", ".join(stubborn))
        if self.slots is not None:
            self.slots.give_back()  # what ignored its cancellation has no hands any more: the next pipeline runs it again
        stored = None if isinstance(error, FencedError) else await self._stored()
        pipeline.give_up(error, stored)
        if not opened.done():
            opened.set_exception(error)
        if not isinstance(error, StoreError):
            log.critical("the node stops: %r", error, exc_info=error)
        if not isinstance(error, StoreError) or isinstance(error, FencedError):
            await self._leave()
        return error

    async def _stored(self) -> Head | None:
        """The head as the store has it, as far as that can be told: decides what those who wait are told."""
        try:
            self._head = await self._engine.claim(0, f"{os.getpid()}@{socket.gethostname()}")
        except StoreError:
            return None
        return self._head

    async def _leave(self) -> None:
        """Give the store back. Its head stays as the last commit left it."""
        with suppress(StoreError):
            await self._engine.close(0, self._head)

    async def _drain(
        self, pipeline: Pipeline, slots: Slots, supervisor: Supervisor, opened: asyncio.Future[None]
    ) -> BaseException | None:
        """Stop in order: intake, sources and timers, what runs (up to a limit, then given back), commit, close."""
        pipeline.gate.open, self.draining = False, True
        supervisor.cancel("source-", "loader", "operator", "housekeeper", "outbox")
        slots.stop(answering=True)
        for sink in self.sinks:
            sink.stop()
        limit_s = self._settings.drain_s
        await _first(supervisor.spawn(self._quiet(slots, limit_s), "quiet"), supervisor.failure)
        if pipeline.running:
            log.warning("%d handlers did not end in %s s: given back", len(pipeline.running), limit_s)
        slots.give_back()
        for sink in self.sinks:
            sink.close()
        await supervisor.stop(self._settings.grace_s, but="commits")  # before the last commit: what ends later does not count
        try:
            async with asyncio.timeout(limit_s):
                await _first(supervisor.spawn(pipeline.last_commit(), "last"), supervisor.failure)
        except TimeoutError:
            return await self._broken(
                pipeline, supervisor, StoreFailedError(f"the last commit did not end in {limit_s} s"), opened
            )
        if supervisor.failure.done():
            return await self._broken(pipeline, supervisor, supervisor.failure.result(), opened)
        self.pipeline = None
        await supervisor.stop(self._settings.grace_s)
        pipeline.give_up(StoreFailedError("the node has stopped"), None)
        pipeline.head.clean, pipeline.head.running = True, []
        try:
            await self._engine.close(0, pipeline.head)
        except StoreError as error:
            return error
        return None

    async def _quiet(self, slots: Slots, limit_s: float) -> None:
        """Wait until no handler and no sink runs, `limit_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await slots.quiet(limit_s)
                for sink in self.sinks:
                    await sink.ended.wait()


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
