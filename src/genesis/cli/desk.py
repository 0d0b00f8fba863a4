"""Asking the owner of a store: requests are filed in the store, and the owner answers in the commit that did them.

When nobody owns the store and an application was named, this process is the owner for as long as the work takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

import msgspec

from genesis.app import App
from genesis.cli import moment
from genesis.cli.talk import UNREACHABLE, Failure, say
from genesis.cli.where import open_store
from genesis.config import Settings, engine_for
from genesis.core.errors import StoreError, StoreInUseError
from genesis.core.message import encode
from genesis.engines.outside import Outside
from genesis.runtime.life import Life
from genesis.runtime.operate import Request

T = TypeVar("T")
Answer = dict[str, Any]
LOOK_S = 0.005
"""How often an answer is looked for. A look costs some 20 us."""


class Desk:
    """Where requests are filed for the owner of a store."""

    def __init__(self, store: Outside, timeout_s: float) -> None:
        self._store, self._timeout_s = store, timeout_s

    def ask(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """File requests together, and give their answers in order.

        Raises:
            Failure: no answer came in time: what was not answered is withdrawn.
        """
        keys: list[str] = []
        try:
            for request in requests:
                keys.append(self._store.file_request(request.kind, encode(request)))
            while keys:
                answer = self._wait(keys[0])
                self._store.forget(keys.pop(0))
                yield answer
        except (TimeoutError, StoreError) as error:
            if type(error) not in (TimeoutError, StoreError):  # a plain StoreError: the owner keeps it locked
                raise
            outcome = "the request was withdrawn" if self._withdraw(keys) else "the request waits for it"
            raise Failure(f"{self._who()} did not answer: {error}; {outcome}", UNREACHABLE) from error
        finally:
            self._withdraw(keys)

    def _wait(self, key: str) -> Answer:
        until = moment.now() + self._timeout_s
        while (body := self._store.answer(key)) is None:
            if moment.now() > until:
                raise TimeoutError(f"{self._timeout_s:g} s are over")
            moment.sleep(LOOK_S)
        answer: Answer = msgspec.msgpack.decode(body)
        return answer

    def _withdraw(self, keys: list[str]) -> bool:
        """Take requests back that were not answered. Returns whether that could be done."""
        try:
            while keys:
                self._store.forget(keys.pop())
        except StoreError:
            return False
        return True

    def _who(self) -> str:
        pid, _, alive = self._store.owner() or (0, "", False)
        return f"process {pid}" if alive else f"process {pid}, which ended,"


def with_owner(store: Path, app: App | None, settings: Settings, timeout_s: float, work: Callable[[Desk], T]) -> T:
    """Do something at the desk of a store that has an owner: the process that runs, else this one.

    Raises:
        Failure: nobody runs, and no application was named.
    """
    if not _owned(store):
        if app is None:
            raise Failure(
                f"nobody runs {store}: start it with `genesis run MODULE:APP --store {store}`,"
                " or name its application with --app MODULE:APP to open it here",
                UNREACHABLE,
            )
        try:
            return asyncio.run(_as_owner(store, app, settings, timeout_s, work))
        except StoreInUseError:
            say(f"genesis: {store} was opened by another process this very moment: asking that one")
    return _at_desk(store, timeout_s, work)


def _at_desk(store: Path, timeout_s: float, work: Callable[[Desk], T]) -> T:
    with open_store(store) as outside:
        return work(Desk(outside, timeout_s))


def _owned(store: Path) -> bool:
    if not store.exists():
        return False
    with open_store(store) as outside:
        owner = outside.owner()
    return owner is not None and owner[2]


async def _as_owner(store: Path, app: App, settings: Settings, timeout_s: float, work: Callable[[Desk], T]) -> T:
    engine = engine_for(str(store), settings)
    settings.tune_policies()
    life = Life(app.definition(given=settings.app), engine, settings.node(), rng=SystemRandom(), sources=False, sinks=False)
    async with life.run():
        say(f"genesis: nobody runs {store}: opened here; handlers that begin meanwhile run to their end")
        return await _beside(lambda: _at_desk(store, timeout_s, work))


def _beside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run blocking work in a thread that nobody waits for when this process is told to end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is over: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=body, name="genesis-desk", daemon=True).start()
    return done
