"""The way of an event, top to bottom, in one partition.

    offer -> seal -> engine.commit -> settle -> lanes -> slot (handler) -> outcome -> seal -> engine.commit -> settle

Everything between two awaits is one step of one thread. Outcomes join the open group; a group is sealed when the writer is
idle; nothing leaves the process before its group is committed. A commit that failed ends this object: all its layers and
attempts are dropped with it, and the node builds a new one from what the store holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from genesis.core.errors import FencedError, NotAcceptedError, StoreFailedError
from genesis.core.event import LANES, PRIORITIES, Delivery, Pending
from genesis.core.ports import Answer, Batch, Clock, Crasher, CrashPoint, Engine, Head
from genesis.core.stats import Histogram
from genesis.layers.prevention.admission import Admission
from genesis.layers.prevention.horizon import Horizon
from genesis.layers.prevention.lanes import Lanes
from genesis.layers.recovery.overlay import ABSENT, Overlay
from genesis.layers.recovery.pending import PendingWork
from genesis.layers.recovery.timers import Timers
from genesis.runtime.ask import Asks
from genesis.runtime.commit import Group, Intake, count_done, number, pack_digests
from genesis.runtime.context import Context
from genesis.runtime.definition import Definition
from genesis.runtime.intake import Gate, Offer
from genesis.runtime.outcome import Outcomes

TURN = 256
"""Events that an engine that never waits takes before the loop gets its turn: they share an offer, and a commit."""
FORGET, FORGET_IDLE = 8, 512
"""Groups of ids forgotten with each commit, and at each look of the housekeeper: more than can be remembered in that time."""
SAMPLES = 32
"""Latencies taken of one group at most: a sample costs 0.4 us, and neighbours of one group have lived alike."""
Observer = Callable[[str, Any], None]
"""Told what happened, by a test or a simulation: ("sealed", messages emitted in a group whose commit begins), ("dead", letter),
("failure", (delivery, error))."""


class Pipeline:
    """One partition of one node: its machines, its open group, and the stages between them."""

    def __init__(
        self,
        definition: Definition,
        engine: Engine,
        head: Head,
        *,
        clock: Clock,
        rng: Random,
        horizon: Horizon,
        admission: Admission,
        lanes: Lanes,
        overlay: Overlay,
        partition: int = 0,
        crash: Crasher | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.definition, self.engine, self.head = definition, engine, head
        self.clock, self.rng, self.partition, self.crash, self.observe = clock, rng, partition, crash, observe
        self.horizon, self.admission, self.lanes, self.overlay = horizon, admission, lanes, overlay
        self.pending = PendingWork({c.name for c in definition.components.values() if c.order == "skip"})
        self.timers = Timers()
        self.gate = Gate(
            definition, clock=clock, horizon=horizon, admission=admission, pending=self.pending, ledger=head.ledger, rng=rng
        )
        self.intake = Intake()
        self.asks = Asks(self)
        self.outcomes = Outcomes(self)
        self.group = Group()
        self.sealed: Group | None = None
        self.running: dict[int, Context] = {}
        """Attempts under way, by delivery id."""
        self.due: list[Pending] = []
        """Pending deliveries whose time has come and that wait for room in a window."""
        self.ticks: set[str] = set()
        """Schedules whose last tick has not ended."""
        self.journals: list[str] = []
        """Origins of deliveries that are done and may have left journalled calls of earlier attempts."""
        self.promotions: set[str] = set()
        """Addresses whose next held delivery must be brought up."""
        self.outgoing = {name: asyncio.Event() for name in definition.sinks}
        """By sink: set when something new for it is stored in the outbox."""
        self.latency = [Histogram() for _ in range(PRIORITIES)]
        """Seconds from birth to commit, by priority."""
        self.acting = asyncio.Lock()
        """Held by whoever looks at a dead letter or a parked delivery and then moves it."""
        self.work = asyncio.Event()
        """Something waits to be committed."""
        self.news = asyncio.Event()
        """Something waits for the loader: a window has room, a time came near, a key needs its next."""
        self.wake_slots: Callable[[], None] = lambda: None
        self._immediate = engine.traits.immediate
        self.shared: Offer | None = Offer() if self._immediate else None
        """On an engine that never waits: what single sends join, so that those of a turn cost one offer."""
        self._flushing = False
        self._space: deque[asyncio.Future[None]] = deque()
        self._given_up: BaseException | None = None

    # --- 1. offered: checked by the gate, on its way into a group ---------------------------------------------------

    def accept(self, offer: Offer) -> asyncio.Future[None] | None:
        """Take a checked offer. Returns what to await before the yes; None when the engine is not durable."""
        if not offer.events and offer.position is None:
            return offer.waiter
        self.close_shared()
        self.intake.waiting.append(offer)
        if self._immediate:
            self.flush_soon()
            return None
        waiter = offer.waiter = asyncio.get_running_loop().create_future()
        in_flight = self.gate.in_flight
        for delivery in offer.deliveries:
            if delivery.mark:
                in_flight[delivery.mark] = offer
        self.work.set()
        return waiter

    def close_shared(self) -> None:
        """What single sends share waits for its group; the next send begins anew."""
        if self.shared is not None and self.shared.events:
            self.intake.waiting.append(self.shared)
            self.shared = Offer()

    # --- 2. sealed: ids are given, the batch is whole ---------------------------------------------------------------

    def seal(self) -> tuple[Group, Batch]:
        """Close the open group. The head that goes with it counts everything in it."""
        group, head = self.group, self.head
        self.intake.fold(group, head)
        self.group, self.sealed = Group(), group
        batch = group.batch
        count_done(group, head, self.outcomes.ended_by_lane)
        head.commit_id += 1
        head.clean = False
        head.running = list(self.running)
        digests: list[bytes] = []
        if batch.append:
            group.by_lane, digests = number(batch, head, self.partition * LANES)
        batch.state = self.overlay.seal()
        batch.timers = self.timers.seal()
        if digests:
            self._remember(batch, digests)
        if group.replies:
            self.asks.keep(batch, group.replies)
        if self.observe is not None:
            self.observe("sealed", group.messages)
        return group, batch

    def _remember(self, batch: Batch, marks: list[bytes]) -> None:
        key, at = f"{self.head.commit_id:016x}", self.clock.wall()
        self.horizon.seal(key, at, marks)
        if not self._immediate:  # what does not outlive the process is not read back
            batch.put("dedupe", key, pack_digests(at, marks))
        self._forget_ids(batch, at, FORGET)

    def forget_ids(self) -> None:
        """Without new events, too, an id is not remembered for longer than the horizon."""
        group = self.group
        count = self._forget_ids(group.batch, self.clock.wall(), FORGET_IDLE)
        if count:
            group.rows += count
            self.work.set()

    def _forget_ids(self, batch: Batch, at: float, limit: int) -> int:
        """Forget up to `limit` groups of ids that fell out of the horizon; returns how many rows of the store go with them."""
        forgotten = self.horizon.forget(at, limit)
        if self._immediate:
            return 0
        for gone in forgotten:
            batch.put("dedupe", gone, None)
        return len(forgotten)

    # --- 3. committed -----------------------------------------------------------------------------------------------

    async def run_commits(self) -> None:
        """Commit group after group, each as soon as the last one is answered, for ever.

        Raises:
            FencedError: another owner took over.
            StoreFailedError: the engine cannot tell whether it committed.
        """
        while True:
            await self.work.wait()
            self.work.clear()
            while self.intake.waiting or not self.group.empty:
                await self.commit()

    async def commit(self) -> None:
        """One commit, from the open group to the lanes. Raises as `run_commits`."""
        group, batch = self.seal()
        if self.crash is not None:
            self.crash(CrashPoint.APPEND)
        answer = await self.engine.commit(self.partition, self.head, batch)
        if answer is Answer.FENCED:
            raise FencedError("another process took over this store: this one stops")
        if answer is Answer.UNKNOWN:
            raise StoreFailedError("the store does not know whether it committed")
        if batch.append and not self._immediate:
            await self.prefetch(batch.append)
        self.settle(group, batch)

    def flush_soon(self) -> None:
        """On an engine whose commit never waits: commit in the next turn of the loop, with what comes in this one."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """On an engine whose commit never waits: commit now."""
        self._flushing = False
        self.close_shared()
        while self.intake.waiting or not self.group.empty:
            try:
                self.commit().send(None)
            except StopIteration:
                continue
            raise AssertionError("an immediate engine waited")

    # --- 4. settled: everybody is told, new deliveries go to the lanes ----------------------------------------------

    def settle(self, group: Group, batch: Batch) -> None:
        """The group is durable."""
        self.sealed = None
        self.overlay.settle()
        self.timers.settle()
        if group.ended:
            self.admission.tell_done(group.ended, group.emitted, self.clock.now())
            self._measure(group.done + group.late if group.late else group.done)
        if self.crash is not None:
            self.crash(CrashPoint.ANSWER)
        self._answer(group)
        if self.crash is not None:
            self.crash(CrashPoint.HANDOFF)
        if group.by_lane:
            self.lanes.hand_off(group.by_lane)
            self.wake_slots()
        for address in group.freed:
            if self.pending.next_held(address) is not None:
                self.promotions.add(address)
        for name in group.out:
            self.outgoing[name].set()
        self.journals += group.journals
        if self.promotions or self.journals or self.due or batch.timers or self.lanes.hungry():
            self.news.set()
        while self._space and not self.group.full:
            _resolve(self._space.popleft())

    def _measure(self, lived: list[Delivery]) -> None:
        """Take the latency of up to `SAMPLES` of the deliveries that ended with a group."""
        wall, step = self.clock.wall(), 1 + len(lived) // SAMPLES
        for delivery in lived[::step]:
            self.latency[delivery.priority].add(wall - delivery.born_at, step)

    def _answer(self, group: Group) -> None:
        if not self._immediate:
            for offer in group.offers:
                self._answer_offer(offer, None)
        for barrier in group.barriers:
            _resolve(barrier)
        for key, type, body in group.replies:
            self.asks.answer(key, type, body)
        if self.observe is not None:
            for letter in group.batch.tables.get("dead", {}).values():
                if letter is not None:
                    self.observe("dead", letter)

    def _answer_offer(self, offer: Offer, error: Exception | None) -> None:
        if offer.waiter is None:
            return
        for delivery in offer.deliveries:
            if delivery.mark:
                self.gate.in_flight.pop(delivery.mark, None)
        _resolve(offer.waiter, error)
        if offer.echo is not None:
            _resolve(offer.echo, error)

    # --- 5. run: what a slot needs ----------------------------------------------------------------------------------

    async def prefetch(self, deliveries: list[Delivery]) -> None:
        """Read the states that these deliveries will need and that are not in memory, in one go."""
        newest = self.overlay.get
        missing = {d.address: None for d in deliveries if d.address and newest(d.address) is None}
        if missing:
            await self.load_states(list(missing))

    async def load_states(self, addresses: list[str]) -> None:
        """Read committed states into the cache."""
        rows = await self.engine.load_state(self.partition, addresses)
        for address in addresses:
            self.overlay.cache(address, rows.get(address, ABSENT))

    async def room(self) -> None:
        """Wait while the open group is full: handlers do not run ahead of the writer."""
        while self.group.full:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._space.append(waiter)
            await waiter

    async def barrier(self) -> None:
        """Wait until everything that joined so far, and the list of what is running, is durable.

        Raises:
            StoreFailedError: it never will be: this pipeline was given up.
        """
        if self._given_up is not None:  # whoever held on to it while the store was opened anew, or closed
            raise StoreFailedError(str(self._given_up))
        if self._immediate:
            self.flush()
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.group.barriers.append(waiter)
        self.work.set()
        await waiter

    async def last_commit(self) -> None:
        """Wait until nothing is on its way to the store any more."""
        await self.barrier()
        while self.sealed is not None:
            await self.barrier()

    async def journalled(self, key: str) -> bytes | None:
        """The committed result of a call to the outside, if it was made before.

        Raises:
            StoreFailedError: it was, and will not be stored.
        """
        for group in (self.group, self.sealed):
            body = group.batch.tables.get("once", {}).get(key) if group is not None else None
            if body is not None:  # an attempt that was given up while its commit was late
                await self.barrier()
                return body
        return (await self.engine.load(self.partition, "once", [key])).get(key)

    async def journal(self, key: str, body: bytes) -> None:
        """Commit the result of a call to the outside."""
        self.group.batch.put("once", key, body)
        self.group.rows += 1
        self.group.size += len(body)
        await self.barrier()

    # --- given up ---------------------------------------------------------------------------------------------------

    def give_up(self, error: BaseException, stored: Head | None) -> None:
        """The partition is dropped; `stored` is what the store holds now. Tells everybody who waits what became of it.

        The commit under way is stored if the last one there is ours and not an earlier one. If another owner has committed
        since, nobody can tell, and who sends again with the same id finds out.
        """
        self._given_up = error
        refusal = NotAcceptedError(f"not stored ({error}): send it again with the same id")
        ours = stored is not None and stored.last_epoch == self.head.epoch
        sealed_is_stored = stored is not None and ours and stored.commit_id >= self.head.commit_id
        if self.sealed is not None:
            for offer in self.sealed.offers:
                self._answer_offer(offer, None if sealed_is_stored else refusal)
            for barrier in self.sealed.barriers:
                _resolve(barrier, None if sealed_is_stored else StoreFailedError(str(error)))
        for offer in (*self.group.offers, *self.intake.waiting):
            self._answer_offer(offer, refusal)
        for barrier in self.group.barriers:
            _resolve(barrier, StoreFailedError(str(error)))
        for waiter in self._space:
            _resolve(waiter, StoreFailedError(str(error)))
        self.asks.give_up(error)


def _resolve(waiter: asyncio.Future[None], error: Exception | None = None) -> None:
    """Answer a future that its owner may have abandoned."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
        waiter.exception()  # retrieved: one that nobody awaits any more is not worth a warning
