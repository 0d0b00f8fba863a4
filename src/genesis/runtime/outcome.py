"""What becomes of a delivery joins the open group: done, dead, expired, pending, or put out.

In: a finished attempt, or the news that a delivery cannot run now. Out: rows in the group, counters in the head, and what
the machines must know. Each function is one step without an await.
"""

from __future__ import annotations

import copy
import traceback
from typing import TYPE_CHECKING, Any

from msgspec import ValidationError

from genesis.core.event import LANES, DeadLetter, Delivery, Kind, Outgoing, Pending, Reason, Timer
from genesis.core.message import encode
from genesis.core.ports import STATE_WARN_BYTES, StateRow
from genesis.layers.recovery.failure import Dead, verdict
from genesis.runtime.bound import Bound
from genesis.runtime.context import Context

if TYPE_CHECKING:
    from genesis.runtime.pipeline import Pipeline

SLOW_GAP = 1024
"""Deliveries of a lane that may end behind a running one before it leaves the lane for the pending table."""
TRACE_CHARS = 8000


class Outcomes:
    """The ends and half-ends of deliveries of one partition."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._pauses = pipeline.lanes.pauses
        self._put = pipeline.overlay.put
        self.ended_by_lane = [0] * LANES
        """Deliveries that left each lane since the start."""

    # --- an attempt ended -------------------------------------------------------------------------------------------

    def succeeded(  # noqa: PLR0912 - flat: a call for each of its steps would cost every event
        self, delivery: Delivery, context: Context, bound: Bound, state: Any, row: StateRow, result: Any
    ) -> None:
        """The handler succeeded: its state, if that changed, and all it collected join the group.

        Raises:
            Exception: state or answer cannot be stored, or are not of their type. Nothing has joined; the attempt failed
                after all.
        """
        pipeline = self._pipeline
        group = pipeline.group
        body: bytes | None = None
        if bound.threaded:
            body, result = result
        elif state is not None:
            body = encode(state)
            if body == row[1] or len(body) > STATE_WARN_BYTES:
                body = bound.changed(context, state, row)
            else:  # as in `changed`, without its call
                try:
                    bound.decode(body)
                except ValidationError as error:
                    raise bound.unfit(error) from error
        if bound.answers:
            answer = encode((True, result))
            bound.check_answer(answer)
            group.replies.append((ask_key(delivery.source, delivery.event_id), delivery.type, answer))
        context._closed = True
        if not group.rows:
            pipeline.work.set()
        if body is None:
            group.rows += 1
        else:
            self._put(delivery.address, (bound.version, body))
            group.rows += 2
            group.size += len(body)
        if context._used:
            self._collect(context)
        if delivery.kind or delivery.attempt:
            self._tidy(delivery)
        if self._pauses:
            pipeline.lanes.works(delivery.route)
        if delivery.pending:
            pipeline.head.ledger.done += 1
            self._end(delivery)
        else:
            group.done.append(delivery)  # counted when the group is sealed

    def _tidy(self, delivery: Delivery) -> None:
        """The next tick of a schedule may come; what earlier attempts journalled is not needed any more."""
        pipeline = self._pipeline
        self._tick_ended(delivery.route)
        if delivery.attempt or delivery.origin:
            origin = delivery.origin or f"{delivery.id:x}"
            pipeline.group.journals.append(origin)
            pipeline.group.batch.put("fact", journal_key(origin), b"")  # for the next process, should this one end before
            pipeline.group.rows += 1

    def _tick_ended(self, route: str) -> None:
        pipeline = self._pipeline
        if route in pipeline.ticks:
            pipeline.ticks.remove(route)
            pipeline.group.batch.put("fact", tick_key(route), None)
            pipeline.group.rows += 1

    def _collect(self, context: Context) -> None:
        """What the handler emitted, timed and journalled becomes part of the group."""
        group = self._pipeline.group
        if context._emits is not None:
            self.born(context._emits)
        if context._timers is not None:
            self._change_timers(context._timers)
        if context._messages is not None:
            group.messages += context._messages
        if context._once is not None:
            for key in context._once:
                group.batch.put("once", key, None)

    def failed(self, context: Context, error: BaseException) -> None:
        """The attempt failed: another one later, or a dead letter."""
        pipeline, delivery, route = self._pipeline, context._delivery, context._route
        if pipeline.observe is not None:
            pipeline.observe("failure", (delivery, error))
        attempts = delivery.attempt + 1
        judged = verdict(error, attempts, route.retry, pipeline.rng)
        if isinstance(judged, Dead):
            pipeline.lanes.works(delivery.route)
            if judged.reason == "failed" and route.component.order == "park":
                self.pend(delivery, Reason.PARKED, None, attempts)
            else:
                self.dead(delivery, judged.reason, judged.detail, attempts, error)
            return
        if judged.counted:
            pipeline.lanes.works(delivery.route)
        else:
            pipeline.lanes.pause(delivery.route, pipeline.clock.now() + judged.delay_s)
        due = pipeline.clock.wall() + judged.delay_s
        if judged.counted:
            pipeline.head.ledger.retries += 1
            self.pend(delivery, Reason.RETRY, due, attempts)
        else:
            self.pend(delivery, Reason.UNAVAILABLE, due, delivery.attempt)

    def dead(self, delivery: Delivery, reason: str, detail: str, attempts: int, error: BaseException | None = None) -> None:
        """The delivery ends as a dead letter, kept whole."""
        pipeline = self._pipeline
        route = pipeline.definition.routes.get(delivery.route)
        kept = copy.copy(delivery)
        kept.message = None
        kept.origin = kept.origin or f"{kept.id:x}"
        self._tick_ended(delivery.route)
        letter = DeadLetter(
            delivery=kept,
            reason=reason,
            detail=storable(detail),
            attempts=attempts,
            died_at=pipeline.clock.wall(),
            error=type(error).__name__ if error is not None else "",
            traceback=_trace(error) if error is not None else "",
            app_version=pipeline.definition.version,
            state_version=route.state_version if route is not None else 0,
        )
        group = pipeline.group
        group.batch.put("dead", f"{delivery.id:016x}", encode(letter))
        group.rows += 1
        group.size += len(delivery.payload)
        if route is not None and route.answer is not None:
            answer = encode((False, f"{reason}: {letter.detail}"))
            group.replies.append((ask_key(delivery.source, delivery.event_id), delivery.type, answer))
        pipeline.head.ledger.dead += 1
        self._end(delivery)

    def expired(self, delivery: Delivery) -> None:
        """Its life was over before it began."""
        self._pipeline.head.ledger.expired += 1
        self._end(delivery)

    def expired_unread(self, lane: int, delivery_id: int) -> None:
        """The same for one that was found expired in the store, body unread."""
        pipeline = self._pipeline
        head, group = pipeline.head, pipeline.group
        head.ledger.expired += 1
        head.ledger.in_lanes -= 1
        head.waiting_by_lane[lane] -= 1
        head.ended_by_priority[lane >> 1] += 1
        self.ended_by_lane[lane] += 1
        group.batch.done.append(delivery_id)
        group.ended += 1
        group.rows += 1
        pipeline.work.set()

    def unhandled(self, delivery: Delivery) -> None:
        """Nobody takes it any more: it ends as a dead letter."""
        detail = f"this version of the application has no handler {delivery.route}"
        self.dead(delivery, "unhandled", detail, delivery.attempt)

    def _end(self, delivery: Delivery) -> None:
        pipeline = self._pipeline
        group = pipeline.group
        self._leave(delivery)
        pipeline.head.ended_by_priority[delivery.priority] += 1
        group.ended += 1
        group.late.append(delivery)
        group.rows += 1
        pipeline.work.set()

    def _leave(self, delivery: Delivery) -> None:
        """Its row goes, wherever it waits."""
        head, batch, lane = self._pipeline.head, self._pipeline.group.batch, delivery.lane
        if isinstance(delivery, Outgoing):
            batch.put("out", delivery.key, None)
            head.ledger.in_outbox -= 1
            left = head.outgoing.pop(delivery.component) - 1
            if left:
                head.outgoing[delivery.component] = left
            return
        self.ended_by_lane[lane] += 1
        if delivery.pending:
            batch.unpend.append(delivery.id)
            head.ledger.in_pending -= 1
            self._left_pending(delivery)
        else:
            batch.done.append(delivery.id)
            head.ledger.in_lanes -= 1
            head.waiting_by_lane[lane] -= 1

    def _left_pending(self, delivery: Delivery) -> None:
        pipeline, address = self._pipeline, delivery.address
        if pipeline.pending.remove(address, Reason(delivery.pending), delivery.priority):
            pipeline.lanes.unhold(address)
        elif address:
            self._hold(address)

    def _hold(self, address: str) -> None:
        """The pending work of a key changed: later deliveries wait for what is there now, and the next held one may come up."""
        pipeline = self._pipeline
        rank = pipeline.pending.rank(address)
        if rank is not None:
            pipeline.lanes.hold(address, rank)
        pipeline.group.freed.add(address)

    # --- the outbox -------------------------------------------------------------------------------------------------

    def put_out(self, delivery: Delivery) -> None:
        """It is a sink's: it leaves its lane, or the pending table, for the outbox, under the next number."""
        pipeline = self._pipeline
        head, group, name = pipeline.head, pipeline.group, delivery.component
        self._leave(delivery)
        row = Outgoing.of(delivery, head.next_number)
        body = encode(row)
        head.next_number += 1
        head.ledger.in_outbox += 1
        head.outgoing[name] = head.outgoing.get(name, 0) + 1
        group.batch.put("out", row.key, body)
        group.out.add(name)
        group.rows += 2
        group.size += len(body)
        pipeline.work.set()

    def taken(self, delivery: Outgoing) -> None:
        """Its sink has taken it."""
        if delivery.origin:
            self._tidy(delivery)
        self._pipeline.head.ledger.done += 1
        self._end(delivery)

    # --- new work ---------------------------------------------------------------------------------------------------

    def born(self, deliveries: list[Delivery]) -> None:
        """Deliveries that were made inside: emitted, fired, replayed."""
        if not deliveries:
            return
        group, ledger, count = self._pipeline.group, self._pipeline.head.ledger, len(deliveries)
        group.batch.append += deliveries
        kind = deliveries[0].kind
        if kind == Kind.EMITTED:
            ledger.emitted += count
            group.emitted += count
        elif kind == Kind.TIMER:
            ledger.timer += count
        else:
            ledger.replay += count
        ledger.in_lanes += count
        group.rows += count
        group.size += sum(len(d.payload) for d in deliveries)
        self._pipeline.work.set()

    def _change_timers(self, changes: list[Timer | tuple[str, str]]) -> None:
        timers, group = self._pipeline.timers, self._pipeline.group
        for change in changes:
            if isinstance(change, Timer):
                timers.set(change)
                group.size += len(change.payload)
            else:
                timers.cancel(change)
        group.rows += len(changes)
        self._pipeline.news.set()

    # --- pending ----------------------------------------------------------------------------------------------------

    def pend(self, delivery: Delivery, reason: Reason, due: float | None, attempt: int = 0) -> None:
        """The delivery leaves its lane for the pending table, or changes its row there."""
        pipeline = self._pipeline
        pending, head, address = pipeline.pending, pipeline.head, delivery.address
        kept = copy.copy(delivery)
        kept.message, kept.attempt, kept.pending = None, attempt or delivery.attempt, str(reason)
        row = Pending(kept, reason, due)
        pending.add(row)
        if delivery.pending:
            self._left_pending(delivery)
        else:
            lane = delivery.lane
            head.ledger.in_lanes -= 1
            head.ledger.in_pending += 1
            head.waiting_by_lane[lane] -= 1
            self.ended_by_lane[lane] += 1
        delivery.pending = kept.pending
        if due is not None:
            pending.schedule(row)
        if address:
            self._hold(address)
        group = pipeline.group
        group.batch.pend.append(row)
        group.rows += 1
        group.size += len(delivery.payload)
        pipeline.work.set()
        pipeline.news.set()

    def hold_taken(self) -> None:
        """Move what the lanes set aside to the tail of its key's pending work."""
        held, self._pipeline.lanes.to_hold = self._pipeline.lanes.to_hold, []
        for delivery in held:
            self.pend(delivery, Reason.HELD, None)

    def leave_slow(self) -> None:
        """Move running deliveries out of their lanes when too much ended behind them: the position goes on."""
        for context in list(self._pipeline.running.values()):
            delivery = context._delivery
            if not delivery.pending and self.ended_by_lane[delivery.lane] - context._ended_before > SLOW_GAP:
                self.pend(delivery, Reason.SLOW, None)

    def relieve(self, lane: int) -> None:
        """A window is full of deliveries that cannot run: move them and what blocks them to the pending table."""
        pipeline = self._pipeline
        waiting, stopped, addresses = pipeline.lanes.evict(lane)
        for context in list(pipeline.running.values()):
            delivery = context._delivery
            if delivery.address in addresses and not delivery.pending:
                self.pend(delivery, Reason.SLOW, None)
        for delivery in waiting:
            self.pend(delivery, Reason.HELD, None)
        now, wall = pipeline.clock.now(), pipeline.clock.wall()
        for delivery in stopped:
            self.pend(delivery, Reason.UNAVAILABLE, wall + pipeline.lanes.back_at(delivery.route, now) - now)


def _trace(error: BaseException) -> str:
    return storable("".join(traceback.format_exception(error, limit=-8))[-TRACE_CHARS:])


def storable(text: object) -> str:
    """What somebody's code said, in characters that UTF-8 has."""
    return str(text)[:TRACE_CHARS].encode("utf-8", "backslashreplace").decode()


def ask_key(source: str, event_id: str) -> str:
    """Where the answer to a question is kept."""
    return f"{source}/{event_id}"


JOURNAL = "journal:"


def journal_key(origin: str) -> str:
    """Where it is noted that the journalled calls of a delivery that is done must be removed."""
    return JOURNAL + origin


def tick_key(route_name: str) -> str:
    """Where it is noted that a tick of a schedule has not ended."""
    return f"tick:{route_name}"
