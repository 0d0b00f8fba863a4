"""What an application is put together from: components, sources, sinks, resources and settings, in modules.

In: decorated classes and functions. Out: their definitions, with the place of each. Nothing runs here.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from genesis.core.errors import DefinitionError
from genesis.core.message import Message, State
from genesis.layers.recovery.failure import Retry
from genesis.runtime.component import Component, KeyOf, Order, define_component
from genesis.runtime.own_settings import SettingsClass, define_settings
from genesis.runtime.resource import Resource, define_resource
from genesis.runtime.sink import BATCH, TIMEOUT_S, Item, Sink, define_sink
from genesis.runtime.source import Source, define_source

if TYPE_CHECKING:
    from genesis.runtime.policy import Policy

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound=Callable[..., AsyncIterator[Any]])
M = TypeVar("M", bound=Message)
P = ParamSpec("P")
SinkFunction = Callable[Concatenate[Sequence[Item[M]], P], Coroutine[Any, Any, None]]


class Parts:
    """Parts under a name, and the modules among them."""

    _section: tuple[str, ...] = ()
    """Of its settings, below `[app]`."""

    def __init__(self, name: str, where: str, fix: str) -> None:
        """Raises DefinitionError: the name does not fit."""
        if not name or any(not (c.isalnum() or c in "-_.") for c in name):
            raise DefinitionError(f"{name!r} is no name: letters, digits, dashes", where=where, fix=fix)
        self.name, self._where = name, where
        self._components: list[Component] = []
        self._sources: list[Source] = []
        self._sinks: list[Sink] = []
        self._resources: list[Resource] = []
        self._settings: list[SettingsClass] = []
        self._modules: list[Module] = []

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
        policy: Policy | None = None,
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
        policy: Policy | None = None,
    ) -> Any:
        """Register a class as a component: keyed (`key=`, with `state=`), `single=True`, or stateless and parallel.

        The parameters of its `__init__` that have no default are given by type: resources and settings.

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
            policy: Of what all its handlers need: each of their attempts is one of the policy's, with its own timeout. While
                the policy refuses calls, deliveries wait before they begin.

        Raises:
            DefinitionError: with the place and the line to write.
        """
        frame = _caller()
        where = place_of(frame)

        def register(found: C) -> C:
            component = define_component(
                found,
                where=where,
                names=frame.f_locals,
                name=name,
                key=key,
                state=state,
                single=single,
                essential=essential,
                retry=retry,
                order=order,
                policy=policy,
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

    def sink(
        self,
        message: type[M],
        /,
        *,
        batch: int = BATCH,
        per_second: float | None = None,
        timeout: float | None = TIMEOUT_S,
        retry: Retry | None = None,
        name: str | None = None,
        policy: Policy | None = None,
    ) -> Callable[[SinkFunction[M, P]], SinkFunction[M, P]]:
        """Register a sink: a coroutine function that brings events of a type to another system.

        It is written ``async def to_crm(items: Sequence[Item[Alert]], crm: Crm) -> None``; its parameters behind the items are
        given by type, as those of `__init__` of components. Items come in the order of their numbers, one call at a time. When
        it returns, they have ended; after a crash those of the last call may come again, with the same ids and numbers.

        Args:
            message: The message class.
            batch: Items of one call at most, 1 to 900.
            per_second: Items a second at most.
            timeout: Seconds for one call; over it is a failed call. None: no limit.
            retry: How a failed call is made again. When its attempts are spent, its items are given one by one.
            name: Under which its items wait in the store; default: the function's name with dashes.
            policy: Each call is one attempt of it, under the nearer of both timeouts. While it refuses calls, items wait.

        Raises:
            DefinitionError: with the place and the line to write.
        """
        names = _caller().f_locals

        def register(found: SinkFunction[M, P]) -> SinkFunction[M, P]:
            sink = define_sink(
                found,
                message,
                names,
                batch=batch,
                per_second=per_second,
                timeout_s=timeout,
                retry=retry,
                name=name,
                policy=policy,
            )
            self._sinks.append(sink)
            return found

        return register

    def resource(self, function: R, /) -> R:
        """Register a resource: an async generator that opens something, yields it once, and closes it.

        It is written ``async def http() -> AsyncIterator[HttpClient]`` and given by the type that it yields: to the
        `__init__` of components, and to other resources, by their parameters. A node opens each once before intake, behind
        those that it asks for, and closes them in reverse after the drain.

        Raises:
            DefinitionError: it is no async generator, or its types are not written down.
        """
        self._resources.append(define_resource(function, _caller().f_locals))
        return function

    def settings(self, cls: C, /) -> C:
        """Register a class of settings, a `msgspec.Struct`; its instance is given by type, as a resource is.

        It is filled over its defaults from ``[app]`` of genesis.toml (for a module, ``[app.NAME]``) and from
        ``GENESIS_APP_*`` variables (``GENESIS_APP_NAME_*``).

        Raises:
            DefinitionError: it is no `msgspec.Struct`.
        """
        self._settings.append(define_settings(cls, self._section, place_of(_caller())))
        return cls

    def include(self, module: Module, /) -> None:
        """Take in what a module has, and what it will have. A module that is taken in twice is there once.

        Raises:
            DefinitionError: it is no module.
        """
        if not isinstance(module, Module):
            raise DefinitionError(f"{module!r} is no Module", where=place_of(_caller()), fix='billing = Module("billing")')
        self._modules.append(module)

    def _all(self) -> list[Parts]:
        """These, and all modules below, each once.

        Raises:
            DefinitionError: two modules have one name.
        """
        found: list[Parts] = []
        ahead: list[Parts] = [self]
        while ahead:
            parts = ahead.pop(0)
            if any(parts is other for other in found):
                continue
            for other in found:
                if isinstance(other, Module) and other.name == parts.name:
                    raise DefinitionError(
                        f"two modules are named {other.name!r}; the other is at {other._where}", where=parts._where
                    )
            found.append(parts)
            ahead += parts._modules
        return found


class Module(Parts):
    """Parts of an application in a file of their own: ``billing = Module("billing")``, then ``app.include(billing)``.

    Its decorators are those of an `App`. Names of components, sources and sinks are shared with the whole application.
    """

    def __init__(self, name: str) -> None:
        """Begin a module.

        Args:
            name: Letters, digits and dashes, no dots; its settings are those of ``[app.NAME]``.

        Raises:
            DefinitionError: the name does not fit.
        """
        where, fix = place_of(_caller()), 'Module("billing")'
        if "." in name:
            raise DefinitionError(f"{name!r} is no name of a module: a dot parts its table from another", where=where, fix=fix)
        super().__init__(name, where, fix)
        self._section = (name,)


def place_of(frame: FrameType) -> str:
    """``file:line`` that a frame is at."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _caller() -> FrameType:
    """The frame of the user's code: whoever called what called this."""
    return sys._getframe(2)
