"""Which delivery runs next: five priorities by quanta, first in first out per key, one at a time per key.

In: deliveries that are durable, and the news that one has ended. Out: the next delivery to run. The lanes are windows:
they hold a bounded number of bytes, the rest waits in the store. What waits for a paused handler or for pending work of
its key is set aside and never stands in the way of another key.

Source: deficit round robin (Shreedhar and Varghese, 1995) with the quanta of the specification, section 5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from genesis.core.event import LANES, PRIORITIES, Delivery
from genesis.layers.prevention.window import Key, Lane, Pause

QUANTA = (10, 10, 8, 5, 3)
"""Slots in any 36 in a row: the specification's 1, 1, 0.8, 0.5, 0.3 of ten. Each is >= 1, so a priority with something to
run waits for at most 33 others (all without its own three)."""
WINDOW_BYTES = 4 << 20
"""Bytes of deliveries a lane holds in memory: some 8,000 small ones, so that a refill is rare against its cost."""
DELIVERY_BYTES = 400
"""What a delivery weighs in memory beside its payload (struct, strings, queue entry), rounded up."""

BACK_MIN_S, BACK_MAX_S = 1.0, 60.0
"""Bounds on the time that an evicted delivery stays away: it costs two rows to move it, and this long to be late."""

_FIRST = tuple((mask & -mask).bit_length() - 1 for mask in range(1 << PRIORITIES))
_ALL = (1 << PRIORITIES) - 1


class Lanes:
    """The ready work of one partition."""

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes
        self.lanes = [Lane() for _ in range(LANES)]
        self.to_hold: list[Delivery] = []
        """Taken out because their key has pending work: the runtime moves them to the pending table and clears this."""
        self._pairs = [(self.lanes[2 * p], self.lanes[2 * p + 1]) for p in range(PRIORITIES)]
        """Of each priority, the lane of begun work and that of external work."""
        self._credits = list(QUANTA)
        self._spent: list[int] = []
        """Priorities of the last slots, oldest first: those that the credits lack."""
        self._ready = 0
        """Bit p: priority p has something in a ready queue."""
        self._credited = _ALL
        self.keys: dict[str, Key | None] = {}
        """Keys that are locked (None: nothing else of them is known) or have more than one delivery in the windows."""
        self._held: dict[str, int] = {}
        self.pauses: dict[str, Pause] = {}

    # --- in ---------------------------------------------------------------------------------------------------------

    def room(self, lane: int) -> bool:
        """Whether the window of a lane takes more."""
        return self.lanes[lane].bytes < self.window_bytes

    def hungry(self) -> bool:
        """Whether the store holds more for a window that is less than half full or has nothing to run."""
        for lane in self.lanes:  # noqa: SIM110 - `any` makes a generator, at each commit
            if lane.loaded < lane.last and (not lane.ready or 2 * lane.bytes < self.window_bytes):
                return True
        return False

    def offer(self, delivery: Delivery) -> None:
        """Put a delivery at the end of its lane's window."""
        lane = self.lanes[2 * delivery.priority + (delivery.kind == 0)]
        lane.ready.append(delivery)
        lane.bytes += len(delivery.payload) + DELIVERY_BYTES
        self._ready |= 1 << delivery.priority

    def hand_off(self, by_lane: Sequence[list[Delivery]]) -> None:
        """Put new deliveries, given by lane, into their windows, directly where a window has seen all before them.

        The others stay in the store, and a decoded message is not kept for them. A window is over its bound by one group
        at most.
        """
        for index, deliveries in enumerate(by_lane):
            if not deliveries:
                continue
            lane = self.lanes[index]
            direct = lane.loaded == lane.last and lane.bytes < self.window_bytes
            lane.last = deliveries[-1].id
            if direct:
                lane.loaded = lane.last
                lane.ready += deliveries
                lane.bytes += sum([len(d.payload) for d in deliveries]) + DELIVERY_BYTES * len(deliveries)
                self._ready |= 1 << (index >> 1)
            else:
                for delivery in deliveries:
                    delivery.message = None

    # --- out --------------------------------------------------------------------------------------------------------

    @property
    def any_ready(self) -> bool:
        """Whether `take` has something to look at."""
        return bool(self._ready)

    def take(self, now: float) -> Delivery | None:
        """The next delivery to run, or None.

        The caller locks its key before anybody else may take, and releases it when the delivery has ended. One that ends
        before anybody else may take needs neither, unless its key is in `keys` or its handler is paused.
        """
        if self.pauses:
            self.wake(now)
        while ready := self._ready:
            mask = ready & self._credited
            if not mask:
                self._renew()
                continue
            priority = _FIRST[mask]
            begun, external = self._pairs[priority]
            while queue := begun.ready or external.ready:
                lane = begun if begun.ready else external
                delivery = queue.popleft()
                if (delivery.address in self.keys or self._held or self.pauses) and not self._admits(delivery, now):
                    continue
                lane.bytes -= len(delivery.payload) + DELIVERY_BYTES
                self._spent.append(priority)
                left = self._credits[priority] = self._credits[priority] - 1
                if not left:
                    self._credited &= ~(1 << priority)
                return delivery
            self._ready &= ~(1 << priority)
        return None

    def _renew(self) -> None:
        """Everything that is ready has spent its slots: give the oldest ones back, or all when nobody competes."""
        credits, spent = self._credits, self._spent
        if not self._ready & (self._ready - 1):
            credits[:] = QUANTA
            self._credited = _ALL
            spent.clear()
            return
        priority = spent[0]
        back = len(list(takewhile(priority.__eq__, spent)))
        del spent[:back]
        credits[priority] += back
        self._credited |= 1 << priority

    def _admits(self, delivery: Delivery, now: float) -> bool:
        """Lock the key for the delivery, or put it where it waits."""
        address = delivery.address
        if address:
            if self._held and not delivery.pending and self._is_held(delivery):
                return False
            if address in self.keys and not self._may_enter(delivery):
                return False
        if self.pauses and not self._passes_pause(delivery, now):
            return False
        self.lock(delivery)
        return True

    def lock(self, delivery: Delivery) -> None:
        """Nothing else of its key is taken until `release`."""
        address = delivery.address
        if not address:
            return
        key = self.keys.setdefault(address, None)
        if key is not None:
            key.running = True
            if key.first.get(delivery.lane) is delivery:
                del key.first[delivery.lane]

    def release(self, delivery: Delivery) -> None:
        """The delivery ended, or went away: its key is free."""
        if self.pauses:
            self._is_no_probe(delivery)
        address = delivery.address
        if not address:
            return
        key = self.keys.pop(address, None)
        if key is not None:
            key.running = False
            self._bring_up(address, key)

    # --- keys -------------------------------------------------------------------------------------------------------

    def _may_enter(self, delivery: Delivery) -> bool:
        """Whether the key is free for it; if not, it is blocked, behind the others of its lane."""
        key, lane = self.keys[delivery.address], delivery.lane
        if key is None:
            key = self.keys[delivery.address] = Key(running=True)
        first = key.first.get(lane)
        if not key.running and not key.stops(lane) and (first is delivery or (first is None and lane not in key.blocked)):
            return True
        blocked = key.blocked.setdefault(lane, deque())
        if first is delivery:
            del key.first[lane]
            blocked.appendleft(delivery)
        else:
            blocked.append(delivery)
        self._is_no_probe(delivery)
        return False

    def _bring_up(self, address: str, key: Key) -> None:
        """Nothing of the key runs: put the first of each lane at the front of its queue."""
        for lane in list(key.blocked):
            if lane not in key.first and not key.stops(lane):
                blocked = key.blocked[lane]
                key.first[lane] = blocked.popleft()
                self._to_front(key.first[lane])
                if not blocked:
                    del key.blocked[lane]
        if key.first:
            self.keys[address] = key
        else:
            self.keys.pop(address, None)

    def _to_front(self, delivery: Delivery) -> None:
        self.lanes[delivery.lane].ready.appendleft(delivery)
        self._ready |= 1 << delivery.priority

    def _forget(self, delivery: Delivery) -> None:
        lane = self.lanes[2 * delivery.priority + (delivery.kind == 0)]
        lane.bytes -= len(delivery.payload) + DELIVERY_BYTES

    # --- pending work of a key --------------------------------------------------------------------------------------

    def hold(self, address: str, priority: int) -> None:
        """The most urgent pending work of the key has this priority: deliveries of the same or a lower one are set aside."""
        self._held[address] = priority

    def unhold(self, address: str) -> None:
        """The key has no pending work any more."""
        self._held.pop(address, None)

    def _is_held(self, delivery: Delivery) -> bool:
        rank = self._held.get(delivery.address)
        if rank is None or delivery.priority < rank:
            return False
        self._is_no_probe(delivery)
        key = self.keys.get(delivery.address)
        if key is None:
            self._set_aside(delivery)
            return True
        if key.first.get(delivery.lane) is delivery:
            del key.first[delivery.lane]
            self._set_aside(delivery)
            self._hold_lane(key, delivery.lane)
        else:
            self._hold_lane(key, delivery.lane)
            self._set_aside(delivery)
        if not key.running:
            self._bring_up(delivery.address, key)
        return True

    def _hold_lane(self, key: Key, lane: int) -> None:
        """Set aside what of a lane waits for its key or its handler: nothing earlier may come to the store later."""
        if key.parked >> lane & 1 and not key.first[lane].pending:
            self._set_aside(self._unpark(key.first[lane]))
        for delivery in key.blocked.pop(lane, None) or ():
            if delivery.pending:
                key.blocked.setdefault(lane, deque()).append(delivery)
            else:
                self._set_aside(delivery)

    def _set_aside(self, delivery: Delivery) -> None:
        self._forget(delivery)
        self.to_hold.append(delivery)

    # --- paused handlers --------------------------------------------------------------------------------------------

    def pause(self, route: str, until: float) -> None:
        """The handler's dependency is down until (monotonic seconds): run one probe at a time, from then on."""
        pause = self.pauses.setdefault(route, Pause(until))
        pause.until = max(until, pause.until)

    def resume(self, route: str) -> None:
        """The handler works again: everything that waited for it is ready, in its order."""
        pause = self.pauses.pop(route, None)
        while pause and pause.waiting:
            self._unpause(pause.waiting.popitem()[1])

    def works(self, route: str) -> None:
        """The handler did its work, or failed for a reason of its own: if it was paused, it is not any more."""
        if route in self.pauses:
            self.resume(route)

    def back_at(self, route: str, now: float) -> float:
        """When an evicted delivery of a paused handler should come back (monotonic seconds).

        As much later as the handler has been down: one that is down for long is not moved to and fro all the time.
        """
        pause = self.pauses[route]
        return max(pause.until, now + min(BACK_MAX_S, max(BACK_MIN_S, now - pause.since)))

    def paused(self) -> dict[str, float]:
        """Paused handlers, and until when (monotonic seconds)."""
        return {route: pause.until for route, pause in self.pauses.items()}

    def _passes_pause(self, delivery: Delivery, now: float) -> bool:
        pause = self.pauses.get(delivery.route)
        if pause is None:
            return True
        brought_up = pause.probe is delivery
        if now >= pause.until and (brought_up or pause.probe is None):
            pause.probe = delivery
            return True
        pause.waiting[delivery.id] = delivery
        if brought_up:  # too soon: the pause became longer meanwhile
            pause.probe = None
            pause.waiting.move_to_end(delivery.id, last=False)
        if delivery.address:
            key = self.keys[delivery.address] = self.keys.get(delivery.address) or Key(running=False)
            key.first[delivery.lane] = delivery
            key.parked |= 1 << delivery.lane
        return False

    def _unpark(self, delivery: Delivery) -> Delivery:
        """It does not wait for its handler any more, and has left its key."""
        del self.pauses[delivery.route].waiting[delivery.id]
        if delivery.address:
            key = self.keys[delivery.address]
            assert key is not None
            del key.first[delivery.lane]
            key.parked &= ~(1 << delivery.lane)
        return delivery

    def _is_no_probe(self, delivery: Delivery) -> None:
        """If the delivery was a probe, or brought up to be one, another may be."""
        pause = self.pauses.get(delivery.route)
        if pause is not None and pause.probe is delivery:
            pause.probe = None

    def wake_at(self) -> float | None:
        """When a paused handler with waiting work may be probed next (monotonic seconds)."""
        times = [pause.until for pause in self.pauses.values() if pause.waiting and pause.probe is None]
        return min(times) if times else None

    def wake(self, now: float) -> None:
        """Let a probe of each paused handler come up whose time has come."""
        for pause in self.pauses.values():
            if pause.waiting and pause.probe is None and now >= pause.until:
                _, pause.probe = pause.waiting.popitem(last=False)
                self._unpause(pause.probe)

    def _unpause(self, delivery: Delivery) -> None:
        """It does not wait for its handler any more; what is behind it comes up when it has run."""
        key = self.keys.get(delivery.address)
        if key is not None:
            key.parked &= ~(1 << delivery.lane)
        self._to_front(delivery)

    # --- a window that nothing can leave ----------------------------------------------------------------------------

    def starved(self, lane: int) -> bool:
        """Whether the window is full, nothing in it is ready, and the store holds more."""
        window = self.lanes[lane]
        return not window.ready and window.behind and window.bytes >= self.window_bytes

    def evict(self, lane: int) -> tuple[list[Delivery], list[Delivery], set[str]]:
        """Take out what blocks a starved window.

        Returns:
            Deliveries that wait for a running one of their key, in order; deliveries that wait for a paused handler, or
            for one of another lane that does; the addresses that the first ones wait for.
        """
        waiting: list[Delivery] = []
        addresses: set[str] = set()
        for address, key in self.keys.items():
            if key is not None and key.running and lane in key.blocked:
                waiting += key.blocked.pop(lane)
                addresses.add(address)
        stopped: list[Delivery] = []
        for pause in self.pauses.values():
            stopped += [d for d in pause.waiting.values() if d.lane == lane or self._blocks(d, lane)]
        for delivery in waiting:
            self._forget(delivery)
        for delivery in stopped:
            self._forget(self._unpark(delivery))
            stopped_key = self.keys.get(delivery.address)
            if stopped_key is not None and not stopped_key.running:
                self._bring_up(delivery.address, stopped_key)
        waiting.sort(key=_by_id)
        return waiting, stopped, addresses

    def _blocks(self, delivery: Delivery, lane: int) -> bool:
        key = self.keys.get(delivery.address)
        return key is not None and lane in key.blocked and key.stops(lane)


def _by_id(delivery: Delivery) -> int:
    return delivery.id
