"""The job as an application of Genesis, and the watcher that tells when its results are durable."""

from typing import ClassVar

from benchmarks.job import Meter, clock
from genesis import App, Context, Message, Node, Priority, State, on
from genesis.core.ports import CrashPoint

LEVELS = tuple(Priority)
app = App("bench")


class Added(Message, type="bench.added"):
    id: int
    key: str
    amount: int
    priority: int


class Total(State, version=1):
    total: int = 0


@app.component(key="key", state=Total)
class Totals:
    meter: ClassVar[Meter]

    @on(Added)
    async def add(self, added: Added, total: Total, ctx: Context) -> None:
        total.total += added.amount
        self.meter.handled(added.id)


async def totals(node: Node) -> dict[str, int]:
    """What is stored, by key. The ledger must add up."""
    assert not node.status().imbalance, node.status().imbalance
    return {key: total.total async for key, total in node.scan(Totals)}


class Committed(Meter):
    """A meter whose events end with their commit. Give it to `app.running` as `crash`: it is called along the commit path."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._open: list[int] = []
        self._sealed: list[int] = []

    def handled(self, i: int) -> None:
        self._open.append(i)

    def __call__(self, point: CrashPoint) -> None:
        if point is CrashPoint.APPEND:
            self._sealed, self._open = self._open, []
        elif point is CrashPoint.ANSWER and self._sealed:
            self.durable(self._sealed)

    def durable(self, events: list[int]) -> None:
        """These were committed now."""
        now, sent, took = clock(), self.sent, self.took
        for i in events:
            took[i] = now - sent[i]
        self.left -= len(events)
        if not self.left:
            self.done.set()
