"""The composition root: what the user describes, put together with an engine. The only file that knows every room.

An `App` is a description without IO. `running` makes a node of it; `simulate` runs it in virtual time, `explore` in
many worlds.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar, overload

from genesis.config import Settings, engine_for
from genesis.core.errors import DefinitionError
from genesis.core.message import State
from genesis.core.ports import Crasher
from genesis.layers.recovery.failure import Retry
from genesis.runtime.component import Component, KeyOf, Order, define_component
from genesis.runtime.definition import Definition
from genesis.runtime.life import Life
from genesis.runtime.node import Node
from genesis.runtime.source import Source, define_source

if TYPE_CHECKING:
    from genesis.chaos.explore import Exploration
    from genesis.chaos.simulation import Simulation

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


class App:
    """An event-processing application: components and sources under a name."""

    def __init__(self, name: str, *, version: str = "") -> None:
        """Describe an application.

        Args:
            name: Letters, digits and dashes; the default source of its events and name of its store.
            version: Of the code; noted in dead letters.

        Raises:
            DefinitionError: the name does not fit.
        """
        if not name or any(not (c.isalnum() or c in "-_.") for c in name):
            raise DefinitionError(f"{name!r} is no name: letters, digits, dashes", where=_caller(), fix='App("shop")')
        self.name, self.version = name, version
        self._components: list[Component] = []
        self._sources: list[Source] = []

    @overload
    def component(self, cls: C, /) -> C: ...

    @overload
    def component(
        self,
        /,
        *,
        name: str | None = None,
        key: KeyOf | None = None,
        state: type[State] | None = None,
        single: bool = False,
        essential: bool = False,
        retry: Retry | None = None,
        order: Order = "hold",
    ) -> Callable[[C], C]: ...

    def component(
        self,
        cls: Any = None,
        /,
        *,
        name: str | None = None,
        key: KeyOf | None = None,
        state: type[State] | None = None,
        single: bool = False,
        essential: bool = False,
        retry: Retry | None = None,
        order: Order = "hold",
    ) -> Any:
        """Register a class as a component: keyed (`key=`, with `state=`), `single=True`, or stateless and parallel.

        Args:
            cls: The class, when used without arguments.
            name: Address of its state; default: the class's name in kebab-case.
            key: Field, or function of the message, that names the key.
            state: Class of the state of each key (or of the single instance).
            single: One instance, one delivery at a time.
            essential: Weighs three times in the system's health.
            retry: How failed deliveries are tried again.
            order: What later deliveries of a key do while one is tried again: ``hold`` (they wait), ``skip`` (they go on),
                ``park`` (they wait even when its attempts are spent, until a person acts).

        Raises:
            DefinitionError: with the place and the line to write.
        """
        where = _caller()

        def register(found: C) -> C:
            component = define_component(
                found,
                where=where,
                name=name,
                key=key,
                state=state,
                single=single,
                essential=essential,
                retry=retry,
                order=order,
            )
            self._components.append(component)
            return found

        return register if cls is None else register(cls)

    @overload
    def source(self, function: F, /) -> F: ...

    @overload
    def source(self, /, *, name: str | None = None) -> Callable[[F], F]: ...

    def source(self, function: Any = None, /, *, name: str | None = None) -> Any:
        """Register a source: an async generator of (position, message).

        It is written ``async def source(position: P | None) -> AsyncIterator[tuple[P, Message]]``, and is given the last
        committed position; a position is committed with its event.

        Raises:
            DefinitionError: it is no async generator of one argument.
        """

        def register(found: F) -> F:
            self._sources.append(define_source(found, name))
            return found

        return register if function is None else register(function)

    def definition(self) -> Definition:
        """The whole, checked. Raises DefinitionError."""
        if not self._components:
            raise DefinitionError(f"{self.name} has no components", fix="@app.component above a class")
        return Definition(self.name, self._components, self._sources, self.version)

    def running(
        self, store: str | None = None, *, settings: Settings | None = None, crash: Crasher | None = None
    ) -> AbstractAsyncContextManager[Node]:
        """Run the application in this event loop: ``async with app.running(store="shop.db") as node:``.

        Args:
            store: Path of a SQLite file, or ``memory:``. Default: the settings', else ``<name>.db``.
            settings: Limits; default: from the environment.
            crash: For drills: called at named points of the commit path.

        Raises:
            DefinitionError: the application does not fit together.
            StoreError: the store cannot be used; its kinds say why.
        """
        settings = settings or Settings.from_environment()
        engine = engine_for(store or settings.store or f"{self.name}.db", settings, crash)
        return Node(Life(self.definition(), engine, settings.node(), rng=SystemRandom(), crash=crash)).run()

    def simulate(
        self,
        *,
        seed: int = 0,
        errors: str = "raise",
        settings: Settings | None = None,
        nodes: int = 1,
        store: str = "memory",
    ) -> AbstractAsyncContextManager[Simulation]:
        """Run the application in virtual time: ``async with app.simulate() as sim:``.

        What is ready runs in the order of asyncio; `explore` tries others.

        Args:
            seed: Decides everything that is left to chance.
            errors: ``raise``: `settle` raises what handlers raised; ``record``: failures are kept in `sim.failures`.
            settings: Limits; default: the defaults, whatever the environment says.
            nodes: Machines: one serves, the others take over.
            store: ``memory``: a model of a store; ``sqlite``: the real engine on one machine, whose disk can lose its power.

        Raises:
            DefinitionError: the application does not fit together.
            ValueError: there is no such store, or it does not take so many nodes.
        """
        from genesis.chaos.simulation import (
            simulation,  # imported late: a service that never simulates does not pay for it
        )

        limits = (settings or Settings()).node()
        return simulation(self.definition(), seed=seed, errors=errors, settings=limits, nodes=nodes, store=store)

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

        Raises:
            PromiseBrokenError: a seed failed: which, with which faults, and what happened.
            ValueError: there is no fault of such a name.
        """
        from genesis.chaos.explore import Explorer, gentle

        limits = (settings or Settings()).node()
        chosen = gentle(store) if kinds is None else kinds
        explorer = Explorer(self.definition(), scenario, limits, nodes, faults, chosen, store)
        return await explorer.explore(range(seed, seed + runs))


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
