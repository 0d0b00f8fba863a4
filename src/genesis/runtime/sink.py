"""Sinks: a function that brings events to another system, in batches, in order, after they are durable.

In: rows of the outbox that are committed. Out: calls of the user's function, one at a time, and the ends of what it took.
The rows of a call are removed in one commit before the next call begins: after a crash the last batch is given again, at most,
with the same ids and numbers.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from genesis.core.errors import DefinitionError, GenesisError, HandlerTimeoutError, UnavailableError
from genesis.core.event import Outgoing
from genesis.core.message import Message, MessageCodec, Request, type_of
from genesis.core.ports import BATCH_RECORDS
from genesis.layers.recovery.failure import Again, Dead, Retry, said
from genesis.layers.recovery.outbox import Outbox
from genesis.runtime.component import Component, Route
from genesis.runtime.log import log
from genesis.runtime.outcome import storable
from genesis.runtime.pipeline import Pipeline
from genesis.runtime.resource import Need, needs_of_function
from genesis.runtime.scope import FREE, SCOPE, SPARE, deadline
from genesis.runtime.status import SinkStatus

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation
    from genesis.runtime.policy import Policy

BATCH_MAX = BATCH_RECORDS
"""Items of one call at most: they end in one commit."""
BATCH = 100
TIMEOUT_S = 30.0
READ_ROWS = 64
"""Rows read in one step."""
READ_BYTES = 4 << 20
"""Bytes of payload at which a batch takes no more rows: large events come in smaller batches."""

M = TypeVar("M", bound=Message)
Give = Callable[[Sequence[Any]], Coroutine[Any, Any, None]]
_outgoing = msgspec.msgpack.Decoder(Outgoing).decode


class Item(msgspec.Struct, Generic[M], frozen=True):
    """An event, as a sink is given it."""

    number: int
    """Unique in the partition, and greater than that of every item before it; given again, it is the same."""
    id: str
    """Of the event: with its source, the key by which the other system knows what it has already."""
    source: str
    message: M
    born_at: float
    """Wall clock, seconds since the epoch."""
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink as defined."""

    name: str
    function: Callable[..., Coroutine[Any, Any, None]]
    route: Route
    """To the gate and the lanes it is the route of a stateless component."""
    batch: int
    per_second: float | None
    timeout_s: float | None
    needs: tuple[Need, ...]
    """What its function is given behind the items, by type."""
    where: str
    operation: Operation | None
    """Of the policy that its calls are attempts of."""


def define_sink(
    function: Any,
    message: Any,
    names: Mapping[str, Any],
    *,
    batch: int,
    per_second: float | None,
    timeout_s: float | None,
    retry: Retry | None,
    name: str | None,
    policy: Policy | None,
) -> Sink:
    """Check a sink function; `names` are the local ones around it, which its annotations may use.

    Raises:
        DefinitionError: with the place and the line to write.
    """
    code = function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    _check_message(message, where)
    title = message.__name__
    fix = f"async def {function.__name__}(items: Sequence[Item[{title}]]) -> None:"
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{function.__name__} is no coroutine function", where=where, fix=fix)
    if type(batch) is not int or not 1 <= batch <= BATCH_MAX:
        raise DefinitionError(
            f"batch is {batch!r}: 1 to {BATCH_MAX} items", where=where, fix=f"@app.sink({title}, batch={BATCH})"
        )
    if per_second is not None and not 0 < per_second < inf:
        raise DefinitionError(f"per_second is {per_second!r}: items a second above 0, or None", where=where)
    if timeout_s is not None and not timeout_s > 0:
        raise DefinitionError(f"timeout is {timeout_s!r}: seconds above 0, or None", where=where)
    found = name or function.__name__.replace("_", "-")
    if any(c in found for c in ":/ \n\0"):
        raise DefinitionError(f"{found!r} is no sink name: letters, digits and dashes", where=where)
    parameter, hints, needs = needs_of_function(function, names)
    kind = hints.get(parameter or "")
    if typing.get_origin(kind) is not Sequence or typing.get_args(kind) != (Item[message],):
        raise DefinitionError(f"{function.__name__} does not take items of {title} first", where=where, fix=fix)
    # Not idempotent, though what is given twice does no harm: copies beside a slow call would break the order of the items.
    operation = policy.protect(name=found, attempts=1) if policy is not None else None
    route = _route(found, message, retry or Retry(), where)
    return Sink(found, function, route, batch, per_second, timeout_s, needs, where, operation)


