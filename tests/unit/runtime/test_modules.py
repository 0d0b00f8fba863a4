"""Modules: an application in several files, whose names are shared and whose collisions name both places."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from genesis import App, Context, DefinitionError, Message, Module, on
from tests.unit.runtime.support import Done, Job


def with_component(parts: Any, name: str) -> Any:
    @parts.component(name=name)
    class Doing:
        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done())

    return parts


def with_source(parts: Any) -> Any:
    @parts.source
    async def lines(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        for n in range(1 if position is None else position + 1, 3):
            yield n, Job(n=n)

    return parts


async def test_what_a_module_has_and_what_it_will_have_runs_in_the_application() -> None:
    app, module, inner = App("shop"), Module("billing"), Module("tax")
    app.include(module)
    module.include(inner)
    with_component(module, "bill")
    with_component(inner, "tax")
    with_source(inner)
    async with app.simulate() as sim:
        await sim.advance(1)
        assert len(sim.emitted(Done)) == 4


def test_a_module_that_is_reached_twice_is_there_once() -> None:
    app, left, right, shared = App("shop"), Module("left"), Module("right"), Module("shared")
    for parts in (app, right, left):
        parts.include(shared)
    app.include(left)
    app.include(right)
    with_component(shared, "one")
    assert list(app.definition().components) == ["one"]


@pytest.mark.parametrize("add", [lambda parts: with_component(parts, "one"), with_source])
def test_two_of_one_name_name_each_other(add: Any) -> None:
    app, module = with_component(App("shop"), "other"), Module("billing")
    app.include(module)
    add(app)
    add(module)
    with pytest.raises(
        DefinitionError, match=r"^\S+test_modules.py:\d+: two .* named '.*'; the other is at \S+test_modules.py:\d+"
    ):
        app.definition()


def test_two_modules_of_one_name_name_each_other() -> None:
    app = with_component(App("shop"), "one")
    app.include(Module("billing"))
    app.include(Module("billing"))
    with pytest.raises(DefinitionError, match=r"test_modules.py:\d+: two modules are named 'billing'; the other is at .*:\d+"):
        app.definition()


def test_an_application_is_no_module_and_a_module_needs_a_name() -> None:
    other: Any = App("other")
    with pytest.raises(
        DefinitionError, match=r'test_modules.py:\d+: .* is no Module\n    write: billing = Module\("billing"\)'
    ):
        App("shop").include(other)
    with pytest.raises(DefinitionError, match=r"test_modules.py:\d+: 'a b' is no name"):
        Module("a b")
    with pytest.raises(DefinitionError, match=r"test_modules.py:\d+: 'a.b' is no name of a module"):
        Module("a.b")
    with pytest.raises(DefinitionError, match=r"test_modules.py:\d+: '' is no name"):
        App("")


async def test_a_module_has_settings_of_its_own() -> None:
    app, module = App("shop"), Module("billing")
    app.include(module)

    @module.settings
    class Billing(msgspec.Struct, frozen=True):
        days: int = 30

    @module.component
    class Biller:
        def __init__(self, billing: Billing) -> None:
            self.days = billing.days

        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=self.days))

    for given, days in (({}, 30), ({Billing: Billing(14)}, 14)):
        async with app.simulate(resources=given) as sim:
            await sim.send(Job())
            await sim.settle()
            assert [done.n for done in sim.emitted(Done)] == [days]
