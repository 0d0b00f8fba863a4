"""A whole application: components and sinks, their routes by name and by type, sources and resources; checked as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from genesis.core.errors import DefinitionError, UnknownTypeError
from genesis.runtime.component import Component, Route
from genesis.runtime.resource import Resources

if TYPE_CHECKING:
    from genesis.runtime.sink import Sink  # which knows the pipeline, and that knows this
    from genesis.runtime.source import Source  # as well


class Definition:
    """A whole application: routes by name and by type."""

    def __init__(
        self,
        name: str,
        components: Iterable[Component],
        sources: Iterable[Source],
        sinks: Iterable[Sink],
        version: str,
        resources: Resources,
    ) -> None:
        """Check what only the whole can tell.

        Raises:
            DefinitionError: two classes share a type, two sources a name, or two components or sinks, or a request has not
                exactly one handler.
        """
        self.name, self.version, self.resources = name, version, resources
        self.components: dict[str, Component] = {}
        self.sources = list(sources)
        places: dict[str, str] = {}
        for source in self.sources:
            if source.name in places:
                other = places[source.name]
                raise DefinitionError(f"two sources are named {source.name!r}; the other is at {other}", where=source.where)
            places[source.name] = source.where
        self.routes: dict[str, Route] = {}
        self.by_type: dict[str, list[Route]] = {}
        for component in components:
            if component.name in self.components:
                other = self.components[component.name].where
                raise DefinitionError(
                    f"two components are named {component.name!r}; the other is at {other}", where=component.where
                )
            self.components[component.name] = component
            for route in component.routes:
                self._add(route)
        self.sinks: dict[str, Sink] = {}
        for sink in sinks:
            taken = self.sinks.get(sink.name) or self.components.get(sink.name)
            if taken is not None:
                raise DefinitionError(f"the name {sink.name!r} is taken, at {taken.where}", where=sink.where, fix="name=...")
            self.sinks[sink.name] = sink
            self._add(sink.route)

    def _add(self, route: Route) -> None:
        kind = route.codec.type
        self.routes[route.name] = route
        if route.every_s is not None:
            return
        others = self.by_type.setdefault(kind, [])
        for other in others:
            if other.codec.message is not route.codec.message:
                raise DefinitionError(
                    f"{other.codec.message.__name__} and {route.codec.message.__name__} both have the type {kind!r}",
                    where=route.component.where,
                )
            if route.is_request:
                raise DefinitionError(
                    f"{route.codec.message.__name__} is a request with two handlers, {other.name} and {route.name}",
                    where=route.component.where,
                )
        others.append(route)

    def routes_of(self, kind: str) -> list[Route]:
        """Routes of a type.

        Raises:
            UnknownTypeError: nobody handles it; names the closest type.
        """
        found = self.by_type.get(kind)
        if found:
            return found
        close = difflib.get_close_matches(kind, list(self.by_type), 1, 0.5)
        raise UnknownTypeError(f"nobody handles {kind!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
