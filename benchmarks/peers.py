"""Libraries that protect calls in Python, as their manuals show them: what a call costs beside ours."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Function = Callable[[], Awaitable[Any]]
Protect = Callable[[Function], Function]


def timeout(work: Function) -> Function:
    """`asyncio.timeout`, the raw limit of everything that keeps a time."""

    async def call() -> Any:
        async with asyncio.timeout(1.0):
            return await work()

    return call


# --- circuits -------------------------------------------------------------------------------------------------------------


def circuitbreaker(work: Function) -> Function:
    from circuitbreaker import circuit

    return circuit(failure_threshold=5)(work)


def hyx(work: Function) -> Function:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker(exceptions=(Exception,), failure_threshold=5, recovery_time_secs=1)(work)


def aiobreaker(work: Function) -> Function:
    from aiobreaker import CircuitBreaker

    breaker = CircuitBreaker(fail_max=5)

    async def call() -> Any:
        return await breaker.call_async(work)

    return call


def interlock(work: Function) -> Function:
    from interlock import CircuitBreaker

    return CircuitBreaker(name="peer")(work)


def pyresilience(work: Function) -> Function:
    from pyresilience import CircuitBreakerConfig, resilient

    return resilient(circuit_breaker=CircuitBreakerConfig())(work)


CIRCUITS: tuple[Protect, ...] = (circuitbreaker, hyx, aiobreaker, interlock, pyresilience)


# --- retries, and several at once -----------------------------------------------------------------------------------------


def tenacity(work: Function) -> Function:
    from tenacity import retry, stop_after_attempt

    return retry(stop=stop_after_attempt(3))(work)


def stamina(work: Function) -> Function:
    import stamina as library

    return library.retry(on=ValueError, attempts=3)(work)


def pyresilience_whole(work: Function) -> Function:
    """Circuit, retry and timeout."""
    from pyresilience import CircuitBreakerConfig, RetryConfig, TimeoutConfig, resilient

    circuit, retry, limit = CircuitBreakerConfig(), RetryConfig(max_attempts=3), TimeoutConfig(seconds=1.0)
    return resilient(circuit_breaker=circuit, retry=retry, timeout=limit)(work)


OTHERS: tuple[Protect, ...] = (tenacity, stamina, pyresilience_whole)