def _check_message(message: Any, where: str) -> None:
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise DefinitionError(f"@sink takes a message class, not {message!r}", where=where, fix="@app.sink(OrderPlaced)")
    if issubclass(message, Request):
        raise DefinitionError(
            f"{message.__name__} is a request: a handler answers it, a sink takes plain messages",
            where=where,
            fix=f'class {message.__name__}(Message, type="{type_of(message)}"):',
        )


def _route(name: str, message: type[Message], retry: Retry, where: str) -> Route:
    stateless = Component(
        name=name, cls=type(None), where=where, key=None, state=None, single=False, essential=False, retry=retry, order="skip"
    )
    return Route(
        name=f"{name}:{type_of(message)}",
        component=stateless,
        method="",
        codec=MessageCodec(message),
        timeout_s=None,
        retry=retry,
        is_async=True,
        read_only=False,
        answer=None,
        every_s=None,
        address_of=lambda found: "",
        state_version=0,
    )


class SinkRunner:
    """Gives to one sink of a partition what waits for it."""

    def __init__(self, sink: Sink, give: Give, pipeline: Pipeline) -> None:
        self.sink, self._pipeline = sink, pipeline
        self._give = give if sink.operation is None else partial(sink.operation.call, give)
        self._outbox = Outbox(sink.batch, sink.per_second, sink.route.retry)
        self._news = pipeline.outgoing[sink.name]
        self._after = f"{sink.name}/"
        """Key of the last row that was read."""
        self._rows: list[tuple[Outgoing, Item[Any]]] = []
        """Read, and without an end."""
        self._stopping = asyncio.Event()
        self._closed = False
        self.ended = asyncio.Event()
        self._status = SinkStatus("running", 0)

    @property
    def status(self) -> SinkStatus:
        """As it is now."""
        waiting = self._pipeline.head.outgoing.get(self.sink.name, 0)
        return msgspec.structs.replace(self._status, waiting=waiting)

    def stop(self) -> None:
        """Begin no new call; the one under way may end."""
        self._stopping.set()
        self._news.set()

    def close(self) -> None:
        """What the call under way comes to does not count any more, whatever it does."""
        self._closed = True
        self.stop()

    async def run(self) -> None:
        """Give until the stop."""
        SCOPE.set(FREE)  # whoever opened the node is in no hurry for this
        try:
            while not self._stopping.is_set():
                if not self._rows:
                    await self._read()
                if not self._rows:
                    self._status = SinkStatus("running", 0)
                    await self._news.wait()
                elif await self._is_time():
                    await self._next()
        finally:
            self._status = SinkStatus("stopped", 0, self._status.error)
            self.ended.set()

    # --- what is given ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take the next rows from the store, a call's worth of them."""
        pipeline, rows, size = self._pipeline, self._rows, 0
        self._news.clear()
        while len(rows) < self._outbox.at_once and size < READ_BYTES:
            page = await page_of(pipeline, self.sink.name, self._after, min(READ_ROWS, self._outbox.at_once - len(rows)))
            if not page:
                break
            self._after = page[-1].key
            items = [(row, self._item(row)) for row in page]
            rows += [(row, item) for row, item in items if item is not None]
            size += sum(len(row.payload) for row in page)
            if any(item is None for _, item in items):
                await pipeline.barrier()  # page by page: a group is not filled with letters without end
        self._outbox.filled(len(rows))

    def _item(self, row: Outgoing) -> Item[Any] | None:
        """What is given of a row; None when it has ended as a dead letter."""
        outcomes, route = self._pipeline.outcomes, self.sink.route
        if row.route != route.name:
            outcomes.unhandled(row)
            return None
        try:
            message = route.codec.decode(row.payload)
        except Exception as error:
            outcomes.dead(row, "undecodable", f"{route.codec.type}: {error}", 1, error)
            return None
        return Item(row.number, row.event_id, row.source, message, row.born_at, row.headers or {})

    async def _is_time(self) -> bool:
        """Wait for the time of the next call. False: the stop came before it."""
        wait_s = self._outbox.due - self._pipeline.clock.now()
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
        elif self._pipeline.engine.traits.immediate:
            await asyncio.sleep(0)  # else nobody has a turn while calls do not wait
        return not self._stopping.is_set()

    # --- one call ---------------------------------------------------------------------------------------------------

    async def _next(self) -> None:
        """One call, and the commit of what it came to."""
        pipeline = self._pipeline
        self._expire()
        if self._rows:
            given = self._rows[: self._outbox.give(pipeline.clock.now())]
            error = await self._call([item for _, item in given])
            if error is not None:
                self._failed(given, error)
            else:
                self._took(given)
        if not pipeline.group.empty:
            await pipeline.barrier()

    def _expire(self) -> None:
        wall, before = self._pipeline.clock.wall(), len(self._rows)
        for row, _ in self._rows:
            if row.expires_at is not None and row.expires_at <= wall:
                self._pipeline.outcomes.expired(row)
        self._rows = [(row, item) for row, item in self._rows if row.expires_at is None or row.expires_at > wall]
        self._outbox.dropped(before - len(self._rows))

    async def _call(self, items: list[Item[Any]]) -> BaseException | None:
        """Call the function. Returns what it failed with."""
        task, limit = asyncio.current_task(), asyncio.timeout(self.sink.timeout_s)
        assert task is not None
        error: BaseException | None = None
        try:
            async with limit:
                with deadline(inf if self.sink.timeout_s is None else (1 - SPARE) * self.sink.timeout_s):
                    await self._give(items)
        except BaseException as found:
            cancelled = isinstance(found, asyncio.CancelledError)
            if isinstance(found, KeyboardInterrupt) or (cancelled and (self._closed or task.cancelling())):
                raise
            error = GenesisError(f"sink {self.sink.name} was cancelled from inside") if cancelled else found
        if self._closed:  # it did not heed its cancellation: its rows stay
            raise asyncio.CancelledError
        while task.cancelling():  # left behind by a TaskGroup whose child failed, before Python 3.13
            task.uncancel()
        if limit.expired():
            error = HandlerTimeoutError(f"sink {self.sink.name} took over {self.sink.timeout_s} s")
        return error

    def _took(self, given: list[tuple[Outgoing, Item[Any]]]) -> None:
        self._outbox.took()
        for row, _ in given:
            self._pipeline.outcomes.taken(row)
        del self._rows[: len(given)]
        if self._status.error:
            log.info("sink %s works again", self.sink.name)
            self._status = SinkStatus("running", 0)

    def _failed(self, given: list[tuple[Outgoing, Item[Any]]], error: BaseException) -> None:
        pipeline, outbox, (first, _) = self._pipeline, self._outbox, given[0]
        if pipeline.observe is not None:
            pipeline.observe("failure", (first, error))
        attempts, now, wall = outbox.attempts + 1, pipeline.clock.now(), pipeline.clock.wall()
        judged = outbox.failed(now, error, pipeline.rng)
        if isinstance(judged, Dead):
            pipeline.outcomes.dead(first, judged.reason, judged.detail, attempts, error)
            del self._rows[0]
        elif isinstance(judged, Again) and judged.counted:
            pipeline.head.ledger.retries += len(given)
        words, since = storable(said(error)), self._status.since
        if since is None:
            trace = None if isinstance(error, UnavailableError) else error
            log.error("sink %s fails, %d items wait: %s", self.sink.name, self.status.waiting, words, exc_info=trace)
        next_at = wall + max(0.0, outbox.due - now)
        self._status = SinkStatus("failed", 0, words, wall if since is None else since, next_at)


async def page_of(pipeline: Pipeline, sink: str, after: str, limit: int) -> list[Outgoing]:
    """Up to `limit` committed rows of a sink with keys above `after`, in order."""
    begin = f"{sink}/"
    rows = await pipeline.engine.scan(pipeline.partition, "out", max(begin, after), limit)
    return list(_rows_of(rows, begin))


def _rows_of(rows: list[tuple[str, bytes]], begin: str) -> Iterator[Outgoing]:
    for key, body in rows:
        if not key.startswith(begin):
            return
        yield _outgoing(body)


async def clear_of_gone(pipeline: Pipeline) -> None:
    """What sinks that are gone from the code left in the outbox ends as dead letters, a page at a time."""
    for name in [name for name in pipeline.head.outgoing if name not in pipeline.definition.sinks]:
        after = ""
        while page := await page_of(pipeline, name, after, READ_ROWS):
            for row in page:
                pipeline.outcomes.unhandled(row)
            after = page[-1].key
            await pipeline.barrier()
            await asyncio.sleep(0)
