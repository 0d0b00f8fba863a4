"""The job of `genesis bench` where no application was named: amounts are added to the totals of a thousand keys."""

from __future__ import annotations

from genesis.app import App
from genesis.core.message import Message, State
from genesis.runtime.component import on
from genesis.runtime.context import Context

KEYS = 1000
app = App("bench")


class Added(Message, type="bench.added"):
    """An amount for one key."""

    key: str
    amount: int


class Total(State, version=1):
    """What was added to one key."""

    total: int = 0


@app.component(key="key", state=Total)
class Totals:
    """Adds."""

    @on(Added)
    async def add(self, added: Added, total: Total, ctx: Context) -> None:
        """One durable change of one state."""
        total.total += added.amount


def lines() -> list[bytes]:
    """Its messages."""
    return [b'{"key": "k%d", "amount": %d}' % (i * 7919 % KEYS, i % 97 + 1) for i in range(KEYS)]
