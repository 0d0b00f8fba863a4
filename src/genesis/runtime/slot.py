"""Slots: long-lived tasks that take deliveries from the lanes and run handlers.

In: what the lanes give. Out: outcomes. A handler lives in one task from its first step to its last; one that does not
suspend costs no task, no switch and no timer. At most one slot pulls at a time: when its handler suspends, it hands the
turn to an idle one. The number of slots is the concurrency.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from genesis.core.errors import GenesisError, HandlerTimeoutError, StoreChangedError, StoreNewerError, UnavailableError
from genesis.core.event import Delivery, lane_start
from genesis.core.ports import BATCH_BYTES, GROUP_ROWS, StateRow
from genesis.layers.recovery.overlay import ABSENT
from genesis.runtime.bound import Bound, UndecodableError
from genesis.runtime.context import Context
from genesis.runtime.log import fields_of, log, marked
from genesis.runtime.pipeline import Pipeline
from genesis.runtime.scope import HANDLER, SCOPE
from genesis.runtime.step import ENDED, resumed, stepped

SLOTS = 64
"""Handlers that may wait at once. Each is a task of about 2 KiB."""
CLOCK_MASK = 15
"""The clock is read at each 16th delivery: some 0.1 ms of handlers that do not wait."""
SLICE_S = 0.002
"""Longest run of a slot before others get their turn on the loop."""
GRACE_S = 1.0
"""Time that a timed-out handler has to obey its cancellation."""
CAREFUL = 2048
"""Deliveries after an unclean end that are recorded as running before they run, of those that it left: more than can have been
under way (a group and all slots), so that whatever killed the process is found."""
BUSY_RETRY_S = 30.0
"""Wait before a state that this code cannot read is tried again."""


class _SlotOver(Exception):  # noqa: N818 - a way out, not an error
    """The slot was replaced while its handler would not end."""


class Slots:
    """The slots of one partition."""

    def __init__(
        self,
        pipeline: Pipeline,
        bound: dict[str, Bound],
        *,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        count: int = SLOTS,
        grace_s: float = GRACE_S,
        careful: int = 0,
    ) -> None:
        self._pipeline = pipeline
        self._bound = bound
        self._succeed = pipeline.outcomes.succeeded
        self._newest = pipeline.overlay.get
        self._running, self._release = pipeline.running, pipeline.lanes.release
        self._keys, self._pauses = pipeline.lanes.keys, pipeline.lanes.pauses
        self._spawn = spawn
        self._count = count
        self._bare = contextvars.copy_context()
        self._bare.run(SCOPE.set, HANDLER)
        self._renew()
        self._grace_s = grace_s
        self._careful = careful
        self._first_new = [lane_start(pipeline.partition, n) + s for n, s in enumerate(pipeline.head.next_sequence)]
        """By lane, the first id of what was not there when the last process ended."""
        self._idle: list[asyncio.Future[None]] = []
        self._pulling = 0
        """Slots that are taking, or about to take, from the lanes."""
        self._alive = 0
        self.stuck = 0
        """Handlers that ignored their cancellation, were given up, and still go on."""
        self.open = True
        self._answering = False
        self._ended = asyncio.Event()
        """Set whenever an attempt ends."""
        pipeline.wake_slots = self.wake
        pipeline.asks.changed = self.wake

    # --- the turn ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is work: let one slot pull, unless one does already."""
        if self._pulling or not self._takes() or not self._pipeline.lanes.any_ready:
            return
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():  # else its slot was cancelled
                self._pulling += 1
                waiter.set_result(None)
                return
        if self._alive < self._count + self._pipeline.asks.in_handlers + self.stuck:
            self._pulling += 1
            self._alive += 1
            self._spawn(self._slot(), f"slot-{self._alive}")

    def _takes(self) -> bool:
        """Whether work is begun: after `stop`, only while a running handler waits for an answer."""
        return self.open or (self._answering and self._pipeline.asks.in_handlers > 0)

    def stop(self, *, answering: bool = False) -> None:
        """Take no more from the lanes; what runs goes on, and `answering`, what it asks is answered."""
        self.open, self._answering = False, answering
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    async def quiet(self, limit_s: float) -> None:
        """After `stop`: wait until nothing runs, `limit_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._pipeline.running:
                    self._ended.clear()
                    await self._ended.wait()

    def give_back(self) -> None:
        """Close the hands of what still runs, whatever it does: its deliveries stay where they are in the store."""
        for context in self._pipeline.running.values():
            context._closed = context._abandoned = True
        self.stuck += len(self._pipeline.running)
        self._pipeline.running.clear()

    async def run_alone(self, delivery: Delivery, patience_s: float) -> None:
        """Run one delivery, recorded as running first, and wait for it, `patience_s` at most."""
        pipeline = self._pipeline
        self._careful += 1
        pipeline.lanes.offer(delivery)
        self.wake()
        try:
            async with asyncio.timeout(patience_s):
                while pipeline.lanes.any_ready or delivery.id in pipeline.running:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning("%s was running when the process died and still runs: others begin", delivery.route)

    async def _slot(self) -> None:
        pipeline = self._pipeline
        lanes, now, immediate = pipeline.lanes, pipeline.clock.now, pipeline.engine.traits.immediate
        moment, turns = now(), 0
        until = moment + SLICE_S
        try:
            while self.open or self._takes():
                turns += 1
                if not turns & CLOCK_MASK:
                    moment = now()
                    if moment > until:
                        until = await self._yield(immediate)
                group = pipeline.group
                if group.rows >= GROUP_ROWS or group.size >= BATCH_BYTES:
                    await self._make_room(immediate)
                delivery = lanes.take(moment)
                if lanes.to_hold:
                    pipeline.outcomes.hold_taken()
                if delivery is None:
                    if not await self._rest(immediate):
                        return
                    moment = now()
                    until = moment + SLICE_S
                    continue
                waits = self._run(delivery)
                if waits is not None:
                    await waits
                    if self._is_surplus():
                        break
        except _SlotOver:
            self.stuck -= 1
        self._pulling -= 1
        self._alive -= 1
        self.wake()

    def _is_surplus(self) -> bool:
        """Whether there are more slots than handlers may wait: one was added while a handler waited for an answer."""
        return self._alive > self._count + self._pipeline.asks.in_handlers + self.stuck

    def _renew(self) -> None:
        """Before others get their turn, or a mark is kept: what an attempt left behind is not taken for a later one."""
        self._mark, self._variables = marked(self._bare)

    async def _yield(self, immediate: bool) -> float:
        """Give others their turn on the loop. Returns when the next one is due."""
        self._renew()
        if immediate:
            self._pipeline.flush()
        await asyncio.sleep(0)
        return self._pipeline.clock.now() + SLICE_S

    async def _make_room(self, immediate: bool) -> None:
        """The open group is full: handlers do not run ahead of the writer."""
        if immediate:
            self._pipeline.flush()
        else:
            await self._aside(self._pipeline.room())

    async def _rest(self, immediate: bool) -> bool:
        """Wait for work. Returns whether this slot goes on."""
        pipeline = self._pipeline
        if immediate and not pipeline.group.empty:
            pipeline.flush_soon()
        if pipeline.lanes.hungry():
            pipeline.news.set()
        self._pulling -= 1
        if not self.open or self._is_surplus():
            self._alive -= 1
            return False
        self._renew()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await waiter
        if not self.open:
            self._alive -= 1
            return False
        return True

    async def _aside(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something without keeping the turn."""
        self._renew()
        self._pulling -= 1
        self.wake()
        try:
            await waiting
        finally:
            self._pulling += 1

    # --- one delivery -----------------------------------------------------------------------------------------------

    def _run(self, delivery: Delivery) -> Coroutine[Any, Any, None] | None:
        """From the lane to its outcome. Returns what is left to await, if the delivery has to wait for anything."""
        bound = self._bound.get(delivery.route)
        if bound is None or (delivery.expires_at is not None and delivery.expires_at <= self._pipeline.clock.wall()):
            self._ends_unrun(delivery, bound)
            return None
        row = self._newest(delivery.address) if bound.stateful else ABSENT
        careful = self._careful > 0 and delivery.id < self._first_new[delivery.lane]
        if row is None or careful:
            return self._prepared(delivery, bound, careful)
        return self._attempt(delivery, Context(self._pipeline, bound.route, delivery), bound, row)

    async def _prepared(self, delivery: Delivery, bound: Bound, careful: bool) -> None:
        """Run it after, following an unclean end, it was stored that it runs, and after its state was read."""
        pipeline = self._pipeline
        pipeline.lanes.lock(delivery)
        context = Context(pipeline, bound.route, delivery)
        if careful:
            self._careful -= 1
            pipeline.running[delivery.id] = context
            await self._aside(pipeline.barrier())
            if context._abandoned:
                raise _SlotOver
        row = self._newest(delivery.address) if bound.stateful else ABSENT
        while row is None:  # again, should the cache forget it before its turn
            await self._aside(pipeline.load_states([delivery.address]))
            row = self._newest(delivery.address)
        waits = self._attempt(delivery, context, bound, row)
        if waits is not None:
            await waits

    def _attempt(self, delivery: Delivery, context: Context, bound: Bound, row: StateRow) -> Coroutine[Any, Any, None] | None:
        """Step the handler. One that does not suspend ends here; of another, the rest is returned."""
        try:
            message = delivery.message
            if message is None:
                message = bound.message(delivery)
            state = bound.decode(row[1]) if row[0] == bound.current else bound.older(row)
            handler = bound.call(message, state, context)
            self._mark.attempt = context
            variables, result = self._variables.copy(), None  # what a handler sets is not seen by the next one
            if bound.returns:
                waiting_for, result = variables.run(stepped, handler)
            else:
                waiting_for = variables.run(next, handler.__await__(), ENDED)
            if waiting_for is not ENDED:
                return self._suspended(context, bound, resumed(handler, waiting_for, variables), state, row)
            self._succeed(delivery, context, bound, state, row, result)
        except BaseException as error:
            self._failed(context, error)
        if self._running:
            self._over(delivery)
        if delivery.address in self._keys or self._pauses:
            self._release(delivery)
        return None

    def _over(self, delivery: Delivery) -> None:
        self._pipeline.running.pop(delivery.id, None)
        self._ended.set()

    def _ends_unrun(self, delivery: Delivery, bound: Bound | None) -> None:
        """It is a sink's, nobody handles it any more, or its life is over."""
        outcomes = self._pipeline.outcomes
        if bound is not None:
            outcomes.expired(delivery)
        elif delivery.route in self._pipeline.definition.routes:
            outcomes.put_out(delivery)
        else:
            outcomes.unhandled(delivery)
        self._pipeline.lanes.release(delivery)

    async def _suspended(
        self,
        context: Context,
        bound: Bound,
        rest: Awaitable[Any],
        state: Any,
        row: StateRow,
    ) -> None:
        """Go on with a handler that waits: from here on it has a timer, and another slot pulls."""
        pipeline, limit_s = self._pipeline, bound.limit_s
        self._mark.kept = True
        self._renew()
        loop = asyncio.get_running_loop()
        task = context._task = asyncio.current_task()
        assert task is not None
        pipeline.lanes.lock(context._delivery)
        context._ended_before = pipeline.outcomes.ended_by_lane[context._delivery.lane]
        pipeline.running[context._delivery.id] = context
        limit = None
        if limit_s is not None:
            ends_at = context._ends_at = loop.time() + limit_s
            limit = loop.call_at(ends_at, self._time_out, context)
        self._pulling -= 1
        self.wake()
        try:
            try:
                result = await rest
            finally:
                self._pulling += 1
                self._resumed(context, limit)
            self._succeed(context._delivery, context, bound, state, row, result)
        except BaseException as error:
            if asyncio.current_task(loop) is not task:
                raise  # nobody runs this slot any more: it is thrown away, as what a simulated kill leaves is
            self._failed(context, error)
        self._over(context._delivery)
        pipeline.lanes.release(context._delivery)
        while self.open and task.cancelling():  # left behind by a TaskGroup whose child failed, before Python 3.13
            task.uncancel()

    def _resumed(self, context: Context, limit: asyncio.TimerHandle | None) -> None:
        """The handler stopped waiting. Raises what overrules its own end."""
        task, context._task = context._task, None
        assert task is not None
        if limit is not None:
            limit.cancel()
        if context._timed_out:
            task.uncancel()
        if context._abandoned:
            raise _SlotOver
        if context._timed_out:
            raise HandlerTimeoutError(f"{context._route.name} took over {context._route.timeout_s} s")

    def _time_out(self, context: Context) -> None:
        context._timed_out = True
        task = context._task
        if task is not None:
            task.cancel()
            asyncio.get_running_loop().call_later(self._grace_s, self._abandon, context)

    def _abandon(self, context: Context) -> None:
        """The handler ignored its cancellation: close its hands, free its key, and let another slot take its place."""
        if context._closed or not self.open:
            return
        pipeline, delivery = self._pipeline, context._delivery
        context._closed = context._abandoned = True
        self.stuck += 1
        name, limit_s = context._route.name, context._route.timeout_s
        log.error("%s ignores its cancellation after %s s: given up", name, limit_s, extra=fields_of(context))
        del pipeline.running[delivery.id]
        pipeline.outcomes.failed(
            context,
            HandlerTimeoutError(f"{name} took over {limit_s} s and ignored its cancellation"),
        )
        pipeline.lanes.release(delivery)
        self.wake()

    def _failed(self, context: Context, error: BaseException) -> None:
        """Judge what ended an attempt. What is meant for the slot itself goes on."""
        context._closed = True
        context._delivery.message = None  # another attempt decodes its own
        task = asyncio.current_task()
        cancelled = isinstance(error, asyncio.CancelledError)
        if isinstance(error, (_SlotOver, KeyboardInterrupt)) or (cancelled and task is not None and task.cancelling()):
            raise error
        if cancelled:
            error = GenesisError(f"{context._route.name} was cancelled from inside")
        delivery, outcomes = context._delivery, self._pipeline.outcomes
        if isinstance(error, UndecodableError):
            outcomes.dead(delivery, "undecodable", str(error), delivery.attempt + 1, error.__cause__)
            return
        if isinstance(error, (StoreChangedError, StoreNewerError)):
            log.error("%s: %s", context._route.name, error, extra=fields_of(context))
            error = UnavailableError(str(error), BUSY_RETRY_S)
        outcomes.failed(context, error)
