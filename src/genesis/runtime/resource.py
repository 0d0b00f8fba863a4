"""What components are given by type: resources, opened before intake and closed after the drain.

In: async generators of the user, and values that are there already. Out: of each type the one instance, for as long as a
node lives. Who asks for what is checked before anything is opened.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import UnionType
from typing import Any, TypeVar

from genesis.core.errors import DefinitionError, ResourceError
from genesis.runtime.log import log

CLOSE_S = 10.0
"""Time that the resources of a node together have to close: one that hangs must not keep a process from ending."""
_END = object()
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Need:
    """A parameter that is given by its type."""

    parameter: str
    kind: Any
    asker: str
    """Who asks, for people: ``Inventory.__init__``."""
    where: str
    keyword: bool
    """It cannot be given by place."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as defined."""

    kind: Any
    """The type that it yields: what others ask for it by."""
    function: Callable[..., AsyncGenerator[Any, None]]
    where: str
    needs: tuple[Need, ...]

    @property
    def name(self) -> str:
        """As it is written."""
        return self.function.__name__


def title_of(kind: Any) -> str:
    """A type in words."""
    return getattr(kind, "__name__", None) or str(kind)


def define_resource(function: Any, names: Mapping[str, Any]) -> Resource:
    """Check a resource function; `names` are the local ones around it.

    Raises:
        DefinitionError: it is no async generator, does not say what it yields, or a parameter has no type.
    """
    name, where = getattr(function, "__name__", repr(function)), _place(function)
    fix = f"async def {name}() -> AsyncIterator[HttpClient]: ... yield client ..."
    if not inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{name} is no async generator: it yields the resource once", where=where, fix=fix)
    hints = _hints(function, where, name, names)
    if "return" not in hints:
        raise DefinitionError(f"{name} does not say what it yields", where=where, fix=fix)
    said = hints["return"]
    kind = next(iter(typing.get_args(said)), None)
    if not issubclass(typing.get_origin(said) or object, AsyncIterator) or not _is_kind(kind):
        raise DefinitionError(f"{name} yields {title_of(said)}: one type that it is asked for by", where=where, fix=fix)
    return Resource(kind, function, where, _needs(inspect.signature(function), hints, name, where))


def _stand_in(kind: Any, function: Any) -> Resource:
    """An async generator function that is opened in the place of what has this type. Raises DefinitionError."""
    signature, where = inspect.signature(function), _place(function)
    hints = _hints(function, where, function.__name__, {}) if _asked(signature) else {}
    return Resource(kind, function, where, _needs(signature, hints, function.__name__, where))


def needs_of_class(cls: type, where: str, names: Mapping[str, Any]) -> tuple[Need, ...]:
    """What `__init__` of a component asks for: its parameters without a default; `names` are the local ones around it.

    Raises:
        DefinitionError: a parameter has no type, or one that is not known.
    """
    signature, init = inspect.signature(cls), cls.__init__  # type: ignore[misc]
    asker = f"{cls.__name__}.__init__"
    if not _asked(signature):
        return ()
    place = _place(init)
    if not place.startswith("<"):  # else it was made by @dataclass
        where = place or where
    return _needs(signature, _hints(init, where, asker, names), asker, where)


def needs_of_function(function: Any, names: Mapping[str, Any]) -> tuple[str | None, dict[str, Any], tuple[Need, ...]]:
    """The first parameter of a function, the types of all, and what it asks for behind the first.

    Raises:
        DefinitionError: a parameter has no type, or one that is not known.
    """
    where, asker = _place(function), function.__name__
    hints, parameters = _hints(function, where, asker, names), list(inspect.signature(function).parameters.values())
    first = parameters[0].name if parameters else None
    return first, hints, _needs(inspect.Signature(parameters[1:]), hints, asker, where)


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""


def _hints(function: Any, where: str, asker: str, names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(names))
    except NameError as error:
        raise DefinitionError(
            f"{asker} names a type that is not known here: {error}",
            where=where,
            fix=f"the import or class of {error.name} above it, outside of `if TYPE_CHECKING:`",
        ) from error


def _asked(signature: inspect.Signature) -> list[inspect.Parameter]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in signature.parameters.values() if p.default is p.empty and p.kind not in several]


def _needs(signature: inspect.Signature, hints: dict[str, Any], asker: str, where: str) -> tuple[Need, ...]:
    found = []
    for parameter in _asked(signature):
        name = parameter.name
        if not _is_kind(hints.get(name)):
            said = f" the type {title_of(hints[name])}" if name in hints else " no type"
            raise DefinitionError(
                f"{asker} takes {name}, which has{said}: what it is given is found by one type",
                where=where,
                fix=f"{name}: HttpClient",
            )
        found.append(Need(name, hints[name], asker, where, parameter.kind is parameter.KEYWORD_ONLY))
    return tuple(found)


def _is_kind(kind: Any) -> bool:
    """Whether something can be found by it: a class, a NewType, or one such as ``dict[str, int]``."""
    if kind in (None, Any, type(None)) or isinstance(kind, typing.TypeVar | UnionType):
        return False
    return typing.get_origin(kind) not in (typing.Union, typing.Annotated)


