"""Questions and answers: an answer leaves after the commit of the delivery that gave it, and is kept for the horizon.

In: a request with an id and a deadline. Out: its answer. Asking again with the same id gives the same answer; a read-only
request is answered from committed state, without a lock and without a trace.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from genesis.core.errors import (
    AskCycleError,
    AskError,
    AskFailedError,
    DeadlineExceededError,
    DefinitionError,
    HandlerTimeoutError,
    InvalidEventError,
)
from genesis.core.event import Delivery, Kind
from genesis.core.message import UNFIT, Request, encode, type_of
from genesis.core.ports import Batch
from genesis.runtime.component import Route
from genesis.runtime.context import Context, handed_down
from genesis.runtime.log import logs_as
from genesis.runtime.outcome import ask_key
from genesis.runtime.scope import DEADLINE, SPARE, deadline, remaining_s

if TYPE_CHECKING:
    from genesis.runtime.pipeline import Pipeline

A = TypeVar("A")
CHAIN = "genesis-ask-chain"
"""Header with the addresses that wait in a chain of asks, one a line."""
CHAIN_MAX = 32
"""Longest chain of asks: past it somebody asks in circles through stateless components."""
_unpack = msgspec.msgpack.Decoder(tuple[bool, msgspec.Raw]).decode
_unpack_kept = msgspec.msgpack.Decoder(tuple[float, str, bytes]).decode


class _Waiter:
    """Somebody who waits for the answer to a question of one type."""

    def __init__(self, type: str) -> None:
        self._type = type
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def tell(self, type: str, body: bytes) -> None:
        """An answer is there. Of a question of another type, it is not what was asked."""
        if type != self._type:
            self.fail(InvalidEventError(f"the id of this {self._type} belongs to a {type}: ask with an id of its own"))
        elif not self.answer.done():
            self.answer.set_result(body)

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # retrieved: one that nobody awaits any more is not worth a warning


class Asks:
    """The questions of one partition that wait, and the answers that are kept."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._waiting: dict[str, list[_Waiter]] = {}
        self._kept: deque[tuple[float, str]] = deque()
        self.in_handlers = 0
        """Handlers that wait for an answer: each may need another slot to get it."""
        self.changed: Callable[[], None] = lambda: None
        self.instances: dict[str, Any] = {}

    async def ask(
        self,
        request: Request[A],
        *,
        ask_id: str | None,
        deadline_s: float,
        source: str | None = None,
        asker: Delivery | None = None,
    ) -> A:
        """Ask and wait. Raises AskError (one of its kinds) or RefusedError."""
        pipeline = self._pipeline
        route = self._route(request)
        address = route.address_of(request)
        headers = self._chained(route, address, asker)
        deadline_s = min(deadline_s, remaining_s())
        if deadline_s <= 0:
            raise DeadlineExceededError(f"{route.name} was not asked: the deadline was over")
        headers[DEADLINE] = repr(pipeline.clock.wall() + deadline_s)
        self.in_handlers += asker is not None
        self.changed()
        try:
            async with asyncio.timeout(deadline_s):
                if route.read_only:
                    with deadline(deadline_s):
                        return await self._answer_now(route, request, address)  # type: ignore[no-any-return]
                return await self._answer_later(  # type: ignore[no-any-return]
                    route, request, ask_id, source, headers, begun=asker is not None
                )
        except TimeoutError:
            raise DeadlineExceededError(f"{route.name} did not answer in {deadline_s:.3f} s") from None
        finally:
            self.in_handlers -= asker is not None

    async def _answer_later(
        self,
        route: Route,
        request: Request[Any],
        ask_id: str | None,
        source: str | None,
        headers: dict[str, str],
        *,
        begun: bool,
    ) -> Any:
        pipeline = self._pipeline
        ask_id = ask_id or pipeline.gate.new_id()
        key = ask_key(source or pipeline.gate.source, ask_id)
        waiter = _Waiter(route.codec.type)
        self._waiting.setdefault(key, []).append(waiter)
        try:
            offer = pipeline.gate.offer(request, id=ask_id, source=source, headers=headers, begun=begun)
            accepted = pipeline.accept(offer)
            if accepted is not None:
                await asyncio.shield(accepted)
            if offer.receipt.duplicate:
                kept = (await pipeline.engine.load(pipeline.partition, "reply", [key])).get(key)
                if kept is not None:
                    waiter.tell(*_unpack_kept(kept)[1:])
            good, body = _unpack(await waiter.answer)
        finally:
            waiters = self._waiting.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(key, None)
        if good:
            return msgspec.msgpack.decode(body, type=route.answer)
        why = msgspec.msgpack.decode(body, type=str)
        raise AskFailedError(f"{route.name}: {why}", reason=why.partition(":")[0])

    async def _answer_now(self, route: Route, request: Request[Any], address: str) -> Any:
        pipeline = self._pipeline
        _, seen = route.codec.checked(request)
        delivery = Delivery(
            route.name, address, pipeline.gate.new_id(), pipeline.gate.source, b"", pipeline.clock.wall(), Kind.EXTERNAL
        )
        context = Context(pipeline, route, delivery)
        arguments = [seen, context]
        codec = route.component.state_codec
        if codec is not None:
            row = pipeline.overlay.committed(address)
            if row is None:
                rows = await pipeline.engine.load_state(pipeline.partition, [address])
                row = rows.get(address, (0, b""))
            arguments.insert(1, codec.decode(*row) if row[0] else codec.state())
        method = route.method_of(self.instances[route.component.name])
        limit = asyncio.timeout(route.timeout_s)
        try:
            async with limit:
                with logs_as(context), deadline(inf if route.timeout_s is None else (1 - SPARE) * route.timeout_s):
                    result = await method(*arguments) if route.is_async else method(*arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise AskFailedError(f"{route.name}: {error!r}") from error
            raise AskFailedError(str(HandlerTimeoutError(f"{route.name} took over {route.timeout_s} s"))) from error
        except AskError:
            raise
        except Exception as error:
            raise AskFailedError(f"{route.name}: {type(error).__name__}: {error}") from error
        try:
            return msgspec.msgpack.decode(encode(result), type=route.answer)
        except UNFIT as error:
            raise AskFailedError(f"{route.name} gives another answer than its request promises: {error}") from error

    def _route(self, request: Request[Any]) -> Route:
        if not isinstance(request, Request):
            raise DefinitionError(
                f"{type(request).__name__} is no request: it has no answer",
                fix=f'class {type(request).__name__}(Request[int], type="..."):',
            )
        return self._pipeline.definition.routes_of(type_of(type(request)))[0]

    def _chained(self, route: Route, address: str, asker: Delivery | None) -> dict[str, str]:
        if asker is None:
            return {}
        above = (asker.headers or {}).get(CHAIN)
        chain = [asker.address] if above is None else [*above.split("\n"), asker.address]
        if address and address in chain and not route.read_only:
            raise AskCycleError(
                f"{' -> '.join(a or '(stateless)' for a in chain)} -> {address}: {address} waits for this answer itself"
            )
        if len(chain) > CHAIN_MAX:
            raise AskCycleError(f"a chain of {len(chain)} asks ends here: {route.name} asks in circles")
        return {**(handed_down(asker.headers) or {}), CHAIN: "\n".join(chain)}

    # --- the other side ---------------------------------------------------------------------------------------------

    def keep(self, batch: Batch, replies: list[tuple[str, str, bytes]]) -> None:
        """Store the answers of a group, and drop those that fell out of the horizon."""
        wall = self._pipeline.clock.wall()
        for key, type, body in replies:
            batch.put("reply", key, encode((wall, type, body)))
            self._kept.append((wall, key))
        oldest = wall - self._pipeline.horizon.keep_s
        for _ in range(2 * len(replies)):
            if not self._kept or (self._kept[0][0] > oldest and len(self._kept) <= self._pipeline.horizon.keep_ids):
                break
            gone = self._kept.popleft()[1]
            if gone not in batch.tables["reply"]:
                batch.put("reply", gone, None)

    def restore(self, rows: list[tuple[str, bytes]]) -> None:
        """The answers that the store keeps."""
        self._kept.extend(sorted((_unpack_kept(body)[0], key) for key, body in rows))

    def answer(self, key: str, type: str, body: bytes) -> None:
        """An answer to a question of this type was committed."""
        for waiter in self._waiting.pop(key, ()):
            waiter.tell(type, body)

    def give_up(self, error: BaseException) -> None:
        """The partition was dropped: whoever waits may ask again, with the same id."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.fail(AskFailedError(f"the store failed ({error}): ask again with the same id", reason="store"))
        self._waiting.clear()
