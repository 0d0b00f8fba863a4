"""Brings work from the store into memory: refills windows, loads due times, brings up the next of a held key, fires timers.

In: the machines' wishes (`hungry`, `wants_load`, promotions) and the time. Out: deliveries in the lanes. One task a
partition; every pass does all there is to do, then sleeps until the next time or the next news.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from genesis.core.event import Delivery, Kind, Pending, Reason, Timer, lane_start
from genesis.core.message import encode
from genesis.core.ports import GROUP_ROWS
from genesis.layers.recovery import pending as pending_layer
from genesis.layers.recovery import timers as timers_layer
from genesis.runtime.outcome import journal_key, tick_key
from genesis.runtime.pipeline import Pipeline

READ_ROWS = 256
"""Rows read in one step: about half a millisecond of the loop."""
LOAD_ROWS = 512
NAP_MAX_S = 15.0
"""Longest sleep: well inside the span of the wheels."""


class Loader:
    """The reader of one partition."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def run(self) -> None:
        """Load for ever."""
        pipeline = self._pipeline
        while True:
            pipeline.news.clear()
            await self.load()
            nap_s = self._nap_s()
            if not nap_s and pipeline.group.full:  # what is due has no room before the next commit: no nap, but no busy wait
                await pipeline.room()
                continue
            alarm = asyncio.get_running_loop().call_later(nap_s, pipeline.news.set)
            await pipeline.news.wait()
            alarm.cancel()

    async def load(self) -> None:
        """One pass."""
        pipeline = self._pipeline
        pipeline.lanes.wake(pipeline.clock.now())
        await self._pending()
        await self._timers()
        await self._promote()
        await self._forget_journals()
        for index, lane in enumerate(pipeline.lanes.lanes):
            if lane.behind:
                await self._refill(index)
        pipeline.outcomes.leave_slow()
        pipeline.wake_slots()

    def _nap_s(self) -> float:
        pipeline = self._pipeline
        wall, now = pipeline.clock.wall(), pipeline.clock.now()
        naps = [NAP_MAX_S]
        for wheel in (pipeline.pending, pipeline.timers):
            at = wheel.wake_at()
            if at is not None:
                naps.append(at - wall)
        probe = pipeline.lanes.wake_at()
        if probe is not None:
            naps.append(probe - now)
        return max(0.0, min(naps))

    # --- lanes ------------------------------------------------------------------------------------------------------

    async def _refill(self, index: int) -> None:
        pipeline = self._pipeline
        lane = pipeline.lanes.lanes[index]
        if pipeline.lanes.starved(index):
            pipeline.outcomes.relieve(index)
        if lane.ready and 2 * lane.bytes >= pipeline.lanes.window_bytes:
            return
        while lane.behind and pipeline.lanes.room(index) and not pipeline.group.full:
            after, last = max(lane.loaded, lane_start(pipeline.partition, index)), lane.last
            rows = await pipeline.engine.read(pipeline.partition, index, after, READ_ROWS, pipeline.clock.wall())
            if not rows:
                lane.loaded = last  # not what came meanwhile
                return
            await pipeline.prefetch([row for row in rows if not isinstance(row, int)])
            for row in rows:  # the window moves on with what comes into it: nothing newer is handed over before
                if isinstance(row, int):
                    pipeline.outcomes.expired_unread(index, row)
                    lane.loaded = row
                else:
                    row.attempt, row.pending = 0, ""
                    pipeline.lanes.offer(row)
                    lane.loaded = row.id
            pipeline.wake_slots()
            if pipeline.engine.traits.immediate:
                pipeline.flush()
            await asyncio.sleep(0)

    # --- pending work -----------------------------------------------------------------------------------------------

    async def _pending(self) -> None:
        """Bring up what is due, as far as the windows have room: what waits for a handler that is down stays in the store."""
        pipeline = self._pipeline
        while True:
            wall = pipeline.clock.wall()
            if not pipeline.due:
                await self._load_due(wall)
            woken = pipeline.pending.wake(wall)
            if not woken and not pipeline.due:
                return
            await pipeline.prefetch([row.delivery for row in woken])
            waiting, pipeline.due = pipeline.due + woken, []
            for row in waiting:
                if pipeline.lanes.room(row.delivery.lane):
                    pipeline.lanes.offer(_awake(row))
                else:
                    pipeline.due.append(row)
            if pipeline.due:
                self._free_windows()
                return
            pipeline.wake_slots()
            await asyncio.sleep(0)

    def _free_windows(self) -> None:
        """Windows that are full of what cannot run give room to what is due."""
        pipeline = self._pipeline
        for lane in {row.delivery.lane for row in pipeline.due}:
            if not pipeline.lanes.lanes[lane].ready:
                pipeline.outcomes.relieve(lane)

    async def _load_due(self, wall: float) -> None:
        """Read due times of the next minute; rows that are changing are taken as they will be."""
        pipeline, pending = self._pipeline, self._pipeline.pending
        if not pending.wants_load(wall):
            return
        upto, before = wall + pending_layer.WHEEL_S, pending.loaded_to
        rows = await pipeline.engine.due_pending(pipeline.partition, upto, before, LOAD_ROWS)
        changed = self._changed_pending()
        last = rows[-1] if len(rows) == LOAD_ROWS else None
        pending.load([row for row in rows if row.delivery.id not in changed], last, upto)
        for row in changed.values():  # what is due up to `before` was scheduled when it joined its group
            if row is not None and row.due is not None and (row.due, row.delivery.id) > before:
                pending.schedule(row)

    def _is_overtaken(self, row: Pending) -> bool:
        """Whether a held row changes, or one that comes before it is on its way to the store: that commit looks again."""
        changed, delivery = self._changed_pending(), row.delivery
        return delivery.id in changed or any(
            other is not None
            and other.reason is Reason.HELD
            and other.delivery.address == delivery.address
            and other.delivery.id < delivery.id
            for other in changed.values()
        )

    def _changed_pending(self) -> dict[int, Pending | None]:
        """Rows of the pending table that are not in the store as they will be: by id, the newest; None when it ended."""
        changed: dict[int, Pending | None] = {}
        for group in (self._pipeline.sealed, self._pipeline.group):
            if group is not None:
                changed.update((row.delivery.id, row) for row in group.batch.pend)
                changed.update((delivery_id, None) for delivery_id in group.batch.unpend)
        return changed

    async def _promote(self) -> None:
        """Bring up the next held delivery of each key that has nothing else pending."""
        pipeline = self._pipeline
        wanted, pipeline.promotions = pipeline.promotions, set()
        for address in sorted(wanted):
            row = await pipeline.engine.behind(pipeline.partition, address)
            if row is None or self._is_overtaken(row):
                continue
            priority = row.delivery.priority
            if pipeline.pending.next_held(address) != priority:
                continue
            pipeline.pending.brought_up(address, priority)
            delivery = _awake(row)
            delivery.pending = str(Reason.SLOW)
            await pipeline.prefetch([delivery])
            pipeline.lanes.offer(delivery)

    async def _forget_journals(self) -> None:
        """Remove the journalled calls of deliveries that were done in a later attempt than the one that made them."""
        pipeline = self._pipeline
        while pipeline.journals:
            origin = pipeline.journals.pop()
            begin = f"{origin}/"
            rows = await pipeline.engine.scan(pipeline.partition, "once", begin, LOAD_ROWS)
            for key, _ in rows:
                if key.startswith(begin):
                    pipeline.group.batch.put("once", key, None)
                    pipeline.group.rows += 1
            pipeline.group.batch.put("fact", journal_key(origin), None)
            pipeline.group.rows += 1
            pipeline.work.set()

    # --- timers -----------------------------------------------------------------------------------------------------

    async def _timers(self) -> None:
        pipeline = self._pipeline
        timers, wall = pipeline.timers, pipeline.clock.wall()
        while timers.wants_load(wall):
            upto = wall + timers_layer.WHEEL_S
            rows = await pipeline.engine.due_timers(pipeline.partition, upto, LOAD_ROWS)
            before = timers.loaded_to
            timers.load(rows, upto, LOAD_ROWS)
            if len(rows) < LOAD_ROWS or timers.loaded_to <= before:
                break
        while pipeline.group.rows < GROUP_ROWS:  # what is due and finds no room makes the next nap zero
            timer = timers.wake_one(wall)
            if timer is None:
                return
            self._fire(timer, wall)

    def _fire(self, timer: Timer, wall: float) -> None:
        """A timer's message is born in the same group that removes the timer, or moves its schedule on."""
        pipeline = self._pipeline
        given: dict[str, Any] = {
            "event_id": timer.event_id if timer.every_s is None else f"{timer.event_id}@{timer.due:.3f}",
            "source": pipeline.gate.source,
            "born_at": wall,
            "kind": Kind.TIMER,
            "priority": timer.priority,
            "headers": timer.headers,
        }
        if timer.every_s is None:
            pipeline.outcomes.born(pipeline.gate.of_payload(timer.type, timer.payload, **given))
        else:
            route = pipeline.definition.routes.get(timer.type)
            if route is None:  # the schedule is gone from the code: it is armed anew if it comes back
                pipeline.group.batch.put("fact", f"every:{timer.type}", None)
                pipeline.group.rows += 1
                return
            if timer.type not in pipeline.ticks:  # else this one collapses into the one that still waits or runs
                pipeline.ticks.add(timer.type)
                pipeline.group.batch.put("fact", tick_key(timer.type), b"")
                pipeline.outcomes.born(
                    [Delivery(route=route.name, address=route.component.address(), payload=timer.payload, **given)]
                )
            missed = (wall - timer.due) // timer.every_s
            following = copy.copy(timer)
            following.due = timer.due + (missed + 1) * timer.every_s
            pipeline.timers.set(following)
        pipeline.group.rows += 1
        pipeline.work.set()
        if pipeline.engine.traits.immediate:
            pipeline.flush()


def schedule_timer(route_name: str, method: str, address: str, every_s: float, wall: float, payload: bytes) -> Timer:
    """The durable timer of an `@every` method."""
    return Timer(
        address=address,
        name=f"every:{method}",
        due=wall + every_s,
        type=route_name,
        payload=payload,
        priority=2,
        event_id=route_name,
        every_s=every_s,
    )


def tick_payload() -> bytes:
    """The payload of a tick: nothing."""
    return encode({})


def _awake(row: Pending) -> Delivery:
    """The delivery of a pending row, as it goes to the lanes."""
    delivery = copy.copy(row.delivery)
    delivery.pending = str(row.reason)
    return delivery
