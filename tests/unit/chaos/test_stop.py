"""A process that is told to end in order: what runs ends, what is sent meanwhile comes again, and nothing counts as a crash."""

from __future__ import annotations

import asyncio

import pytest

from genesis import App, Context, DrainingError, Message, Retry, Settings, State, on
from genesis.chaos.faults import CommitFails, Crash, CutOff, HandlerIgnoresCancel, Pause, PowerLoss, Stop
from genesis.chaos.simulation import Simulation
from genesis.chaos.world import World
from genesis.runtime.node import Node


class Job(Message, type="job"):
    number: int
    seconds: float = 0.0


class Done(State):
    jobs: list[int] = []  # noqa: RUF012 - msgspec copies it


def workshop() -> tuple[App, list[int], type]:
    """A component whose jobs take time. Of each run, the attempt is written down outside."""
    app, runs = App("workshop"), list[int]()

    @app.component(single=True, state=Done, retry=Retry(attempts=1))
    class Bench:
        @on(Job, timeout=None)
        async def work(self, job: Job, done: Done, ctx: Context) -> None:
            runs.append(ctx.attempt)
            if job.seconds:
                await asyncio.sleep(job.seconds)
            done.jobs.append(job.number)

    return app, runs, Bench


def serves(sim: Simulation) -> list[str]:
    return [where for _, where, what in sim.world.timeline if what == "serves"]


async def test_what_runs_at_a_stop_ends_and_is_not_run_again() -> None:
    app, runs, bench = workshop()
    async with app.simulate() as sim:
        await sim.send(Job(1, seconds=5.0))
        await sim.advance(1.0)
        sim.inject(Stop())
        await sim.advance(10.0)
        assert sim.state(bench).jobs == [1]
        assert runs == [1]
        assert serves(sim) == ["node-0", "node-0"], "it was started again"
        assert sim.crashes == 0


async def test_what_does_not_end_in_time_is_given_back_and_that_costs_no_attempt() -> None:
    app, runs, bench = workshop()
    async with app.simulate() as sim:
        await sim.send(Job(1, seconds=25.0))
        await sim.advance(1.0)
        sim.inject(Stop())
        await sim.settle()
        assert sim.state(bench).jobs == [1]
        assert runs == [1, 1], "its only attempt, twice"
        assert sim.dead() == []


async def test_a_client_is_told_of_the_drain_and_comes_back() -> None:
    app, _, bench = workshop()

    async def send(node: Node) -> None:
        await node.send(Job(2))

    async with app.simulate() as sim:
        await sim.send(Job(1, seconds=5.0))
        await sim.advance(1.0)
        sim.inject(Stop())
        await sim.advance(1.0)
        with pytest.raises(DrainingError):
            sim.world.run(sim.world.call(send))
        await sim.send(Job(3))
        await sim.settle()
        assert sim.state(bench).jobs == [1, 3]


async def test_who_ended_in_order_left_word_that_nothing_runs() -> None:
    app, _, _ = workshop()
    world = World(app.definition(), seed=1, settings=Settings().node(), restart_s=(5.0, 5.0))
    try:
        world.run(world.call(lambda node: node.send(Job(1))))
        assert not world.store.head().clean
        world.inject(Stop())
        world.run(asyncio.sleep(1.0))
        assert world.serving() is None
        assert world.store.head().clean
        assert world.store.head().running == []
        world.run(asyncio.sleep(9.0))
        assert world.serving() is not None
    finally:
        world.close()
    assert world.violations == []


async def test_a_drain_in_which_a_commit_fails_goes_on_and_one_that_is_killed_is_made_up_for() -> None:
    app, runs, bench = workshop()
    async with app.simulate() as sim:
        await sim.send(Job(1, seconds=3.0))
        await sim.advance(1.0)
        sim.inject(CommitFails())
        sim.inject(Stop())
        await sim.settle()
        assert sim.state(bench).jobs == [1]
        assert sim.crashes == 0
        await sim.send(Job(2, seconds=3.0))
        await sim.advance(1.0)
        sim.inject(Stop())
        await sim.advance(1.0)
        sim.inject(Crash())
        await sim.settle()
        assert sim.crashes == 1
        assert sim.state(bench).jobs == [1, 2]
        assert len(runs) == 4
    assert sim.world.violations == []


async def test_a_process_that_stands_still_ends_when_it_wakes() -> None:
    app, _, bench = workshop()
    async with app.simulate() as sim:
        await sim.send(Job(1))
        sim.inject(Pause(seconds=5.0))
        sim.inject(Stop())
        await sim.send(Job(2))
        assert sim.now() > 1_000_000_005.0
        await sim.settle()
        assert sim.state(bench).jobs == [1, 2]
    assert sim.world.violations == []


async def test_another_machine_serves_after_a_stop() -> None:
    app, _, bench = workshop()
    async with app.simulate(nodes=2) as sim:
        await sim.send(Job(1))
        sim.inject(Stop())
        await sim.advance(1.0)
        await sim.send(Job(2))
        await sim.settle()
        assert sim.state(bench).jobs == [1, 2]
        assert serves(sim) == ["node-0", "node-1"]


async def test_what_a_stopped_process_left_running_goes_on_after_a_pause_of_its_machine() -> None:
    """Found by seed 6849 of the bank: nobody woke it."""
    app, runs, _ = workshop()
    async with app.simulate() as sim:
        sim.inject(HandlerIgnoresCancel(seconds=60.0))
        await sim.send(Job(1))
        await sim.advance(1.0)
        sim.inject(Stop())
        await sim.advance(50.0)
        assert serves(sim) == ["node-0", "node-0"]
        sim.inject(Pause(seconds=30.0))
        await sim.advance(60.0)
        await sim.settle()
        assert runs == [1, 1], "the first one after its minute"
    assert sim.world.violations == []


async def test_a_drain_that_never_ends_breaks_a_promise() -> None:
    app, _, _ = workshop()
    async with app.simulate() as sim:
        sim.inject(CutOff(seconds=1e6))
        sim.inject(Stop())
        await sim.advance(1000.0)
        assert any("was told to end, and does not" in wrong for wrong in sim.world.violations)


@pytest.mark.usefixtures("shared_sqlite")
async def test_power_is_lost_in_the_middle_of_a_drain() -> None:
    app, _, bench = workshop()

    async def scenario(sim: Simulation) -> None:
        await sim.send(Job(1, seconds=0.1))
        sim.inject(Stop())
        sim.inject(PowerLoss(after=sim.world.rng("test").randrange(8)))
        await sim.send(Job(2))
        await sim.settle()
        lost = [letter.delivery.event_id for letter in sim.dead()]
        assert len(lost) + len(sim.state(bench).jobs) == 2

    await app.explore(scenario, runs=10, faults=0, store="sqlite")
