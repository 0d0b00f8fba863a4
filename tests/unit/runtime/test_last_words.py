"""Whatever a handler raises, however it ends: its attempt has failed, and its slot lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from genesis import App, Context, Message, Reject, Retry, on
from tests.unit.runtime.support import Alarm, Disk, Job, Log, until


def endless(n: int) -> int:
    return endless(n + 1)


ENDS: dict[str, Callable[[], object]] = {
    "SystemExit": lambda: exec("raise SystemExit(1)"),
    "MemoryError": lambda: exec("raise MemoryError"),
    "GeneratorExit": lambda: exec("raise GeneratorExit"),
    "RecursionError": lambda: endless(0),
    "StopIteration": lambda: next(iter([])),
    "StopAsyncIteration": lambda: exec("raise StopAsyncIteration"),
    "CancelledError": lambda: exec("raise asyncio.CancelledError", {"asyncio": asyncio}),
    "ExceptionGroup": lambda: exec("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])"),
    "BaseExceptionGroup": lambda: exec("raise BaseExceptionGroup('two', [SystemExit(1), KeyError(2)])"),
    "AssertionError": lambda: exec("assert False"),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("when", ["at once", "after a wait", "in a def handler"])
async def test_whatever_a_handler_raises_ends_its_attempt_and_its_slot_goes_on(name: str, when: str) -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=0.1))
    class Till:
        if when == "in a def handler":

            @on(Job)
            def serve_in_a_thread(self, job: Job, log: Log, ctx: Context) -> None:
                log.seen.append(job.n)
                if job.n == 1:
                    ENDS[name]()

        else:

            @on(Job)
            async def serve(self, job: Job, log: Log, ctx: Context) -> None:
                log.seen.append(job.n)
                if when == "after a wait":
                    await asyncio.sleep(0.01)
                if job.n == 1:
                    ENDS[name]()

    async with app.simulate(errors="record") as sim:
        for n in range(10):
            await sim.send(Job("a", n % 3))
            await sim.send(Job("b", 2))
        await sim.settle()
        assert sim.state(Till, "a").seen == [0, 2, 0, 2, 0, 2, 0]
        assert len(sim.state(Till, "b").seen) == 10
        assert [letter.attempts for letter in sim.dead()] == [2, 2, 2]
        assert sim.now() - sim.dead()[-1].died_at < 5, "nobody had to wait for a timeout"
        assert not {letter.error for letter in sim.dead()} & {"HandlerTimeoutError", "InvalidStateError"}
        assert sim.ledger.imbalance() == ""


class Mute(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [Mute(), ValueError("\ud800"), Reject("\ud800"), ValueError("x" * 1_000_000)], ids=range(4))
async def test_an_error_that_is_hard_to_write_down_is_a_dead_letter_like_any_other(error: Exception) -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=2, base_s=0.1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 1:
                raise error
            log.seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in (1, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Till, "a").seen == [2]
        (letter,) = sim.dead()
        assert letter.error == type(error).__name__
        assert len(letter.detail) + len(letter.traceback) < 20_000


async def test_waiting_for_something_cancelled_is_a_failed_attempt() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if job.n == 1:
                gone.cancel()
                await gone
            if job.n == 2:
                asyncio.get_running_loop().call_later(0.1, gone.cancel)
                await gone
            log.seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in (0, 1, 2, 3):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Till, "a").seen == [0, 3]
        assert len(sim.dead()) == 2


async def test_a_payload_that_does_not_fit_its_class_any_more_is_a_dead_letter() -> None:
    old, new, seen = App("shop"), App("shop"), list[object]()

    @old.component(key="key", retry=Retry(attempts=3, base_s=5))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            raise ConnectionError

    class Job2(Message, type="job"):
        key: str = "a"
        n: str = ""

    @new.component(key="key", name="till")
    class Till2:
        @on(Job2)
        async def serve(self, job: Job2, ctx: Context) -> None:
            seen.append(job)

    disk = Disk()
    async with disk.node(old) as node:
        await node.send(Job("a", 1))
        await until(lambda: node.status().ledger.in_pending == 1)
    async with disk.node(new) as node:
        await until(lambda: node.status().ledger.dead == 1, limit_s=200)
        (letter,) = await disk.dead()
        assert (letter.reason, letter.attempts) == ("undecodable", 2)
        assert letter.delivery.payload == b"\x82\xa3key\xa1a\xa1n\x01"
        assert node.status().imbalance == ""
    assert seen == []


async def test_an_event_whose_handler_is_gone_from_the_code_is_a_dead_letter_unhandled() -> None:
    old, new = App("shop"), App("shop")

    @old.component(key="key", retry=Retry(base_s=5))
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            raise ConnectionError

    @new.component
    class Other:
        @on(Alarm)
        async def ring(self, alarm: Alarm, ctx: Context) -> None:
            pass

    disk = Disk()
    async with disk.node(old) as node:
        await node.send(Job())
        await until(lambda: node.status().ledger.in_pending == 1)
    async with disk.node(new) as node:
        await until(lambda: node.status().ledger.dead == 1, limit_s=200)
        (letter,) = await disk.dead()
        assert letter.reason == "unhandled"
        assert "has no handler till:job" in letter.detail


async def test_handler_errors_come_out_of_settle_unless_they_are_recorded() -> None:
    app = App("shop")

    @app.component
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            raise ConnectionError("no paper")

    async with app.simulate() as sim:
        await sim.send(Job())
        with pytest.raises(ConnectionError, match="no paper"):
            await sim.settle()
