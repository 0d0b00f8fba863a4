"""Sources: an async generator of (position, message), whose position is committed with the events that it gave.

In: what the user's generator yields. Out: offers, in order, a bounded number under way. A source that fails is started
again from its committed position, with growing waits; what it yields twice is stored once, because its position goes on in
the same commit.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from genesis.core.errors import DefinitionError, IntakeFullError, NotAcceptedError, RefusedError, StoreError
from genesis.core.message import Message, encode
from genesis.layers.recovery.failure import WAIT_MAX_S, Retry, outage_of, said
from genesis.runtime.intake import Offer
from genesis.runtime.log import log
from genesis.runtime.outcome import storable
from genesis.runtime.pipeline import Pipeline
from genesis.runtime.scope import FREE, SCOPE

IN_FLIGHT = 512
"""Offers of one source that may wait for their commit: enough for the writer to be busy, little enough to be patient."""
RESTART = Retry(attempts=1_000_000_000, base_s=0.5, cap_s=30.0)


@dataclass(frozen=True, slots=True)
class Source:
    """A source as defined."""

    name: str
    function: Callable[[Any], AsyncIterator[tuple[Any, Message]]]
    position_type: Any
    where: str


def define_source(function: Any, name: str | None) -> Source:
    """Check a source function. Raises DefinitionError."""
    code = function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    if not inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"{function.__name__} is no async generator",
            where=where,
            fix=f"async def {function.__name__}(position: int | None) -> AsyncIterator[tuple[int, Message]]:",
        )
    if len(inspect.signature(function).parameters) != 1:
        raise DefinitionError(
            f"{function.__name__} takes one argument, the last committed position",
            where=where,
            fix="(position: int | None)",
        )
    parameter = next(iter(inspect.signature(function).parameters))
    try:
        position_type = typing.get_type_hints(function).get(parameter, Any)
    except NameError:
        position_type = Any
    return Source(name or function.__name__.replace("_", "-"), function, position_type, where)


class SourceRunner:
    """Runs one source of a partition."""

    def __init__(self, source: Source, pipeline: Pipeline) -> None:
        self.source, self._pipeline = source, pipeline
        self.state = "starting"
        self.error = ""

    async def run(self) -> None:
        """Run the source until it ends by itself, starting it again when it fails."""
        failures = 0
        SCOPE.set(FREE)  # whoever opened the node is in no hurry for this
        while True:
            position = await self._position()
            self.state = "running"
            try:
                given = await self._drain(position)
            except (asyncio.CancelledError, StoreError):
                raise
            except Exception as error:
                failures = 1 if isinstance(error, _ProgressError) else failures + 1
                cause = error.__cause__ or error if isinstance(error, _ProgressError) else error
                wait_s = RESTART.delay_s(failures, self._pipeline.rng)
                if (outage := outage_of(cause)) is not None:  # not before what is down says so
                    wait_s += min(WAIT_MAX_S, max(0.0, outage.wait_s))
                self.state, self.error = "failed", storable(said(cause))
                log.error("source %s failed, starts again in %.1f s: %s", self.source.name, wait_s, self.error, exc_info=cause)
                await asyncio.sleep(wait_s)
                continue
            self.state, self.error = "ended", ""
            log.info("source %s ended after %d events", self.source.name, given)
            return

    async def _position(self) -> Any:
        name = self.source.name
        row = (await self._pipeline.engine.load(self._pipeline.partition, "source", [name])).get(name)
        return msgspec.msgpack.decode(row, type=self.source.position_type) if row is not None else None

    async def _drain(self, position: Any) -> int:
        """Offer everything the source yields; wait for the last commit."""
        under_way: deque[asyncio.Future[None]] = deque()
        given = 0
        generator = self.source.function(position)
        try:
            async for place, message in generator:
                accepted = self._pipeline.accept(await self._offer(place, message))
                given += 1
                if accepted is not None:
                    under_way.append(accepted)
                    if len(under_way) >= IN_FLIGHT:
                        await asyncio.shield(under_way.popleft())
                elif not given % 64:
                    await self._breathe()
            while under_way:
                await asyncio.shield(under_way.popleft())
        except (StoreError, NotAcceptedError, asyncio.CancelledError):
            raise
        except Exception as error:
            while under_way:
                await asyncio.shield(under_way.popleft())
            if given:
                raise _ProgressError from error
            raise
        finally:
            await generator.aclose()  # type: ignore[attr-defined]
        return given

    async def _offer(self, place: Any, message: Message) -> Offer:
        """The offer of one message, waiting while intake is full: a source is slowed down, never refused."""
        pipeline = self._pipeline
        packed = encode(place)
        while True:
            try:
                offer = pipeline.gate.offer(message, source=f"{pipeline.gate.source}/{self.source.name}")
            except IntakeFullError as full:
                pipeline.head.ledger.offered -= 1  # held back, not refused
                pipeline.head.ledger.refused -= 1
                self.state = "waiting"
                await asyncio.sleep(full.retry_after_s)
                continue
            except RefusedError:
                raise
            self.state = "running"
            offer.position = (self.source.name, packed)
            return offer

    async def _breathe(self) -> None:
        """On an engine that never waits: let the handlers keep up."""
        pipeline = self._pipeline
        while True:
            await asyncio.sleep(0)
            if not pipeline.lanes.any_ready or pipeline.head.ledger.in_lanes <= 8 * IN_FLIGHT:
                return


class _ProgressError(Exception):
    """A source failed after it had given something: its waits start anew."""
