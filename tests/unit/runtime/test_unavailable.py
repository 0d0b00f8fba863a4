"""A dependency that is down: the work that needs it waits, without counting attempts and without standing in anyone's way."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, Message, Node, Retry, Settings, UnavailableError, on
from tests.unit.runtime.support import Alarm, Done, Job, Log, inside

HOUR_S = 3600.0


class Offer(Message, type="offer", expires_after=5.0):
    key: str = "a"
    n: int = 0


class Bank:
    """Something outside that is up or down, and counts how it is called."""

    def __init__(self, *, up: bool = False, retry_after_s: float = 10.0) -> None:
        self.up, self.retry_after_s = up, retry_after_s
        self.calls: list[float] = []
        self.inside, self.most = 0, 0

    async def charge(self, now: float) -> None:
        self.calls.append(now)
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)
        self.inside -= 1
        if not self.up:
            raise UnavailableError("bank", self.retry_after_s)


def shop(bank: Bank, *, keyed: bool = False) -> tuple[App, list[int], list[int]]:
    """An application with a handler that needs the bank, and one that does not."""
    app, charged, noted = App("shop"), list[int](), list[int]()

    @app.component(key="n" if keyed else None, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def charge(self, job: Job, ctx: Context) -> None:
            assert ctx.attempt == 1, "waiting counts no attempt"
            await bank.charge(ctx.now())
            charged.append(job.n)

    @app.component(key="n" if keyed else None)
    class Book:
        @on(Done)
        async def note(self, done: Done, ctx: Context) -> None:
            noted.append(done.n)

    return app, charged, noted


@pytest.mark.parametrize("keyed", [False, True])
async def test_an_hour_without_the_dependency_means_waiting_work_and_no_dead_letters(keyed: bool) -> None:
    bank = Bank()
    app, charged, noted = shop(bank, keyed=keyed)
    async with app.simulate(errors="record") as sim:
        for n in range(300):
            await sim.send(Job(n=n))
            await sim.send(Done(n=n))
        await sim.advance(HOUR_S)
        assert charged == []
        assert len(noted) == 300, "the other handler of the lane goes on"
        assert (sim.ledger.dead, sim.ledger.retries, sim.ledger.waiting) == (0, 0, 300)
        assert len(bank.calls) <= 64 + HOUR_S / 10, "one probe at a time, not before its time"
        bank.up = True
        await sim.settle()
        assert sorted(charged) == list(range(300))
        assert (sim.ledger.dead, sim.ledger.done) == (0, 600)
        assert sim.ledger.imbalance() == ""


@pytest.mark.parametrize("keyed", [False, True])
async def test_with_tiny_windows_what_waits_for_the_dependency_does_not_stand_in_the_way_of_others(keyed: bool) -> None:
    bank = Bank()
    app, charged, noted = shop(bank, keyed=keyed)
    async with app.simulate(errors="record", settings=Settings(window_bytes=4000)) as sim:
        for n in range(200):
            await sim.send(Job(n=n))
        for n in range(50):
            await sim.send(Done(n=n))
        await sim.advance(60)
        assert sorted(noted) == list(range(50))
        await sim.advance(HOUR_S)
        for n in range(50, 100):
            await sim.send(Done(n=n))
        await sim.advance(60)
        assert sorted(noted) == list(range(100))
        bank.up = True
        await sim.settle()
        assert sorted(charged) == list(range(200))
        assert sim.ledger.imbalance() == ""


async def test_the_handler_is_probed_one_delivery_at_a_time_after_the_time_that_it_asked_for() -> None:
    bank = Bank(retry_after_s=20.0)
    app, charged, _ = shop(bank)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=0))
        await sim.advance(1)
        for n in range(1, 100):
            await sim.send(Job(n=n))
        await sim.advance(300)
        assert bank.most == 1
        waits = [after - before for before, after in zip(bank.calls, bank.calls[1:], strict=False)]
        assert all(20.0 <= wait <= 31.0 for wait in waits), "the time asked for, and up to half of it more"
        assert len(waits) >= 9
        status = await inside(sim, _status)
        assert list(status.paused) == ["till:job"]
        assert 0 < status.paused["till:job"] <= 30
        bank.up = True
        await sim.settle()
        assert sorted(charged) == list(range(100))
        assert (await inside(sim, _status)).paused == {}


async def test_a_key_keeps_its_order_while_its_dependency_is_down() -> None:
    bank, app = Bank(), App("shop")

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def charge(self, job: Job, log: Log, ctx: Context) -> None:
            await bank.charge(ctx.now())
            log.seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in range(100):
            await sim.send(Job("abc"[n % 3], n))
            if n % 10 == 0:
                await sim.advance(7)
        bank.up = True
        await sim.settle()
        for offset, key in enumerate("abc"):
            assert sim.state(Till, key).seen == list(range(offset, 100, 3))


async def test_the_pause_is_for_one_handler_and_not_for_its_component() -> None:
    bank, app, rung = Bank(), App("shop"), list[int]()

    @app.component
    class Till:
        @on(Job)
        async def charge(self, job: Job, ctx: Context) -> None:
            await bank.charge(ctx.now())

        @on(Alarm)
        async def ring(self, alarm: Alarm, ctx: Context) -> None:
            rung.append(alarm.n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job())
        await sim.advance(1)
        await sim.send(Alarm(n=1))
        await sim.advance(1)
        assert rung == [1]


async def test_a_probe_that_fails_for_a_reason_of_its_own_opens_the_way_for_the_others() -> None:
    app, down, charged = App("shop"), True, list[int]()

    @app.component(retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def charge(self, job: Job, ctx: Context) -> None:
            if down:
                raise UnavailableError("bank", 10.0)
            if job.n == 0:
                raise ValueError("bad card")
            charged.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in range(20):
            await sim.send(Job(n=n))
        await sim.advance(1)
        down = False
        await sim.settle()
        assert sorted(charged) == list(range(1, 20))
        assert sim.ledger.dead == 1


async def test_a_probe_that_takes_too_long_opens_the_way_for_the_others() -> None:
    app, state, charged = App("shop"), "down", list[int]()

    @app.component(retry=Retry(attempts=2, base_s=1))
    class Till:
        @on(Job, timeout=2.0)
        async def charge(self, job: Job, ctx: Context) -> None:
            if state == "down":
                raise UnavailableError("bank", 10.0)
            if state == "hangs":
                await asyncio.sleep(100)
            charged.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in range(5):
            await sim.send(Job(n=n))
        await sim.advance(1)
        state = "hangs"
        await sim.advance(11)
        state = "up"
        await sim.settle()
        assert sorted(charged) == list(range(5))


async def test_a_probe_whose_life_is_over_does_not_leave_its_handler_paused() -> None:
    app, down, made = App("shop"), True, list[int]()

    @app.component
    class Till:
        @on(Offer)
        async def make(self, offer: Offer, ctx: Context) -> None:
            if down:
                raise UnavailableError("bank", 10.0)
            made.append(offer.n)

    async with app.simulate(errors="record") as sim:
        for n in range(5):
            await sim.send(Offer(n=n))
        await sim.advance(60)
        assert sim.ledger.expired == 5
        down = False
        for n in range(5, 10):
            await sim.send(Offer(n=n))
        await sim.settle()
        assert made == [5, 6, 7, 8, 9]


async def test_waiting_work_survives_a_crash() -> None:
    bank = Bank()
    app, charged, _ = shop(bank, keyed=True)
    async with app.simulate(errors="record") as sim:
        for n in range(50):
            await sim.send(Job(n=n))
        for _ in range(5):
            await sim.advance(100)
            await sim.crash()
        bank.up = True
        await sim.settle()
        assert sorted(charged) == list(range(50))
        assert (sim.ledger.dead, sim.ledger.done) == (0, 50)
        assert sim.ledger.imbalance() == ""


@pytest.mark.parametrize("wait_s", [float("nan"), -1e9, 0.0])
async def test_a_wait_that_is_no_time_is_a_short_one(wait_s: float) -> None:
    bank = Bank(retry_after_s=wait_s)
    app, charged, _ = shop(bank)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.advance(0.5)
        bank.up = True
        await sim.advance(1)
        assert charged == [1]


async def test_a_wait_without_an_end_ends_all_the_same() -> None:
    bank = Bank(retry_after_s=float("inf"))
    app, _charged, _ = shop(bank)
    async with app.simulate(errors="record") as sim:
        await sim.send(Job(n=1))
        await sim.advance(60)
        assert 0 < (await inside(sim, _status)).paused["till:job"] <= 36 * HOUR_S


async def _status(node: Node) -> object:
    return node.status()
