"""Plain functions as handlers, in real threads."""

from __future__ import annotations

import threading

from genesis import (
    App,
    Context,
    Retry,
    Settings,
    on,
)
from genesis.core.errors import ContextClosedError
from tests.unit.runtime.support import Done, Job, Log, in_real_time, until


@in_real_time
async def test_plain_functions_run_side_by_side_in_threads_and_their_keys_in_order() -> None:
    app, meet, threads = App("shop"), threading.Barrier(4, timeout=30), set[int]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        def serve(self, job: Job, log: Log, ctx: Context) -> None:
            threads.add(threading.get_ident())
            meet.wait()  # four keys are here at the same time, or this never ends
            log.seen.append(job.n)
            ctx.emit(Done(job.key, job.n))

    async with app.running(store="memory:", settings=Settings(threads=4)) as node:
        for n in range(5):
            for key in "abcd":
                await node.send(Job(key, n))
        await until(lambda: node.status().ledger.done == 20)
        for key in "abcd":
            assert (await node.state(Till, key)).seen == list(range(5))
        assert threading.get_ident() not in threads
        assert len(threads) == 4


@in_real_time
async def test_a_plain_function_that_hangs_is_given_up_and_what_it_does_later_does_not_count() -> None:
    app, release, found = App("shop"), threading.Event(), list[str]()

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=0.1)
        def serve(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)
            if job.n != 1:
                return
            release.wait(30)
            for call in (lambda: ctx.emit(Done()), lambda: ctx.after(1, Done()), lambda: ctx.cancel("x")):
                try:
                    call()
                except ContextClosedError:
                    found.append("closed")

    async with app.running(store="memory:") as node:
        for n in (1, 2):
            await node.send(Job("a", n))
        await until(lambda: node.status().ledger.done == 1)
        assert node.status().ledger.dead == 1
        release.set()
        await until(lambda: len(found) == 3)
        assert (await node.state(Till, "a")).seen == [2]
        assert found == ["closed"] * 3
        assert node.status().ledger.emitted == 0


@in_real_time
async def test_a_plain_function_that_raises_what_a_future_cannot_carry_fails_at_once() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=None)
        def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 0:
                next(iter([]))
            if job.n == 1:
                raise GeneratorExit
            if job.n == 2:
                raise SystemExit(3)
            log.seen.append(job.n)

    async with app.running(store="memory:") as node:
        for n in range(4):
            await node.send(Job("a", n))
        await until(lambda: node.status().ledger.done == 1)
        assert node.status().ledger.dead == 3
        assert (await node.state(Till, "a")).seen == [3]


@in_real_time
async def test_plain_functions_that_hang_take_no_attempts_from_the_others() -> None:
    app, release, ran = App("shop"), threading.Event(), list[int]()

    @app.component(key="n", retry=Retry(attempts=1))
    class Till:
        @on(Job, timeout=1.0)
        def serve(self, job: Job, ctx: Context) -> None:
            ran.append(job.n)
            if job.n < 2:
                release.wait(30)

    try:
        async with app.running(store="memory:", settings=Settings(threads=2)) as node:
            await node.send_many([Job(n=n) for n in range(10)])
            await until(lambda: node.status().ledger.accepted and not node.status().ledger.waiting)
            assert sorted(ran) == list(range(10))
            assert node.status().ledger.dead == 2
    finally:
        release.set()
