"""In which order a key's deliveries run: one at a time, first in first out, and what a retry means for those behind it."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, Message, Node, Priority, Reject, Retry, on
from genesis.runtime.component import Order
from tests.unit.runtime.support import Alarm, Disk, Done, Job, Log, inside, spoken, until


class Whisper(Message, type="whisper", priority=Priority.BACKGROUND):
    key: str = "a"
    n: int = 0


def diary(order: Order = "hold", *, fails: dict[int, int] | None = None, retry: Retry | None = None) -> tuple[App, type]:
    """An application that notes what it saw. `fails`: how many attempts of a job fail."""
    app, left = App("diary"), dict(fails or {})

    @app.component(key="key", state=Log, order=order, retry=retry or Retry(attempts=3, base_s=4.0))
    class Diary:
        @on(Job)
        async def write(self, job: Job, log: Log, ctx: Context) -> None:
            await asyncio.sleep(0.01)
            if left.get(job.n, 0):
                left[job.n] -= 1
                raise ConnectionError(f"no ink for {job.n}")
            log.seen.append(job.n)

        @on(Alarm)
        async def shout(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            if left.get(alarm.n, 0):
                left[alarm.n] -= 1
                raise ConnectionError(f"no ink for {alarm.n}")
            log.seen.append(alarm.n)

        @on(Whisper)
        async def whisper(self, whisper: Whisper, log: Log, ctx: Context) -> None:
            log.seen.append(whisper.n)

    return app, Diary


# --- first in, first out --------------------------------------------------------------------------------------------


async def test_a_key_is_served_in_order_and_one_at_a_time_however_long_each_takes() -> None:
    app, busy = App("shop"), set[str]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            assert job.key not in busy, "two deliveries of one key run at once"
            busy.add(job.key)
            for _ in range(job.n % 3):
                await asyncio.sleep(0.01 * (7 - job.n % 7))
            busy.remove(job.key)
            log.seen.append(job.n)

    async with app.simulate() as sim:
        for n in range(60):
            await sim.send(Job("abc"[n % 3], n))
        await sim.settle()
        for offset, key in enumerate("abc"):
            assert sim.state(Till, key).seen == list(range(offset, 60, 3))


async def test_a_key_that_is_slow_does_not_stop_other_keys() -> None:
    app, gate, order = App("shop"), asyncio.Event(), list[str]()

    @app.component(key="key", state=Log)
    class Till:
        @on(Job, timeout=None)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.key == "slow":
                await gate.wait()
            order.append(job.key)

    async with app.simulate() as sim:
        await sim.send(Job("slow"))
        for n in range(200):
            await sim.send(Job(f"k{n % 20}"))
        await sim.advance(1)
        assert len(order) == 200
        gate.set()
        await sim.settle()
        assert order[-1] == "slow"


async def test_keys_run_side_by_side() -> None:
    app, running, most = App("shop"), 0, 0

    @app.component(key="n", state=Log)
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(1)
            running -= 1

    async with app.simulate() as sim:
        for n in range(40):
            await sim.send(Job(n=n))
        await sim.settle()
        assert most == 40


async def test_emitted_events_of_one_handler_arrive_in_the_order_of_emitting() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Door:
        @on(Job)
        async def ring(self, job: Job, log: Log, ctx: Context) -> None:
            for n in range(5):
                ctx.emit(Done(job.key, 10 * job.n + n))

    @app.component(key="key", state=Log)
    class Book:
        @on(Done)
        async def note(self, done: Done, log: Log, ctx: Context) -> None:
            log.seen.append(done.n)

    async with app.simulate() as sim:
        for n in range(4):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Book, "a").seen == [10 * n + m for n in range(4) for m in range(5)] == spoken(sim)


async def test_a_more_urgent_event_passes_those_of_its_key_that_have_not_begun() -> None:
    app, diary_class = diary()

    async def send_all(node: Node) -> None:
        async with asyncio.TaskGroup() as group:
            for message in (Whisper("a", 5), Job("a", 1), Job("a", 2), Alarm("a", 0)):
                group.create_task(node.send(message))

    async with app.simulate() as sim:
        await inside(sim, send_all)
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [0, 1, 2, 5]


async def test_a_priority_given_with_send_counts_instead_of_the_one_of_the_class() -> None:
    app, diary_class = diary()

    async def send_all(node: Node) -> None:
        async with asyncio.TaskGroup() as group:
            for n, priority in enumerate((Priority.LOW, None, Priority.BACKGROUND, Priority.CRITICAL)):
                group.create_task(node.send(Job("a", n), priority=priority))

    async with app.simulate() as sim:
        await inside(sim, send_all)
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [3, 1, 0, 2]


async def test_urgent_events_are_served_while_a_backlog_waits_and_the_backlog_is_not_forgotten() -> None:
    app, order = App("shop"), list[int]()

    @app.component
    class Desk:
        @on(Job)
        async def work(self, job: Job, ctx: Context) -> None:
            order.append(2)

        @on(Alarm)
        async def alarm(self, alarm: Alarm, ctx: Context) -> None:
            order.append(0)

    disk = Disk()
    async with disk.node(app) as node:
        await node.send_many([Job()] * 400 + [Alarm()] * 400)
        await until(lambda: len(order) == 800)
        first = order[:100]
        assert 50 <= first.count(0) <= 60  # ten slots of a round are CRITICAL's, eight are NORMAL's
        assert node.status().ended == {"CRITICAL": 400, "HIGH": 0, "NORMAL": 400, "LOW": 0, "BACKGROUND": 0}


# --- while a retry waits --------------------------------------------------------------------------------------------


async def test_later_events_of_a_key_wait_for_its_retry_and_other_keys_go_on() -> None:
    app, diary_class = diary(fails={1: 2})
    async with app.simulate(errors="record") as sim:
        for n in (0, 1, 2, 3):
            await sim.send(Job("a", n))
        await sim.send(Job("b", 9))
        await sim.advance(0.1)
        assert sim.state(diary_class, "a").seen == [0]
        assert sim.state(diary_class, "b").seen == [9]
        assert sim.ledger.in_pending == 3  # one waits for its time, two behind it
        await sim.send(Job("a", 4))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [0, 1, 2, 3, 4]
        assert (sim.ledger.retries, sim.ledger.done, sim.ledger.in_pending) == (2, 6, 0)


async def test_a_more_urgent_event_of_the_key_does_not_wait_for_the_retry() -> None:
    app, diary_class = diary(fails={1: 1})
    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))
        await sim.send(Whisper("a", 2))
        await sim.advance(0.05)
        await sim.send(Alarm("a", 3))
        await sim.advance(0.05)
        assert sim.state(diary_class, "a").seen == [3]
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [3, 1, 2]


async def test_with_order_skip_later_events_go_on_while_a_retry_waits() -> None:
    app, diary_class = diary("skip", fails={1: 1})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [2, 3, 1]


async def test_when_the_attempts_are_spent_the_next_of_the_key_goes_on() -> None:
    app, diary_class = diary(fails={1: 99, 3: 99})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3, 4):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [2, 4]
        assert [letter.attempts for letter in sim.dead()] == [3, 3]
        assert sim.ledger.imbalance() == ""


async def test_a_hundred_held_events_come_up_in_order_though_every_third_fails_once() -> None:
    app, diary_class = diary(fails=dict.fromkeys(range(0, 100, 3), 1))
    async with app.simulate(errors="record") as sim:
        for n in range(100):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == list(range(100))


async def test_held_events_survive_a_crash_in_their_order() -> None:
    app, diary_class = diary(fails={1: 1})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("a", n))
        await sim.advance(0.1)
        await sim.crash()
        await sim.send(Job("a", 4))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [1, 2, 3, 4]
        assert sim.ledger.imbalance() == ""


# --- parked ---------------------------------------------------------------------------------------------------------


async def test_with_order_park_a_key_waits_for_a_person_when_the_attempts_are_spent() -> None:
    app, diary_class = diary("park", fails={1: 3})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("a", n))
        await sim.send(Job("b", 9))
        await sim.settle()  # what is parked, and what waits behind it, does not keep it
        assert sim.state(diary_class, "a").seen == []
        assert sim.state(diary_class, "b").seen == [9]
        status = await inside(sim, _status)
        assert (status.parked, status.ledger.in_pending, status.ledger.dead) == (1, 3, 0)
        await sim.advance(3600)
        await sim.crash()
        await sim.send(Job("a", 4))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == []


@pytest.mark.parametrize("crash", [False, True])
async def test_a_parked_event_is_replayed_in_its_place(crash: bool) -> None:
    app, diary_class = diary("park", fails={1: 4})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("a", n))
        await sim.settle()
        if crash:
            await sim.crash()
        (key,) = await inside(sim, _parked)
        assert await inside(sim, lambda node: node.operator.replay(key))
        await sim.settle()  # its attempts are fresh: the fourth failure is the first of three
        assert sim.state(diary_class, "a").seen == [1, 2, 3]
        assert (sim.ledger.done, sim.ledger.replay, sim.ledger.in_pending) == (3, 0, 0)
        assert not await inside(sim, lambda node: node.operator.replay(key))


@pytest.mark.parametrize("crash", [False, True])
async def test_a_parked_event_is_dropped_and_the_key_goes_on(crash: bool) -> None:
    app, diary_class = diary("park", fails={1: 99})
    async with app.simulate(errors="record") as sim:
        for n in (1, 2, 3):
            await sim.send(Job("a", n))
        await sim.settle()
        if crash:
            await sim.crash()
        (key,) = await inside(sim, _parked)
        assert await inside(sim, lambda node: node.operator.drop(key))
        await sim.settle()
        assert sim.state(diary_class, "a").seen == [2, 3]
        assert (sim.ledger.done, sim.ledger.dead, sim.ledger.in_pending) == (2, 1, 0)
        assert sim.dead() == []
        assert sim.ledger.imbalance() == ""


async def test_with_order_park_a_rejected_event_is_a_dead_letter_and_parks_nothing() -> None:
    app = App("shop")

    @app.component(key="key", state=Log, order="park")
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 1:
                raise Reject("no such article")
            log.seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in (1, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.state(Till, "a").seen == [2]
        assert [letter.reason for letter in sim.dead()] == ["rejected"]


async def test_with_order_park_an_event_that_kills_the_process_parks_its_key() -> None:
    app, deaths = App("shop"), list[int]()

    @app.component(key="key", state=Log, order="park", retry=Retry(attempts=3))
    class Till:
        @on(Job)
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            if job.n == 1:
                deaths.append(ctx.attempt)
                sim.world.die()
            log.seen.append(job.n)

    async with app.simulate(errors="record") as sim:
        for n in (1, 2):
            await sim.send(Job("a", n))
        await sim.settle()
        assert deaths[-1] == 3
        assert sim.state(Till, "a").seen == []
        assert sim.dead() == []
        (key,) = await inside(sim, _parked)
        assert await inside(sim, lambda node: node.operator.drop(key))
        await sim.settle()
        assert sim.state(Till, "a").seen == [2]
        assert sim.ledger.imbalance() == ""


async def _status(node: Node) -> object:
    return node.status()


async def _parked(node: Node) -> list[str]:
    return await node.operator._dead_keys()


async def test_a_critical_event_never_waits_for_the_retry_of_a_normal_one_of_its_key() -> None:
    app, fails = App("shop"), {1: 1, 2: 1}

    @app.component(key="key", state=Log)
    class Till:
        @on(Job, retry=Retry(base_s=300))
        async def serve(self, job: Job, log: Log, ctx: Context) -> None:
            await self.work(job.n, log)

        @on(Alarm, retry=Retry(base_s=0.5))
        async def ring(self, alarm: Alarm, log: Log, ctx: Context) -> None:
            await self.work(alarm.n, log)

        async def work(self, n: int, log: Log) -> None:
            if fails.get(n, 0):
                fails[n] -= 1
                raise ConnectionError
            log.seen.append(n)

    async with app.simulate(errors="record") as sim:
        await sim.send(Job("a", 1))  # fails, and waits for minutes
        await sim.advance(0.01)
        await sim.send(Alarm("a", 2))  # passes it, fails, and waits for half a second
        await sim.advance(0.01)
        await sim.send(Alarm("a", 3))  # is held behind the other alarm
        await sim.advance(2)
        assert sim.state(Till, "a").seen == [2, 3]
