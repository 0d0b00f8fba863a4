"""Calls with copies that are cancelled: nothing may be left of them. And how long a loser that disobeys holds the winner."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from benchmarks.harness import Figure, Options, Result
from benchmarks.virtual import Values, in_virtual_time, over_seeds
from genesis import Policy

CALLS = 10_000
USUAL_S, LONG_S = 0.02, 0.2
STUBBORN_S = 0.5
FIGURES = (
    Figure(
        "live_tasks",
        "tasks",
        "0",
        "Tasks that are left of 10,000 calls with copies, each cut off by the caller's `asyncio.timeout` at any moment "
        "before it has ended; one attempt in four fails in the end. Virtual time.",
    ),
    Figure("cancelling", "", "0", "Highest `cancelling()` of the caller's task after such a call."),
    Figure("never_retrieved", "", "0", "Errors that the loop was told of in the meantime, once all garbage is collected."),
    Figure("copies", "", "", "Copies that were under way in them: without any there would be nothing to leak."),
    Figure(
        "winner_s",
        "s",
        "<= 0.001",
        "From the end of a copy to the end of its call, while the first attempt disobeys its cancellation for 0.5 s, in "
        "real time. Raw: waiting for the loser, as `asyncio.gather` after `cancel()` or a TaskGroup does.",
    ),
    Figure("winner_ticks", "turns", "<= 1", "The same in turns of the loop. Raw: `asyncio.wait` for the first of them."),
)


def _policy(name: str) -> Policy:
    return Policy(name, hedge_share=1.0, budget_share=10.0)


async def _learn(policy: Policy) -> Any:
    """An operation of which is known how long it takes, so that copies are planned."""
    operation = policy.protect(idempotent=True)
    for _ in range(40):
        await operation.call(asyncio.sleep, USUAL_S)
    return operation


async def cancelled_calls(seed: int, calls: int) -> Values:
    loop, rng, told = asyncio.get_running_loop(), Random(seed), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: told.append(context))
    policy = _policy(f"leaks-{seed}")
    operation = await _learn(policy)
    caller, highest = asyncio.current_task(), 0
    assert caller is not None

    async def work() -> None:
        try:
            await asyncio.sleep(rng.choice((USUAL_S / 2, LONG_S)))
        finally:
            if rng.random() < 0.25:
                raise ValueError("while it was cancelled")

    for _ in range(calls):
        with suppress(TimeoutError, ValueError):
            async with asyncio.timeout(rng.uniform(0.0, 3 * USUAL_S)):
                await operation.call(work)
        highest = max(highest, caller.cancelling())
    await asyncio.sleep(2 * LONG_S)
    live = len(asyncio.all_tasks()) - 1
    gc.collect()
    await asyncio.sleep(0)
    copies = policy.counts["hedged"]
    return {"live_tasks": live, "cancelling": highest, "never_retrieved": len(told), "copies": copies}


# --- the winner -----------------------------------------------------------------------------------------------------------


class Pair:
    """The first attempt hangs and does not obey; the second one ends soon, and says when."""

    def __init__(self) -> None:
        self.made, self.turn, self.ended_turn, self.ended_at = 0, 0, 0, 0.0
        self.loop = asyncio.get_running_loop()
        self._counting = True
        self._count()

    def _count(self) -> None:
        self.turn += 1
        if self._counting:
            self.loop.call_soon(self._count)

    async def work(self) -> None:
        self.made += 1
        if self.made == 1:
            try:
                await asyncio.sleep(10.0)
            except asyncio.CancelledError:
                await asyncio.sleep(STUBBORN_S)
                raise
        await asyncio.sleep(USUAL_S)
        self.ended_turn, self.ended_at = self.turn, self.loop.time()

    def over(self) -> dict[str, float]:
        self._counting = False
        return {"winner_s": self.loop.time() - self.ended_at, "winner_ticks": self.turn - self.ended_turn}


async def winner(seed: int) -> Values:
    operation = await _learn(_policy(f"winner-{seed}"))
    pair = Pair()
    await operation.call(pair.work)
    found = pair.over()
    assert pair.made == 2
    await asyncio.sleep(1.1 * STUBBORN_S)
    return found


async def winner_by_hand(*, waits: bool) -> Values:
    """Both at once; `waits`: for the loser too."""
    pair = Pair()
    tasks = [pair.loop.create_task(pair.work()) for _ in range(2)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    tasks[0].cancel()
    if waits:
        await asyncio.gather(*tasks, return_exceptions=True)
    found = pair.over()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def leaks(seed: int, calls: int = CALLS) -> tuple[Values, Values]:
    ours = in_virtual_time(cancelled_calls(seed, calls)) | asyncio.run(winner(seed))
    raw_s, raw_ticks = (asyncio.run(winner_by_hand(waits=waits)) for waits in (True, False))
    return ours, {"winner_s": raw_s["winner_s"], "winner_ticks": raw_ticks["winner_ticks"]}


def measure(options: Options) -> Iterator[Result]:
    yield from over_seeds("leaks", FIGURES, options.runs, partial(leaks, calls=max(100, int(CALLS * options.scale))))
