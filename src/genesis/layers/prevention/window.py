"""What the lanes are made of: the window on a lane of the store, a key with several deliveries, a paused handler."""

from __future__ import annotations

from collections import OrderedDict, deque

from genesis.core.event import Delivery


class Lane:
    """The window on one lane of the store."""

    __slots__ = ("bytes", "last", "loaded", "ready")

    def __init__(self) -> None:
        self.ready: deque[Delivery] = deque()
        self.bytes = 0
        """Of what waits in memory: ready or blocked."""
        self.loaded = 0
        """Id of the last delivery that came into the window."""
        self.last = 0
        """Id of the last delivery in the store."""

    @property
    def behind(self) -> bool:
        """Whether the store holds deliveries that are not in the window."""
        return self.loaded < self.last


class Key:
    """A key with more than one delivery in the windows.

    Of each lane, the first one stands in the lane's queue or waits for its handler, and the others are blocked behind it;
    while one of the key runs, all may be blocked.
    """

    __slots__ = ("blocked", "first", "parked", "running")

    def __init__(self, *, running: bool) -> None:
        self.running = running
        self.first: dict[int, Delivery] = {}
        self.blocked: dict[int, deque[Delivery]] = {}
        """By lane; never empty ones."""
        self.parked = 0
        """Bit l: the first one of lane l waits for its handler."""

    def stops(self, lane: int) -> bool:
        """Whether a delivery that waits for its handler keeps its place before this lane: it is as urgent, or more."""
        return bool(self.parked & ((2 << (lane | 1)) - 1))


class Pause:
    """A handler whose dependency is down: only one probe at a time runs, none before `until`."""

    __slots__ = ("probe", "since", "until", "waiting")

    def __init__(self, until: float) -> None:
        self.since = self.until = until
        self.probe: Delivery | None = None
        """What runs as the probe, or was brought up to be it."""
        self.waiting: OrderedDict[int, Delivery] = OrderedDict()
        """By id."""
