"""What people do to a running partition: look at dead letters, replay or drop them, send an event by hand.

In: calls from the node's own process, or requests that another process filed in the store. Out: answers, in the same commit
as what they did.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from genesis.core.errors import DrainingError, GenesisError
from genesis.core.event import DeadLetter, Delivery, Kind, Pending, Priority, Reason
from genesis.core.message import encode
from genesis.runtime.log import log
from genesis.runtime.pipeline import Pipeline

POLL_S = 0.05
"""How often requests of other processes are looked for: a look costs some 10 us."""
PAGE = 256

_letter = msgspec.msgpack.Decoder(DeadLetter).decode


class Request(msgspec.Struct):
    """What another process asks the owner to do."""

    kind: str
    """``send``, ``replay`` or ``drop``."""
    type: str = ""
    fields: Any = None
    id: str | None = None
    source: str | None = None
    priority: str | None = None
    dead: list[str] = []
    """Keys of dead letters; empty with `all` means every one."""
    all: bool = False


class Operator:
    """The hands of people on one partition."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def run(self) -> None:
        """Serve filed requests for ever."""
        pipeline = self._pipeline
        while True:
            for key, body in await pipeline.engine.scan(pipeline.partition, "request", "", PAGE):
                await self._serve(key, body)
            await asyncio.sleep(POLL_S)

    async def _serve(self, key: str, body: bytes) -> None:
        pipeline = self._pipeline
        try:
            answer = await self._perform(key, msgspec.msgpack.decode(body, type=Request))
        except (GenesisError, msgspec.DecodeError) as error:
            answer = {"error": str(error), "code": getattr(error, "code", "invalid-request")}
        except Exception as error:
            log.exception("request %s failed", key)
            answer = {"error": f"{type(error).__name__}: {error}", "code": "error"}
        pipeline.group.batch.put("request", key, None)
        pipeline.group.batch.put("answer", key, encode(answer))
        pipeline.group.rows += 2
        await pipeline.barrier()

    async def _perform(self, key: str, request: Request) -> dict[str, Any]:
        pipeline = self._pipeline
        if request.kind == "send":
            message = pipeline.gate.message(request.type, request.fields)
            priority = Priority[request.priority.upper()] if request.priority else None
            event_id = request.id or f"request-{key}"  # done again after a crash, it is a duplicate
            offer = pipeline.gate.offer(message, id=event_id, source=request.source, priority=priority)
            accepted = pipeline.accept(offer)
            if accepted is not None:
                await accepted
            return {"receipt": msgspec.to_builtins(offer.receipt)}
        if request.kind not in ("replay", "drop"):
            raise GenesisError(f"unknown request {request.kind!r}: send, replay or drop")
        keys = await self._dead_keys() if request.all else request.dead
        done: list[str] = []
        missing: list[str] = []
        for key in keys:
            acted = await (self.replay(key) if request.kind == "replay" else self.drop(key))
            (done if acted else missing).append(key)
        return {"done": done, "missing": missing}

    async def _dead_keys(self) -> list[str]:
        pipeline = self._pipeline
        keys: list[str] = []
        after = ""
        while page := await pipeline.engine.scan(pipeline.partition, "dead", after, PAGE):
            keys += [key for key, _ in page]
            after = page[-1][0]
        after_id = 0
        while pipeline.pending.parked and (rows := await pipeline.engine.scan_pending(pipeline.partition, after_id, PAGE)):
            keys += [f"{row.delivery.id:016x}" for row in rows if row.reason is Reason.PARKED]
            after_id = rows[-1].delivery.id
        return keys

    async def replay(self, key: str) -> bool:
        """Bring a dead letter (or a parked delivery) back, with fresh attempts; one commit. False when there is none.

        Raises:
            DrainingError: the node stops: nothing was done.
            StoreError: the store failed: look whether it was done.
        """
        async with self._pipeline.acting:
            letter = await self._letter(key)
            if letter is None:
                return await self._unpark(key, drop=False)
            self._check_open()
            self._remove(key)
            self._pipeline.outcomes.born([_reborn(letter.delivery, self._pipeline.clock.wall())])
            await self._pipeline.barrier()
            return True

    async def drop(self, key: str) -> bool:
        """Remove a dead letter for good; a parked delivery ends as dead without being kept. False when there is none.

        Raises as `replay`.
        """
        async with self._pipeline.acting:
            letter = await self._letter(key)
            if letter is None:
                return await self._unpark(key, drop=True)
            self._check_open()
            self._remove(key)
            await self._forget_journal(letter.delivery)
            await self._pipeline.barrier()
            return True

    async def _letter(self, key: str) -> DeadLetter | None:
        pipeline = self._pipeline
        for group in (pipeline.group, pipeline.sealed):
            if group is not None and key in group.batch.tables.get("dead", {}):
                await pipeline.barrier()
        body = (await pipeline.engine.load(pipeline.partition, "dead", [key])).get(key)
        return _letter(body) if body is not None else None

    def _check_open(self) -> None:
        """What is counted after the last commit of a drain would be stored by its close, without the rows that go with it."""
        if not self._pipeline.gate.open:
            raise DrainingError("the node is draining: act again after the restart")

    def _remove(self, key: str) -> None:
        group = self._pipeline.group
        group.batch.put("dead", key, None)
        group.rows += 1

    async def _forget_journal(self, delivery: Delivery) -> None:
        """Remove what the calls of a delivery to the outside gave: nobody will ask for it again."""
        pipeline = self._pipeline
        origin = delivery.origin or f"{delivery.id:x}"
        after = origin
        while page := await pipeline.engine.scan(pipeline.partition, "once", after, PAGE):
            for key, _ in page:
                if not key.startswith(f"{origin}/"):
                    return
                pipeline.group.batch.put("once", key, None)
                pipeline.group.rows += 1
            after = page[-1][0]

    async def _unpark(self, key: str, *, drop: bool) -> bool:
        row = await self._parked(key)
        if row is None:
            return False
        self._check_open()
        outcomes, delivery = self._pipeline.outcomes, row.delivery
        delivery.pending = str(row.reason)
        if drop:
            outcomes.dead(delivery, "dropped", "parked, then dropped by hand", delivery.attempt)
            self._pipeline.group.batch.put("dead", key, None)
            await self._forget_journal(delivery)
        else:
            delivery.attempt = 0
            outcomes.pend(delivery, Reason.RETRY, self._pipeline.clock.wall())
        await self._pipeline.barrier()
        return True

    async def _parked(self, key: str) -> Pending | None:
        pipeline = self._pipeline
        try:
            delivery_id = int(key, 16)
        except ValueError:
            return None
        for group in (pipeline.group, pipeline.sealed):
            if group is not None and any(row.delivery.id == delivery_id for row in group.batch.pend):
                await pipeline.barrier()
        for row in await pipeline.engine.scan_pending(pipeline.partition, delivery_id - 1, 1):
            if row.delivery.id == delivery_id and row.reason is Reason.PARKED:
                return row
        return None


def _reborn(dead: Delivery, wall: float) -> Delivery:
    """A new delivery of a dead one: fresh attempts, the journal of its first life. It is the same event, with the same id."""
    return Delivery(
        route=dead.route,
        address=dead.address,
        event_id=dead.event_id,
        source=dead.source,
        payload=dead.payload,
        born_at=wall,
        kind=Kind.REPLAY,
        priority=dead.priority,
        origin=dead.origin,
        headers=dead.headers,
    )