class Resources:
    """All that an application provides by type."""

    def __init__(
        self, defined: Iterable[Resource], values: Mapping[Any, object], given: Mapping[Any, object], needs: Sequence[Need]
    ) -> None:
        """Check that everybody gets what they ask for.

        Args:
            defined: By the application.
            values: Those that need no opening, by type.
            given: Instead of these, by type: an instance, or an async generator function that is opened in its place.
            needs: Of the components.

        Raises:
            DefinitionError: two provide one type, nobody provides it, a cycle, or something was given that nobody asks for.
        """
        self._values = dict(values)
        self._defined: dict[Any, Resource] = {}
        for resource in defined:
            if resource.kind in self._values or resource.kind in self._defined:
                other = self._defined.get(resource.kind)
                there = f"{other.name} at {other.where}" if other else "the settings"
                raise DefinitionError(
                    f"{resource.name} provides {title_of(resource.kind)}, and so {'does' if other else 'do'} {there}",
                    where=resource.where,
                    fix=f'{title_of(resource.kind)}2 = NewType("{title_of(resource.kind)}2", {title_of(resource.kind)})',
                )
            self._defined[resource.kind] = resource
        asked = {need.kind for need in (*needs, *(n for r in self._defined.values() for n in r.needs))}
        for kind, value in given.items():
            if kind not in self._defined and kind not in self._values and kind not in asked:
                known = [*self._defined, *self._values, *asked]
                raise DefinitionError(f"nobody asks for {title_of(kind)}, which was given{_meant(kind, known)}")
            self._give(kind, value)
        self._order: dict[Any, Resource] = {}
        """To be opened, each behind those that it asks for."""
        self._settle(needs, asked)

    def _give(self, kind: Any, value: object) -> None:
        self._defined.pop(kind, None)
        self._values.pop(kind, None)
        if inspect.isasyncgenfunction(value):
            self._defined[kind] = _stand_in(kind, value)
        else:
            self._values[kind] = value

    def _settle(self, needs: Sequence[Need], asked: set[Any]) -> None:
        """Find what is opened: what components ask for, and what nobody asks for; not what only a replaced one asked for."""
        for need in needs:
            self._reach(need, (), self._order)
        for kind, resource in self._defined.items():
            if kind not in asked:
                self._add(resource, (), self._order)
        unopened: dict[Any, Resource] = {}
        for resource in self._defined.values():
            self._add(resource, (), unopened)  # is right all the same

    def _reach(self, need: Need, way: tuple[Resource, ...], order: dict[Any, Resource]) -> None:
        if need.kind in self._values:
            return
        resource = self._defined.get(need.kind)
        if resource is None:
            raise self._missing(need)
        self._add(resource, way, order)

    def _add(self, resource: Resource, way: tuple[Resource, ...], order: dict[Any, Resource]) -> None:
        """Put a resource behind those that it asks for; `way`: who asked for whom, down to this one."""
        if resource in way:
            names = " -> ".join(r.name for r in (*way[way.index(resource) :], resource))
            raise DefinitionError(f"resources that ask for each other cannot be opened: {names}", where=resource.where)
        if resource.kind in order:
            return
        for need in resource.needs:
            self._reach(need, (*way, resource), order)
        order[resource.kind] = resource

    def _missing(self, need: Need) -> DefinitionError:
        title, known = title_of(need.kind), [*self._defined, *self._values]
        meant = _meant(need.kind, known)
        fix = f"@app.resource\n           async def {need.parameter}() -> AsyncIterator[{title}]:"
        if meant:
            fix = f"{need.parameter}: {meant.removeprefix('; did you mean ').removesuffix('?')}"
        return DefinitionError(
            f"{need.asker} asks for {need.parameter}: {title}, and nobody provides one{meant}", where=need.where, fix=fix
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Mapping[Any, object]]:
        """Open all in order; their instances by type while the block runs; then close them, the last one first.

        What goes wrong at a close is logged, and stops no other.

        Raises:
            ResourceError: one could not be opened; those before it are closed.
        """
        held, opened = dict(self._values), list[tuple[Resource, AsyncGenerator[Any, None]]]()
        try:
            for resource in self._order.values():
                generator = call(resource.function, resource.needs, held)
                held[resource.kind] = await _opened(resource, generator)
                opened.append((resource, generator))
            yield held
        finally:
            await _close_all(opened)


def call(function: Callable[..., Any], needs: Sequence[Need], held: Mapping[Any, object]) -> Any:
    """Call something with what it asks for."""
    places = [held[need.kind] for need in needs if not need.keyword]
    return function(*places, **{need.parameter: held[need.kind] for need in needs if need.keyword})


def giver(function: Callable[..., R], needs: Sequence[Need], held: Mapping[Any, object]) -> Callable[[Any], R]:
    """A function of its first argument: behind that it is called with what it asks for."""
    return lambda first: call(partial(function, first), needs, held)


def _meant(kind: Any, known: Sequence[Any]) -> str:
    """``; did you mean HttpClient?``: one of that kind, else the closest name."""
    for other in known:
        if isinstance(kind, type) and isinstance(other, type) and issubclass(other, kind):
            return f"; did you mean {title_of(other)}?"
    close = difflib.get_close_matches(title_of(kind), [title_of(other) for other in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


async def _opened(resource: Resource, generator: AsyncGenerator[Any, None]) -> Any:
    try:
        instance = await anext(generator, _END)
    except Exception as error:
        raise ResourceError(resource.name, resource.where, f"{type(error).__name__}: {error}") from error
    if instance is _END:
        raise ResourceError(resource.name, resource.where, "it ended without a yield")
    return instance


async def _close_all(opened: Sequence[tuple[Resource, AsyncGenerator[Any, None]]]) -> None:
    until = asyncio.get_running_loop().time() + CLOSE_S
    interrupted: BaseException | None = None
    for resource, generator in reversed(opened):
        try:
            async with asyncio.timeout_at(until):
                if await anext(generator, _END) is not _END:
                    log.error("resource %s yields twice: what stands behind its second yield is not run", resource.name)
                    await generator.aclose()
        except Exception as error:
            log.error("resource %s failed to close: %s: %s", resource.name, type(error).__name__, error, exc_info=error)
        except asyncio.CancelledError as cancelled:
            interrupted = cancelled  # whoever waits for the end is gone; the others are closed all the same
    if interrupted is not None:
        raise interrupted
