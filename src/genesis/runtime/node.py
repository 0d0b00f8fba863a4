"""What the user holds: a running application that can be sent to, asked, and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from genesis.core.errors import BatchLimitError, DrainingError, GenesisError, IntakeFullError, StoreFailedError
from genesis.core.event import Incoming, Priority, Receipt
from genesis.core.message import Message, Request
from genesis.core.ports import BATCH_BYTES, BATCH_RECORDS
from genesis.core.stats import Histogram
from genesis.runtime.component import Component
from genesis.runtime.intake import Offer
from genesis.runtime.life import Life
from genesis.runtime.operate import Operator
from genesis.runtime.pipeline import TURN, Pipeline
from genesis.runtime.status import Readiness, Status, status_of

A = TypeVar("A")


class Node:
    """One process's part in an application; made by `app.running(...)`."""

    def __init__(self, life: Life) -> None:
        self._life = life

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Node]:
        """Open, run while the block runs, drain, close. Raises as `Life.run`."""
        async with self._life.run():
            yield self

    # --- the user's calls -------------------------------------------------------------------------------------------

    async def send(
        self,
        message: Message,
        *,
        id: str | None = None,
        source: str | None = None,
        priority: Priority | None = None,
        headers: dict[str, str] | None = None,
    ) -> Receipt:
        """Accept an event. Returns when it is durable.

        Args:
            message: The event.
            id: Its id; sent again with the same source and id within the horizon, it is a duplicate. Default: a fresh one.
            source: Who sends it. Default: the application's name.
            priority: Instead of its class's.
            headers: Travel with it (``traceparent`` goes on to what it causes).

        Raises:
            RefusedError: not accepted; its kinds say why and when to come back.
        """
        pipeline = self._life.pipeline or self._ready()
        shared = pipeline.shared
        offer = pipeline.gate.offer(message, id, source, priority, headers, shared)
        receipt = offer.receipt
        if shared is not None:  # not durable: nothing could be lost between this yes and the commit alone
            if shared.events >= TURN or receipt.duplicate:
                pipeline.close_shared()
                await asyncio.sleep(0)
            elif shared.events == 1:
                pipeline.flush_soon()
            return receipt
        accepted = pipeline.accept(offer)
        if accepted is not None:
            await (asyncio.shield(accepted) if receipt.duplicate else accepted)  # a duplicate awaits another one's
        return receipt

    async def send_many(self, messages: Iterable[Message], *, source: str | None = None) -> list[Receipt]:
        """Accept events in order, in atomic steps of up to 900 deliveries. Returns when all are durable.

        Raises:
            RefusedError: one does not fit, or there is no room; what was in the steps before it is accepted.
        """
        receipts: list[Receipt] = []
        waiting: list[asyncio.Future[None]] = []
        offer: Offer | None = None
        for message in messages:
            pipeline = self._ready()
            if offer is not None and (len(offer.deliveries) >= BATCH_RECORDS // 2 or offer.size > 1 << 19):
                await self._take(offer, waiting)
                offer = None
            offer = pipeline.gate.offer(message, source=source, into=offer)
            receipts.append(offer.receipt)
        if offer is not None:
            await self._take(offer, waiting)
        for accepted in waiting:
            await accepted
        return receipts

    def message(self, type: str, body: bytes) -> Message:
        """The message of a type, from JSON.

        Raises:
            UnknownTypeError: nobody handles the type. Counted as refused, like the next two.
            MalformedEventError: it is no JSON.
            InvalidEventError: the fields do not fit.
        """
        return self._ready().gate.message_of_json(type, body)

    async def send_batch(self, events: Sequence[Incoming]) -> list[Receipt]:
        """Accept all events in one atomic step, or none. Returns when they are durable.

        Raises:
            RefusedError: one was refused (`index` says which), so all are.
            BatchLimitError: together they are more than 900 deliveries or 1 MiB, or one (`index`) is too large alone.
        """
        pipeline = self._ready()
        gate, offer, receipts = pipeline.gate, Offer(), []
        others: list[asyncio.Future[None]] = []
        for index, event in enumerate(events):
            try:
                gate.offer(event.message, event.id, event.source, event.priority, event.headers, offer)
            except GenesisError as error:
                gate.withdraw(offer)
                gate.count_refused(len(events) - index - 1)
                error.index = index
                raise
            receipts.append(offer.receipt)
            if offer.waiter is not None:  # a duplicate of an event that is on its way
                others.append(offer.waiter)
                offer.waiter = None
        if len(offer.deliveries) > BATCH_RECORDS or offer.size > BATCH_BYTES:
            gate.withdraw(offer)
            raise BatchLimitError(
                f"a batch of {len(offer.deliveries)} deliveries and {offer.size} bytes: "
                f"at most {BATCH_RECORDS} and {BATCH_BYTES}, as they are accepted in one step"
            )
        accepted = pipeline.accept(offer)
        if accepted is not None:
            await accepted
        for other in others:
            await asyncio.shield(other)
        return receipts

    async def _take(self, offer: Offer, waiting: list[asyncio.Future[None]]) -> None:
        accepted = self._ready().accept(offer)
        if accepted is not None:
            waiting.append(accepted)
        else:
            await asyncio.sleep(0)

    async def ask(self, request: Request[A], *, deadline: float = 30.0, id: str | None = None, source: str | None = None) -> A:
        """Ask, and wait up to `deadline` seconds for the committed answer. The same id gives the same answer.

        Raises:
            AskError: no answer; its kinds say why.
            RefusedError: not accepted.
        """
        return await self._ready().asks.ask(request, ask_id=id, deadline_s=deadline, source=source)

    async def state(self, component: type, key: object = None) -> Any:
        """The committed state of a key (a fresh copy); its initial state when nothing is stored.

        Raises:
            GenesisError: the class is no component with a state.
        """
        pipeline, found = self._ready(), self._stateful(component)
        address = found.address(key)
        rows = await pipeline.engine.load_state(pipeline.partition, [address])
        return _decoded(found, rows.get(address))

    async def scan(self, component: type, *, prefix: str = "", page: int = 256) -> AsyncIterator[tuple[str, Any]]:
        """All committed (key, state) pairs of a component with keys that start with `prefix`, in key order."""
        found = self._stateful(component)
        begin = f"{found.name}/"
        after = ""
        while True:
            pipeline = self._ready()
            rows = await pipeline.engine.scan_state(pipeline.partition, begin + prefix, after, page)
            for address, row in rows:
                yield address[len(begin) :], _decoded(found, row)
            if len(rows) < page:
                return
            after = rows[-1][0]

    def status(self) -> Status:
        """Where the node stands."""
        return status_of(self._ready(), self._life.slots, self._life.sources, self._life.sinks)

    def readiness(self) -> Readiness:
        """Whether events would be accepted now."""
        try:
            refusal = self._ready().gate.refusal()
        except GenesisError as error:
            return Readiness(store=str(error), intake=str(error))
        return Readiness(intake="" if refusal is None else str(refusal))

    def latency(self) -> dict[str, Histogram]:
        """By priority: seconds from birth to commit of the deliveries that ended since the store was opened."""
        return {priority.name: sketch for priority, sketch in zip(Priority, self._ready().latency, strict=True)}

    @property
    def operator(self) -> Operator:
        """Dead letters: look, replay, drop."""
        return Operator(self._ready())

    def _ready(self) -> Pipeline:
        life = self._life
        if life.pipeline is not None:
            return life.pipeline
        if life.error is not None:
            raise StoreFailedError(f"the node has stopped: {life.error}") from life.error
        if life.draining:
            raise DrainingError("the node has stopped: send to another, or again after the restart")
        raise IntakeFullError("the store is being opened", 0.5)

    def _stateful(self, component: type) -> Component:
        for found in self._life.definition.components.values():
            if found.cls is component and found.state_codec is not None:
                return found
        raise GenesisError(
            f"{getattr(component, '__name__', component)} is no component with a state of {self._life.definition.name}"
        )


def _decoded(component: Component, row: tuple[int, bytes] | None) -> Any:
    codec = component.state_codec
    assert codec is not None
    return codec.decode(*row) if row is not None and row[0] else codec.state()
