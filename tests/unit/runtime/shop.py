"""A shop on a store that fails."""

from __future__ import annotations

import asyncio

from genesis import App, Context, Retry, on
from tests.unit.runtime.support import Alarm, Done, Job, Log

LOST, KEPT = "execute", "commit"
"""The commit fails before anything of it is stored, or when all of it is and nobody knows."""


def shop() -> tuple[App, type]:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=3, base_s=0.1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))

        @on(Alarm)
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            if ctx.attempt == 1:
                raise ConnectionError
            log.seen.append(alarm.n)

    @app.component(key="key", state=Log)
    class Book:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            await asyncio.sleep(0.002)
            log.seen.append(done.n)

    return app, Till
