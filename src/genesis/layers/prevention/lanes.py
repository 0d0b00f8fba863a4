"""Which delivery runs next: five priorities by quanta, first in first out per key, one at a time per key.

In: deliveries that are durable, and the news that one has ended. Out: the next delivery to run. The lanes are windows:
they hold a bounded number of bytes, the rest waits in the store. What waits for a paused handler or for pending work of
its key is set aside and never stands in the way of another key.

Source: deficit round robin (Shreedhar and Varghese, 1995) with the quanta of the specification, section 5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from genesis.core.event import LANES, PRIORITIES, Delivery

QUANTA = (10, 10, 8, 5, 3)
"""Slots a round: the specification's 1, 1, 0.8, 0.5, 0.3 of ten. Each is >= 1, so a delivery at the front of its lane
waits for at most 33 others (a round without its own three)."""
WINDOW_BYTES = 4 << 20
"""Bytes of deliveries a lane holds in memory: some 8,000 small ones, so that a refill is rare against its cost."""
DELIVERY_BYTES = 400
"""What a delivery weighs in memory beside its payload (struct, strings, queue entry), rounded up."""

_FIRST = tuple((mask & -mask).bit_length() - 1 for mask in range(1 << PRIORITIES))
_ALL = (1 << PRIORITIES) - 1


class Lane:
    """The window on one lane of the store."""

    __slots__ = ("bytes", "count", "last", "loaded", "ready")

    def __init__(self) -> None:
        self.ready: deque[Delivery] = deque()
        self.count = 0
        """Deliveries of it in memory: ready, blocked or running."""
        self.bytes = 0
        self.loaded = 0
        """Id of the last delivery that came into the window."""
        self.last = 0
        """Id of the last delivery in the store."""

    @property
    def behind(self) -> bool:
        """Whether the store holds deliveries that are not in the window."""
        return self.loaded < self.last


class _Key:
    """A key with more than one delivery in the windows."""

    __slots__ = ("blocked", "next", "running")

    def __init__(self) -> None:
        self.running = True
        self.next: Delivery | None = None
        self.blocked: list[deque[Delivery] | None] = [None] * LANES


class Pause:
    """A handler whose dependency is down: only one probe at a time runs, none before `until`."""

    __slots__ = ("probing", "until", "waiting")

    def __init__(self, until: float) -> None:
        self.until = until
        self.probing = False
        self.waiting: deque[Delivery] = deque()


class Lanes:
    """The ready work of one partition."""

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes
        self.lanes = [Lane() for _ in range(LANES)]
        self.to_hold: list[Delivery] = []
        """Taken out because their key has pending work: the runtime moves them to the pending table and clears this."""
        self._queues = [(self.lanes[2 * p].ready, self.lanes[2 * p + 1].ready) for p in range(PRIORITIES)]
        self._credits = list(QUANTA)
        self._ready = 0
        """Bit p: priority p has something in a ready queue."""
        self._credited = _ALL
        self._keys: dict[str, _Key | None] = {}
        """Keys that run (None: nothing else of them is known) or have a reserved next."""
        self._held: dict[str, int] = {}
        self._pauses: dict[str, Pause] = {}

    # --- in ---------------------------------------------------------------------------------------------------------

    def room(self, lane: int) -> bool:
        """Whether the window of a lane takes more."""
        return self.lanes[lane].bytes < self.window_bytes

    def hungry(self) -> bool:
        """Whether a window is less than half full while the store holds more."""
        return any(lane.loaded < lane.last and 2 * lane.bytes < self.window_bytes for lane in self.lanes)

    def offer(self, delivery: Delivery) -> None:
        """Put a delivery at the end of its lane's window."""
        lane = self.lanes[2 * delivery.priority + (delivery.kind == 0)]
        lane.ready.append(delivery)
        lane.count += 1
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
                lane.count += len(deliveries)
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
        """The next delivery to run, or None. Its key is locked until `release`."""
        keys = self._keys
        while self._ready:
            mask = self._ready & self._credited
            if not mask:
                self._credits[:] = QUANTA
                self._credited = _ALL
                continue
            priority = _FIRST[mask]
            for ready in self._queues[priority]:
                while ready:
                    delivery = ready.popleft()
                    address = delivery.address
                    if self._held or self._pauses or address in keys:
                        if not self._admits(delivery, now):
                            continue
                    elif address:
                        keys[address] = None
                    credits = self._credits
                    credits[priority] -= 1
                    if not credits[priority]:
                        self._credited &= ~(1 << priority)
                    return delivery
            self._ready &= ~(1 << priority)
        return None

    def _admits(self, delivery: Delivery, now: float) -> bool:
        """Lock the key for the delivery, or put it where it waits."""
        address, keys = delivery.address, self._keys
        if address:
            if self._held and not delivery.pending and self._is_held(delivery):
                return False
            if address in keys and not self._may_enter(delivery):
                return False
        if self._pauses and not self._passes_pause(delivery, now):
            return False
        if address and keys.setdefault(address, None) is not None:
            self._lock(address)
        return True

    def release(self, delivery: Delivery) -> None:
        """The delivery ended (or went away): forget its weight and free its key."""
        lane = self.lanes[2 * delivery.priority + (delivery.kind == 0)]
        lane.count -= 1
        lane.bytes -= len(delivery.payload) + DELIVERY_BYTES
        address = delivery.address
        if not address:
            return
        key = self._keys.pop(address, None)
        if key is not None:
            self._promote(address, key)

    # --- keys -------------------------------------------------------------------------------------------------------

    def _lock(self, address: str) -> None:
        key = self._keys[address]
        assert key is not None
        key.running, key.next = True, None

    def _may_enter(self, delivery: Delivery) -> bool:
        """Whether the key is free for it; if not, it is filed behind the one that has the key.

        A more urgent delivery passes one that only reserved the key; the reserved one is filed when it comes up.
        """
        key = self._keys[delivery.address]
        if key is None:
            key = self._keys[delivery.address] = _Key()
        reserved = key.next
        if not key.running and (reserved is delivery or reserved is None or delivery.priority < reserved.priority):
            return True
        self._file(key, delivery)
        return False

    def _file(self, key: _Key, delivery: Delivery) -> None:
        blocked = key.blocked[delivery.lane]
        if blocked is None:
            blocked = key.blocked[delivery.lane] = deque()
        if blocked and delivery.id < blocked[0].id:
            blocked.appendleft(delivery)
        else:
            blocked.append(delivery)

    def _promote(self, address: str, key: _Key) -> None:
        """Reserve the key for the most urgent, oldest of its blocked deliveries and put that at the front of its lane."""
        for blocked in key.blocked:
            if blocked:
                following = blocked.popleft()
                key.running, key.next = False, following
                self._keys[address] = key
                self._to_front(following)
                return

    def _to_front(self, delivery: Delivery) -> None:
        self.lanes[delivery.lane].ready.appendleft(delivery)
        self._ready |= 1 << delivery.priority

    def _forget(self, delivery: Delivery) -> None:
        lane = self.lanes[2 * delivery.priority + (delivery.kind == 0)]
        lane.count -= 1
        lane.bytes -= len(delivery.payload) + DELIVERY_BYTES

    # --- pending work of a key --------------------------------------------------------------------------------------

    def hold(self, address: str, priority: int) -> None:
        """The key has pending work of this priority: its later deliveries of the same or lower priority are set aside."""
        self._held[address] = min(priority, self._held.get(address, priority))

    def unhold(self, address: str) -> None:
        """The key has no pending work any more."""
        self._held.pop(address, None)

    def _is_held(self, delivery: Delivery) -> bool:
        rank = self._held.get(delivery.address)
        if rank is None or delivery.priority < rank:
            return False
        key = self._keys.get(delivery.address)
        if key is not None and key.next is delivery:
            del self._keys[delivery.address]
            self._promote(delivery.address, key)
        self._forget(delivery)
        self.to_hold.append(delivery)
        return True

    # --- paused handlers --------------------------------------------------------------------------------------------

    def pause(self, route: str, until: float) -> None:
        """The handler's dependency is down until (monotonic seconds): run one probe at a time, from then on."""
        pause = self._pauses.get(route)
        if pause is None:
            self._pauses[route] = Pause(until)
        else:
            pause.until, pause.probing = max(until, pause.until), False

    def resume(self, route: str) -> None:
        """The handler works again: everything that waited for it is ready, in its order."""
        pause = self._pauses.pop(route, None)
        while pause and pause.waiting:
            self._to_front(pause.waiting.pop())

    @property
    def any_paused(self) -> bool:
        """Whether any handler is paused."""
        return bool(self._pauses)

    def works(self, route: str) -> None:
        """The handler did its work, or failed for a reason of its own: if it was paused, it is not any more."""
        if route in self._pauses:
            self.resume(route)

    def paused(self) -> dict[str, float]:
        """Paused handlers, and until when (monotonic seconds)."""
        return {route: pause.until for route, pause in self._pauses.items()}

    def _passes_pause(self, delivery: Delivery, now: float) -> bool:
        pause = self._pauses.get(delivery.route)
        if pause is None:
            return True
        if now >= pause.until and not pause.probing:
            pause.probing = True
            return True
        if delivery.address:
            key = self._keys.setdefault(delivery.address, None) or _Key()
            self._keys[delivery.address] = key
            if key.next is not None and key.next is not delivery:  # it would have passed: it comes up after that one
                self._file(key, delivery)
                return False
            key.running, key.next = False, delivery  # keeps its place: later ones of its key wait behind it
        pause.waiting.append(delivery)
        return False

    def wake_at(self) -> float | None:
        """When a paused handler with waiting work may be probed next (monotonic seconds)."""
        times = [pause.until for pause in self._pauses.values() if pause.waiting and not pause.probing]
        return min(times) if times else None

    def wake(self, now: float) -> None:
        """Let a probe of each paused handler come up whose time has come."""
        for pause in self._pauses.values():
            if pause.waiting and not pause.probing and now >= pause.until:
                self._to_front(pause.waiting.popleft())

    # --- a window that nothing can leave ----------------------------------------------------------------------------

    def starved(self, lane: int) -> bool:
        """Whether the window is full, nothing in it is ready, and the store holds more."""
        window = self.lanes[lane]
        return not window.ready and window.behind and window.bytes >= self.window_bytes

    def evict(self, lane: int) -> tuple[list[Delivery], list[Delivery], set[str]]:
        """Take out what blocks a starved window.

        Returns:
            Deliveries that wait for a running one of their key, in order; deliveries that wait for a paused handler;
            the addresses that the first ones wait for.
        """
        waiting: list[Delivery] = []
        addresses: set[str] = set()
        for address, key in self._keys.items():
            blocked = key.blocked[lane] if key is not None else None
            if key is not None and key.running and blocked:
                waiting.extend(blocked)
                addresses.add(address)
                key.blocked[lane] = None
        stopped: list[Delivery] = []
        for pause in self._pauses.values():
            stopped.extend(d for d in pause.waiting if d.lane == lane and not d.pending)
            pause.waiting = deque(d for d in pause.waiting if d.lane != lane or d.pending)
        for delivery in waiting:
            self._forget(delivery)
        for delivery in stopped:
            self.release(delivery)
        waiting.sort(key=_by_id)
        return waiting, stopped, addresses

    def count(self) -> int:
        """Deliveries in all windows."""
        return sum(lane.count for lane in self.lanes)


def _by_id(delivery: Delivery) -> int:
    return delivery.id
