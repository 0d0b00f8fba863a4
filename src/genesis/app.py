"""The composition root: what the user describes, put together with an engine. The only file that knows every room.

An `App` is a description without IO. `running` makes a node of it; `simulate` runs it in virtual time, `explore` in
many worlds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from random import SystemRandom
from sys import _getframe
from typing import TYPE_CHECKING, Any

from genesis.config import Settings, engine_for
from genesis.core.errors import DefinitionError
from genesis.core.ports import Crasher
from genesis.runtime.definition import Definition
from genesis.runtime.life import Life
from genesis.runtime.node import Node
from genesis.runtime.own_settings import Given, OwnSettings
from genesis.runtime.parts import Parts, place_of
from genesis.runtime.resource import Resources

if TYPE_CHECKING:
    from genesis.chaos.explore import Exploration
    from genesis.chaos.simulation import Simulation


class App(Parts):
    """An event-processing application: components, sources, sinks, resources and settings under a name."""

    def __init__(self, name: str, *, version: str = "") -> None:
        """Describe an application.

        Args:
            name: Letters, digits and dashes; the default source of its events and name of its store.
            version: Of the code; noted in dead letters.

        Raises:
            DefinitionError: the name does not fit.
        """
        super().__init__(name, place_of(_getframe(1)), 'App("shop")')
        self.version = version

    def definition(self, *, resources: Mapping[Any, object] | None = None, given: Given | None = None) -> Definition:
        """The whole, checked.

        Args:
            resources: Instead of the application's, by type, as `running` takes them.
            given: What there is for its settings; default: nothing, so that they are their defaults.

        Raises:
            DefinitionError: the application does not fit together.
            SettingsError: a setting of its own is unknown, does not fit, or is missing.
        """
        parts, instead = self._all(), resources or {}
        components = [component for part in parts for component in part._components]
        sinks = [sink for part in parts for sink in part._sinks]
        if not components and not sinks:
            raise DefinitionError(f"{self.name} has no components", fix="@app.component above a class")
        values, _ = self.own_settings().fill(given or Given(), instead)
        values |= {found.cls: instead[found.cls] for part in parts for found in part._settings if found.cls in instead}
        needs = [need for component in components for need in component.needs] + [need for sink in sinks for need in sink.needs]
        opened = Resources([found for part in parts for found in part._resources], values, instead, needs)
        sources = [found for part in parts for found in part._sources]
        return Definition(self.name, components, sources, sinks, self.version, opened)

    def own_settings(self) -> OwnSettings:
        """The settings of the application itself, its modules' included. Raises DefinitionError."""
        return OwnSettings(self.name, [found for part in self._all() for found in part._settings])

    def running(
        self,
        store: str | None = None,
        *,
        settings: Settings | None = None,
        resources: Mapping[Any, object] | None = None,
        crash: Crasher | None = None,
    ) -> AbstractAsyncContextManager[Node]:
        """Run the application in this event loop: ``async with app.running(store="shop.db") as node:``.

        Args:
            store: Path of a SQLite file, or ``memory:``. Default: the settings', else ``<name>.db``.
            settings: Default: `Settings.load()`, as `genesis run` has them: from the environment and genesis.toml.
            resources: Instead of the application's, by type: an instance, which is neither opened nor closed here, or an async
                generator function as under `@app.resource`. What only a replaced one asked for is not opened.
            crash: For drills: called at named points of the commit path.

        Raises:
            DefinitionError: the application does not fit together.
            ResourceError: a resource cannot be opened.
            SettingsError: a setting is unknown, missing, or does not fit.
            StoreError: the store cannot be used; its kinds say why.
        """
        settings = settings or Settings.load()
        engine = engine_for(store or settings.store or f"{self.name}.db", settings, crash)
        definition = self.definition(resources=resources, given=settings.app)
        settings.tune_policies()
        return Node(Life(definition, engine, settings.node(), rng=SystemRandom(), crash=crash)).run()

    def simulate(
        self,
        *,
        seed: int = 0,
        errors: str = "raise",
        settings: Settings | None = None,
        resources: Mapping[Any, object] | None = None,
        nodes: int = 1,
        store: str = "memory",
    ) -> AbstractAsyncContextManager[Simulation]:
        """Run the application in virtual time: ``async with app.simulate() as sim:``.

        What is ready runs in the order of asyncio; `explore` tries others.

        Args:
            seed: Decides everything that is left to chance.
            errors: ``raise``: `settle` raises what handlers raised; ``record``: failures are kept in `sim.failures`.
            settings: Limits; default: the defaults, whatever the environment says.
            resources: Instead of the application's, by type, as `running` takes them. Each process opens its own; an instance
                is shared by all. The application's own settings are their defaults, unless they are given here.
            nodes: Machines: one serves, the others take over.
            store: ``memory``: a model of a store; ``sqlite``: the real engine on one machine, whose disk can lose its power.

        Raises:
            DefinitionError: the application does not fit together.
            ValueError: there is no such store, or it does not take so many nodes.
        """
        from genesis.chaos.simulation import (
            simulation,  # imported late: a service that never simulates does not pay for it
        )

        settings = settings or Settings()
        definition = self.definition(resources=resources, given=settings.app)
        settings.tune_policies()
        return simulation(definition, seed=seed, errors=errors, settings=settings.node(), nodes=nodes, store=store)

    async def explore(
        self,
        scenario: Callable[[Simulation], Awaitable[Any]],
        *,
        runs: int = 500,
        seed: int = 0,
        faults: int = 20,
        kinds: Sequence[str] | None = None,
        nodes: int = 1,
        store: str = "memory",
        settings: Settings | None = None,
        resources: Mapping[Any, object] | None = None,
    ) -> Exploration:
        """Run a scenario in many simulated worlds, with another order and other faults in each.

        Args:
            scenario: ``async def scenario(sim)``: sends, waits and asserts, as a test with `simulate` does.
            runs: How many seeds.
            seed: The first of them.
            faults: How many faults each world has.
            kinds: Their names; default: all that cost no attempts of a handler.
            nodes: Machines.
            store: ``memory`` or ``sqlite``, as `simulate` takes it.
            settings: Limits.
            resources: As `simulate` takes them. An instance is shared by all worlds, so that what one leaves in it is seen by
                the next: give an async generator function.

        Raises:
            PromiseBrokenError: a seed failed: which, with which faults, and what happened.
            ValueError: there is no fault of such a name.
        """
        from genesis.chaos.explore import Explorer, gentle

        settings = settings or Settings()
        chosen = gentle(store) if kinds is None else kinds
        definition = self.definition(resources=resources, given=settings.app)
        settings.tune_policies()
        explorer = Explorer(definition, scenario, settings.node(), nodes, faults, chosen, store)
        return await explorer.explore(range(seed, seed + runs))
