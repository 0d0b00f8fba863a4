"""Exploring: a wrong component is found, with the fewest faults; a right one is not."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections import Counter
from random import Random
from typing import get_args

import pytest

from genesis import App, Context, Message, NotAcceptedError, State, on
from genesis.chaos.explore import PromiseBrokenError
from genesis.chaos.faults import (
    KINDS,
    ON_DISK,
    AnyFault,
    CutOff,
    HandlerHangs,
    HandlerIgnoresCancel,
    HandlerRaises,
    ReadFails,
    draw,
    from_json,
    name_of,
    to_json,
)
from genesis.chaos.shrink import shrink
from genesis.chaos.simulation import Simulation


class Order(Message, type="order"):
    number: int


class Receipt(Message, type="receipt"):
    number: int


class Paid(State):
    orders: list[int] = []  # noqa: RUF012 - msgspec copies it


def till(*, careful: bool) -> tuple[App, Counter[str], type]:
    """A component that charges a card; the careless one forgets that a handler may run again."""
    app, card = App("till"), Counter[str]()

    @app.component(single=True, state=Paid)
    class Till:
        @on(Order)
        async def pay(self, order: Order, paid: Paid, ctx: Context) -> None:
            async def charge(key: str) -> bool:
                card[key] += 1
                await asyncio.sleep(0.01)
                return True

            if careful:
                await ctx.once("charge", charge, type=bool)
            else:
                await charge(f"{order.number}/{card.total()}")
            paid.orders.append(order.number)

    return app, card, Till


def scenario_of(card: Counter[str], component: type):  # type: ignore[no-untyped-def]
    async def scenario(sim: Simulation) -> None:
        card.clear()
        for number in range(20):
            await sim.send(Order(number))
        await sim.settle()
        assert sim.state(component).orders == list(range(20))
        assert len(card) == 20, f"{len(card)} charges for 20 orders"

    return scenario


async def test_a_charge_that_a_crash_repeats_is_found_with_one_or_two_faults() -> None:
    app, card, component = till(careful=False)
    with pytest.raises(PromiseBrokenError, match="charges for 20 orders") as found:
        await app.explore(scenario_of(card, component), runs=50)
    run = found.value.run
    assert 1 <= len(run.schedule) <= 2, "the other faults have nothing to do with it"
    assert "fault" in run.story()


async def test_a_component_that_calls_the_outside_once_passes() -> None:
    app, card, component = till(careful=True)
    found = await app.explore(scenario_of(card, component), runs=20, nodes=2)
    assert found.runs == 20
    assert found.kills > 20
    assert found.injected.total() > 200
    assert found.deliveries >= 400


async def test_the_same_seed_fails_in_the_same_way() -> None:
    stories = []
    for _ in range(2):
        app, card, component = till(careful=False)
        with pytest.raises(PromiseBrokenError) as found:
            await app.explore(scenario_of(card, component), runs=50)
        stories.append((found.value.run.seed, found.value.run.story()))
    assert stories[0] == stories[1]


async def test_a_fault_that_does_not_exist_is_named_with_those_that_do() -> None:
    app, card, component = till(careful=True)
    with pytest.raises(ValueError, match=r"'meteor' is no fault; they are crash, crash-at-point"):
        await app.explore(scenario_of(card, component), runs=1, kinds=["meteor"])


async def test_what_is_sent_side_by_side_arrives_in_an_order_that_the_seed_draws() -> None:
    app, _, component = till(careful=True)
    orders = set()

    async def scenario(sim: Simulation) -> None:
        await sim.send_all([Order(number) for number in range(5)])
        await sim.settle()
        orders.add(tuple(sim.state(component).orders))

    await app.explore(scenario, runs=5, faults=0)
    assert len(orders) > 1


async def test_a_zombie_that_wakes_changes_nothing() -> None:
    app, card, component = till(careful=True)
    async with app.simulate(nodes=2) as sim:
        await sim.send(Order(1))
        await sim.settle()
        await sim.pause(30)
        await sim.send(Order(2))
        await sim.settle()
        await sim.advance(60)
        await sim.partition(30)
        await sim.send(Order(3))
        await sim.advance(60)
        await sim.settle()
        assert sim.state(component).orders == [1, 2, 3]
        assert len(card) == 3
        served = [where for _, where, what in sim.world.timeline if what == "serves"]
        assert served[:3] == ["node-0", "node-1", "node-0"]  # then the one that was cut off may claim the store again


async def test_a_world_that_ended_is_forgotten_with_the_attempts_that_died_in_it() -> None:
    app, _, _ = till(careful=True)
    async with app.simulate(errors="record") as sim:
        for fault in (HandlerHangs(), HandlerRaises(), HandlerIgnoresCancel()):
            sim.inject(fault)
            await sim.send(Order(1))
            await sim.crash()
        world = weakref.ref(sim.world)
    del sim
    gc.collect()
    assert world() is None


async def test_a_deposed_owner_that_idles_is_not_taken_for_one_that_serves() -> None:
    app, _, component = till(careful=True)
    async with app.simulate(nodes=2) as sim:
        await sim.pause(5)
        await sim.send(Order(1))
        await sim.advance(6)  # node-0 is awake again, and does not know
        await sim.send_all([Order(number) for number in range(2, 20)])
        await sim.crash()
        await sim.settle()
        assert sorted(sim.state(component).orders) == list(range(1, 20))
        assert sim.ledger.done == 19


@pytest.mark.parametrize("guilty", [[], [7], [3, 4], [0, 11, 19]])
async def test_shrinking_leaves_only_what_is_needed(guilty: list[int]) -> None:
    tries = 0

    async def fails(part: list[int]) -> bool:
        nonlocal tries
        tries += 1
        return set(guilty) <= set(part)

    assert await shrink(list(range(20)), fails) == guilty
    assert tries < 100


def test_every_fault_that_there_is_gets_drawn_and_can_be_written_down() -> None:
    drawn = draw(Random(1), 1000, over_s=10.0, nodes=3, kinds=KINDS + ON_DISK)
    assert {type(happening.fault) for happening in drawn} == set(get_args(AnyFault))
    assert {name_of(happening.fault) for happening in drawn} == set(KINDS + ON_DISK)
    assert from_json(to_json(drawn)) == drawn
    assert [happening.at_s for happening in drawn] == sorted(happening.at_s for happening in drawn)


async def test_an_app_that_cannot_start_says_why() -> None:
    app = App("broken")

    @app.component
    class Till:
        def __init__(self) -> None:
            raise ValueError("no database")

        @on(Order)
        async def pay(self, order: Order, ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="no database"):
        async with app.simulate():
            pass


async def test_what_a_zombie_collects_is_not_taken_for_what_was_emitted() -> None:
    app = App("till")

    @app.component(key="number", state=Paid)
    class Till:
        @on(Order)
        async def pay(self, order: Order, paid: Paid, ctx: Context) -> None:
            ctx.emit(Receipt(order.number))

    async def scenario(sim: Simulation) -> None:
        await sim.send(Order(1))
        await sim.settle()
        await sim.partition(30)
        await sim.send_all([Order(number) for number in range(2, 6)])
        await sim.advance(60)
        await sim.settle()
        assert sorted(receipt.number for receipt in sim.emitted(Receipt)) == [1, 2, 3, 4, 5]

    await app.explore(scenario, runs=10, faults=0, nodes=2)


@pytest.mark.usefixtures("shared_sqlite")
async def test_the_real_engine_is_explored_on_a_disk_that_breaks() -> None:
    app, card, component = till(careful=True)
    found = await app.explore(scenario_of(card, component), runs=5, store="sqlite")
    assert found.runs == 5
    assert found.injected["power-loss"] + found.injected["sync-fails"] > 0
    app, card, component = till(careful=False)
    with pytest.raises(PromiseBrokenError, match="charges for 20 orders"):
        await app.explore(scenario_of(card, component), runs=30, store="sqlite")


async def test_a_disk_is_asked_for_where_there_is_none() -> None:
    app, card, component = till(careful=True)
    with pytest.raises(ValueError, match="nodes=1"):
        await app.explore(scenario_of(card, component), runs=1, store="sqlite", nodes=2)
    with pytest.raises(ValueError, match="memory or sqlite"):
        await app.explore(scenario_of(card, component), runs=1, store="redis")
    with pytest.raises(ValueError, match="store='sqlite'"):
        await app.explore(scenario_of(card, component), runs=1, kinds=["power-loss"])


async def test_a_read_that_fails_is_no_failure_of_the_scenario_that_looks_at_a_state() -> None:
    app, _, component = till(careful=True)

    async def scenario(sim: Simulation) -> None:
        await sim.send(Order(1))
        await sim.settle()
        await sim.crash()
        sim.state(component)  # somebody serves again
        await sim.crash()
        sim.inject(ReadFails())
        assert sim.state(component).orders == [1]

    await app.explore(scenario, runs=10, faults=0)


async def test_what_goes_wrong_in_a_world_is_not_logged_and_afterwards_the_log_speaks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, card, component = till(careful=True)
    await app.explore(scenario_of(card, component), runs=2)
    assert "genesis" not in {record.name for record in caplog.records}
    logging.getLogger("genesis").warning("heard")
    assert "heard" in caplog.text


async def test_a_commit_that_is_cut_off_comes_through_when_that_is_over_or_was_given_up_before() -> None:
    app, _, _ = till(careful=True)
    accepted = set()
    for seed in range(8):
        async with app.simulate(seed=seed) as sim:
            await sim.advance(1)
            sim.inject(CutOff(seconds=5.0))
            try:
                sim.world.run(sim.world.call(lambda node: node.send(Order(1))))
            except NotAcceptedError:
                accepted.add(False)
            else:
                accepted.add(True)
    assert accepted == {True, False}
