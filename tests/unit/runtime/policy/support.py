"""A dependency that does what it is told, policies for it, and the ways into each state. All in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from genesis import CircuitState, Policy
from genesis.core.signals import AttemptEnded, CircuitChanged, Signal, StepTaken

_numbers = count(1)


class DownError(Exception):
    """What a dependency raises when it fails."""


@dataclass(frozen=True)
class After:
    """So many seconds later."""

    seconds: float
    then: Any = "late"


@dataclass(frozen=True)
class Deaf:
    """Does not end when it is cancelled, but so many seconds later."""

    seconds: float
    clean_up_s: float
    then: Any = "deaf"


HANG = After(1e9)
DOWN = DownError("down")


class Dependency:
    """Each call does the next step of a script, and the last one for ever: give a value, raise an error, take time."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script) or ["good"]
        self.calls = self.running = self.most = self.cancelled = 0
        self.began: list[float] = []
        self.tasks: list[asyncio.Task[Any] | None] = []

    async def call(self, *_: Any) -> Any:
        step = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.began.append(asyncio.get_running_loop().time())
        self.tasks.append(asyncio.current_task())
        try:
            return await self._do(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _do(self, step: Any) -> Any:
        if isinstance(step, After):
            await asyncio.sleep(step.seconds)
            step = step.then
        elif isinstance(step, Deaf):
            try:
                await asyncio.sleep(step.seconds)
            except asyncio.CancelledError:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(step.clean_up_s)
            step = step.then
        if isinstance(step, BaseException):
            raise step
        return step

    def then(self, *script: Any) -> None:
        """Another script, from the next call on."""
        self.script, self.calls = list(script), 0


def policy(**settings: Any) -> Policy:
    """One that opens at three failures in a row; what would blur the picture is off unless asked for."""
    plain = {"failure_threshold": 3.0, "attempts": 1, "hedges": 0, "abandon_below": 0.0, "ramp": 0, "success_threshold": 1}
    return Policy(f"dependency-{next(_numbers)}", **(plain | settings))


async def tried(work: Coroutine[Any, Any, Any]) -> Any:
    """The result, or the error."""
    try:
        return await work
    except Exception as error:
        return error


async def at_once(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results and errors of calls that begin together."""
    return list(await asyncio.gather(*works, return_exceptions=True))


async def fail(guarded: Policy, times: int = 1, error: Exception = DOWN) -> list[Any]:
    """Calls that fail, one after the other."""
    return [await tried(guarded.call(Dependency(error).call)) for _ in range(times)]


async def succeed(guarded: Policy, times: int = 1) -> None:
    """Calls that are good, one after the other."""
    for _ in range(times):
        assert await guarded.call(Dependency("good").call) == "good"


async def opened(**settings: Any) -> Policy:
    """A policy that is OPEN, for five seconds unless set otherwise."""
    guarded = policy(**settings)
    await fail(guarded, 3)
    assert guarded.state is CircuitState.OPEN
    return guarded


async def half_open(**settings: Any) -> Policy:
    """A policy whose open time is over: the next call is a probe."""
    guarded = await opened(**settings)
    await asyncio.sleep(5.0)
    return guarded


async def learned(guarded: Policy, seconds: float = 0.1, calls: int = 400) -> None:
    """So many calls have taken so long: what is usual is known from now on."""
    usual = guarded.protect(idempotent=True, attempts=1)
    await at_once(*(usual.call(Dependency(After(seconds)).call) for _ in range(calls)))
    await asyncio.sleep(1.1)
    await usual.call(Dependency(After(seconds)).call)
    assert guarded.view()["p95_s"] is not None


@dataclass
class Heard:
    """What a policy told."""

    signals: list[Signal] = field(default_factory=list)

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(one.old, one.new) for one in self.signals if isinstance(one, CircuitChanged)]

    @property
    def attempts(self) -> list[AttemptEnded]:
        return [one for one in self.signals if isinstance(one, AttemptEnded)]

    @property
    def steps(self) -> list[str]:
        return [str(one.step) for one in self.signals if isinstance(one, StepTaken)]


def hear(guarded: Policy) -> Heard:
    """Listen to it."""
    heard = Heard()
    guarded.listen(heard.signals.append)
    return heard


def others() -> set[asyncio.Task[Any]]:
    """Tasks beside the test's own."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """In a task of its own."""
    return asyncio.get_running_loop().create_task(work)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """It was cancelled, and says so."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


def counter(guarded: Policy) -> Callable[[str], int]:
    """How often a thing happened."""
    return lambda what: guarded.counted().get(what, 0)
