"""Behaviour that a user would expect and that needs a decision first. Each test fails today, and says what is missing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from genesis import App, Context, Retry, Settings, on
from tests.unit.runtime.support import Job, until


@pytest.mark.xfail(
    strict=True,
    reason="a plain function that hangs keeps its thread after it was given up: with all `threads` gone, later ones wait in "
    "the pool, and that wait counts as their `timeout` and as their attempts. A pool whose lost threads are replaced, or a "
    "limit that begins when the function does, would keep them from dying unrun.",
)
def test_plain_functions_that_hang_take_no_attempts_from_the_others() -> None:
    app, release, ran = App("shop"), threading.Event(), list[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=0.05)
        def serve(self, job: Job, ctx: Context) -> None:
            ran.append(job.n)
            if job.n < 2:
                release.wait(30)

    async def hang_and_go_on() -> None:
        try:
            async with app.running(store="memory:", settings=Settings(threads=2)) as node:
                await node.send_many([Job(n=n) for n in range(10)])
                await until(lambda: node.status().ledger.accepted and not node.status().ledger.waiting)
                assert sorted(ran) == list(range(10))
        finally:
            release.set()

    asyncio.run(hang_and_go_on())
