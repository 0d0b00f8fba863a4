"""The rules of the specification as they are written, as a policy of its own: what Genesis is measured beside.

It takes each rule at its word: what may run in parallel starts at once, whatever completes first is the result, errors too;
failures are counted and never forgotten but by a change of state; open times do not grow.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from genesis.layers.mitigation.attempts import as_written_plan
from genesis.layers.mitigation.timeouts import timeout_as_written_s

FAILURES, SUCCESSES = 5, 3
RECOVERY_S, ULTRA_S = 5.0, 2.0
BASES_S = {"RESILIENT": 1.5, "ULTRA_RESILIENT": 3.0}
LATENCIES = 10
FACTOR, ABANDON_BELOW = 0.8, 0.3


class RefusedError(Exception):
    """The circuit is open."""


class AsWritten:
    """One dependency, by the specification's rules. Numbers that it leaves open are those of our defaults."""

    def __init__(self, attempts: int = 3, expected_s: float | None = None) -> None:
        self.state, self.openings, self.calls = "CLOSED", 0, 0
        self._attempts, self._expected_s = attempts, expected_s
        self._failures, self._successes, self._score, self._timeouts = 0.0, 0, 0, 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._since = 0.0
        self._passed = 0
        self._now = asyncio.get_running_loop().time

    async def call(self, work: Callable[[], Awaitable[Any]], fallback: Callable[[], Awaitable[Any]] | None = None) -> Any:
        """Try until the attempts are used up or success is improbable; no wait between them is written down."""
        probability = 1.0
        for number in range(1, self._attempts + 1):
            try:
                return await self._once(work, fallback)
            except RefusedError:
                raise
            except Exception:
                probability *= FACTOR
                if number == self._attempts or probability < ABANDON_BELOW:
                    raise
        raise AssertionError

    async def _once(self, work: Callable[[], Awaitable[Any]], fallback: Callable[[], Awaitable[Any]] | None) -> Any:
        self._admit()
        plan = as_written_plan(self.state, self._expected_s, fallback is not None)
        timeout_s = timeout_as_written_s(BASES_S.get(self.state, 1.0), self._expected_s)
        loop, began = asyncio.get_running_loop(), self._now()
        tasks = [loop.create_task(_of(work)) for _ in range(1 + len(plan.copies))]
        self.calls += len(tasks)
        if plan.fallback_after_s is not None and fallback is not None:
            tasks.append(loop.create_task(_of(fallback)))
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if not done:
            self._failed(timeout=True)
            raise TimeoutError
        errors = [task.exception() for task in done]  # of all: none may be reported as never retrieved
        first = next(i for i, task in enumerate(tasks) if task in done)
        error = errors[list(done).index(tasks[first])]
        if error is not None:
            self._failed(timeout=False)
            raise error
        self._succeeded(self._now() - began)
        return tasks[first].result()

    def _admit(self) -> None:
        if self.state == "OPEN" and self._now() - self._since >= RECOVERY_S:
            self._go("HALF_OPEN")
        if self.state == "OPEN":
            raise RefusedError
        if self.state == "HALF_OPEN":
            if self._passed >= SUCCESSES:
                raise RefusedError
            self._passed += 1

    def _failed(self, *, timeout: bool) -> None:
        self._successes = 0
        self._failures += 0.5 if timeout else 1
        self._score += 1 if timeout else 2
        self._timeouts += timeout
        gradual = self._timeouts > 0 and self._score >= 3 and len(self._latencies) >= 3
        if self.state == "HALF_OPEN" or (self._failures >= FAILURES and not (gradual and self.state == "CLOSED")):
            self._go("OPEN")
        elif gradual and self.state == "CLOSED":
            self._go("RESILIENT")

    def _succeeded(self, latency_s: float) -> None:
        self._successes += 1
        self._latencies.append(latency_s)
        average_s = sum(self._latencies) / len(self._latencies)
        if self.state == "HALF_OPEN":
            if self._successes >= SUCCESSES:
                self._go("CLOSED")
        elif average_s > ULTRA_S and len(self._latencies) >= 3:
            if self.state != "ULTRA_RESILIENT":
                self._go("ULTRA_RESILIENT")
        elif self._successes >= SUCCESSES and self.state != "CLOSED":
            self._go("RESILIENT" if self.state == "ULTRA_RESILIENT" else "CLOSED")

    def _go(self, state: str) -> None:
        self.openings += state == "OPEN" and self.state != "OPEN"
        self.state, self._since, self._passed, self._successes = state, self._now(), 0, 0
        if state == "CLOSED":
            self._failures, self._score, self._timeouts = 0.0, 0, 0


async def _of(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()
