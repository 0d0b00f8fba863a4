"""What the tests of sinks share: an application with a sink, and the system that the sink brings its items to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from genesis import App, Item
from tests.unit.runtime.support import Job

Trouble = Callable[[Sequence[Item[Job]]], Awaitable[None] | None]


class Crm:
    """Another system. It remembers each call, even one that it fails afterwards."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.times: list[float] = []
        """When each call began."""
        self.items: list[Item[Job]] = []
        self.trouble: Trouble = lambda items: None
        """Done to each call, after it is noted."""
        self.taken: list[int] = []
        """Of calls that ended well."""

    async def take(self, items: Sequence[Item[Job]]) -> None:
        self.calls.append([item.message.n for item in items])
        self.times.append(asyncio.get_running_loop().time())
        self.items += items
        done = self.trouble(items)
        if done is not None:
            await done
        self.taken += [item.message.n for item in items]


def shop(crm: Crm, **options: Any) -> App:
    """An application whose sink ``crm`` takes jobs."""
    app = App("shop")

    @app.sink(Job, name="crm", **options)
    async def to_crm(items: Sequence[Item[Job]]) -> None:
        await crm.take(items)

    return app


def fails(*numbers: int, error: Exception | None = None) -> Trouble:
    """Any call with one of these fails."""

    def trouble(items: Sequence[Item[Job]]) -> None:
        if any(item.message.n in numbers for item in items):
            raise error or ConnectionError("not this one")

    return trouble
