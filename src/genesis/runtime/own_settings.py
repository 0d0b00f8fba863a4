"""The settings of the application itself: the user's classes, filled from `[app]` and `GENESIS_APP_*` over their defaults.

In: classes decorated with `@app.settings`, a table, variables. Out: an instance of each, and of each value where it came
from. What does not fit is an error that names the key and its place.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import msgspec

from genesis.core.errors import DefinitionError, SettingsError
from genesis.runtime.secret import HIDDEN, shielded

DEFAULT = "default"
SHOWN = 60
"""Characters of a value that does not fit that are shown."""
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    name: str = DEFAULT
    """``genesis.toml``, ``GENESIS_SLOTS``, ``--slots``, ``code`` or ``default``."""
    line: int = 0
    """Of the file; 0: there is none, or it is not known."""

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(frozen=True, slots=True)
class Given:
    """What is there for the settings of an application. Keys are paths below `[app]`."""

    table: Mapping[str, object] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Those of the environment that begin with ``GENESIS_APP_``."""
    file: str = ""
    lines: Mapping[Key, int] = field(default_factory=dict)

    def place(self, key: Key) -> Origin:
        """Where the file has a key."""
        return Origin(self.file, self.lines.get(key, 0))


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is in force."""

    name: str
    value: object
    origin: Origin
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class SettingsClass:
    """A class of settings as defined."""

    cls: type[msgspec.Struct]
    section: Key
    """Below `[app]`: empty for the application's own, else the name of its module."""
    where: str
    """Of its definition."""


def define_settings(cls: Any, section: Key, where: str) -> SettingsClass:
    """Check a class of settings.

    Raises:
        DefinitionError: it is no msgspec.Struct, or has a field of a type that is not known.
    """
    if not (isinstance(cls, type) and issubclass(cls, msgspec.Struct)):
        title = getattr(cls, "__name__", repr(cls))
        raise DefinitionError(f"{title} is no msgspec.Struct", where=where, fix=f"class {title}(msgspec.Struct, frozen=True):")
    try:
        list(_leaves(cls, section))
    except (NameError, TypeError) as error:
        raise DefinitionError(f"a field of {cls.__name__} has no type that is known: {error}", where=where) from error
    return SettingsClass(cls, section, where)


def variable_of(key: Key) -> str:
    """``("limits", "per-day")`` -> ``GENESIS_APP_LIMITS_PER_DAY``."""
    return "GENESIS_APP_" + re.sub(r"\W", "_", "_".join(key)).upper()


class OwnSettings:
    """The classes of one application together."""

    def __init__(self, app: str, classes: Sequence[SettingsClass]) -> None:
        """Check that they do not share a key.

        Raises:
            DefinitionError: two are for one section, or two keys for one variable.
        """
        self._app, self.classes = app, classes
        self._keys: dict[Key, SettingsClass] = {}
        self._variables: dict[str, Key] = {}
        sections: dict[Key, SettingsClass] = {}
        for found in classes:
            if found.section in sections:
                raise DefinitionError(
                    f"{found.cls.__name__} and {sections[found.section].cls.__name__} are both for {_section(found.section)};"
                    f" the other is at {sections[found.section].where}",
                    where=found.where,
                )
            sections[found.section] = found
            for key in _leaves(found.cls, found.section):
                self._add(key, found)
        for section, found in sections.items():
            for key, other in self._keys.items():
                if section and other is not found and key[: len(section)] == section:
                    raise DefinitionError(
                        f"the module {section[0]} has settings of its own, and {other.cls.__name__} has a field of that name,"
                        f" at {other.where}",
                        where=found.where,
                    )

    def _add(self, key: Key, found: SettingsClass) -> None:
        variable = variable_of(key)
        if variable in self._variables:
            other = self._keys[self._variables[variable]]
            raise DefinitionError(
                f"{_name(key)} and {_name(self._variables[variable])} would both be {variable}; the other is at {other.where}",
                where=found.where,
            )
        self._variables[variable] = key
        self._keys[key] = found

    def fill(self, given: Given, but: Collection[Any] = ()) -> tuple[dict[Any, object], list[Row]]:
        """An instance of each class, by class, and all values with their origins; none of the classes in `but`.

        Raises:
            SettingsError: a key is unknown, does not fit, or is missing.
        """
        self._check_known(given)
        rows: list[Row] = []
        instances: dict[Any, object] = {}
        for found in self.classes:
            if found.cls not in but:
                instances[found.cls] = _Filler(given, rows).struct(found.cls, found.section, None)
        return instances, rows

    def _check_known(self, given: Given) -> None:
        for variable in given.variables:
            if variable not in self._variables:
                raise SettingsError(f"unknown setting {variable}{self._meant(variable, self._variables)}", origin=variable)
        self._check_table(given, given.table, ())

    def _check_table(self, given: Given, table: Mapping[str, object], above: Key) -> None:
        known = {key[len(above)]: key for key in self._keys if key[: len(above)] == above and len(key) > len(above)}
        for name, value in table.items():
            key = (*above, name)
            if name not in known:
                raise SettingsError(f"unknown setting {_name(key)}{self._meant(name, known)}", origin=str(given.place(key)))
            if key in self._keys:
                continue
            if not isinstance(value, dict):
                shown = _shown(shielded(_name(key), value))
                raise SettingsError(f"{_name(key)} is {shown}: a table", origin=str(given.place(key)))
            self._check_table(given, value, key)

    def _meant(self, name: str, known: Mapping[str, object]) -> str:
        if not self._keys:
            return f": {self._app} has no class under @app.settings"
        close = difflib.get_close_matches(name, list(known), 1)
        return f"; did you mean {close[0]}?" if close else f"; {self._app} has {', '.join(sorted(known)) or 'none'}"


def _leaves(cls: type[msgspec.Struct], above: Key) -> Iterator[Key]:
    """The keys of a class; a field that is a struct itself is a section."""
    for found in msgspec.structs.fields(cls):
        key = (*above, found.encode_name)
        if _is_struct(found.type):
            yield from _leaves(found.type, key)
        else:
            yield key


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


class _Filler:
    """Fills one class."""

    def __init__(self, given: Given, rows: list[Row]) -> None:
        self._given, self._rows = given, rows

    def struct(self, cls: type[Any], above: Key, base: Any) -> Any:
        """An instance of a class: what is given, over `base`, over its defaults."""
        values: dict[str, object] = {}
        origins: list[tuple[str, Key, Any, Origin]] = []
        for found in msgspec.structs.fields(cls):
            key = (*above, found.encode_name)
            before = getattr(base, found.name) if base is not None else _default(found)
            if _is_struct(found.type):
                values[found.name] = self.struct(found.type, key, None if before is msgspec.NODEFAULT else before)
                continue
            value, origin = self._leaf(found.type, key)
            if value is msgspec.NODEFAULT and before is msgspec.NODEFAULT:
                raise SettingsError(
                    f"{_name(key)} is missing: write it under {_section(above)}, or set {variable_of(key)}"
                    f" (in a test: resources={{{cls.__name__}: {cls.__name__}(...)}})"
                )
            values[found.name] = before if value is msgspec.NODEFAULT else value
            origins.append((found.name, key, found.type, origin))
        try:
            instance = cls(**values)
        except (ValueError, TypeError) as error:  # of its __post_init__
            raise SettingsError(f"{_section(above)} does not fit: {error}", origin=self._given.file) from error
        self._rows += [Row(_name(key), getattr(instance, name), origin, _meaning(kind)) for name, key, kind, origin in origins]
        return instance

    def _leaf(self, kind: Any, key: Key) -> tuple[Any, Origin]:
        """A value and its origin; NODEFAULT when nothing is given."""
        variable = variable_of(key)
        text = self._given.variables.get(variable)
        if text is not None:
            return _checked(lambda: _from_text(text, kind), variable, text, Origin(variable)), Origin(variable)
        table: Any = self._given.table
        for part in key:
            if not isinstance(table, dict) or part not in table:
                return msgspec.NODEFAULT, Origin()
            table = table[part]
        place = self._given.place(key)
        return _checked(lambda: msgspec.convert(table, kind, dec_hook=_other), _name(key), table, place), place


def _checked(convert: Callable[[], Any], name: str, value: object, origin: Origin) -> Any:
    try:
        return convert()
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        why, hidden = str(error)[:1].lower() + str(error)[1:], shielded(name, value)
        if hidden != value:
            why = why.replace(str(value), HIDDEN)
        raise SettingsError(f"{name} is {_shown(hidden)}: {why}", origin=str(origin)) from error


def _from_text(text: str, kind: Any) -> Any:
    """A value from a variable: as text; what no text can be, such as a list, as JSON."""
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_other)
    except msgspec.ValidationError:
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found = None
        if not isinstance(found, list | dict):
            raise
        return msgspec.convert(found, kind, dec_hook=_other)


def _other(kind: type, value: Any) -> Any:
    if issubclass(kind, PurePath):
        return Path(value) if kind is Path else kind(value)
    raise TypeError(f"settings have no values of type {kind.__name__}")


def _default(found: msgspec.structs.FieldInfo) -> Any:
    if found.default_factory is not msgspec.NODEFAULT:
        return found.default_factory()
    return found.default


def _meaning(kind: Any) -> str:
    """What ``Annotated[int, Meta(description="...")]`` says."""
    notes = typing.get_args(kind)[1:] if typing.get_origin(kind) is typing.Annotated else ()
    return next((note.description for note in notes if isinstance(note, msgspec.Meta) and note.description), "")


def _name(key: Key) -> str:
    return ".".join(("app", *key))


def _section(section: Key) -> str:
    return f"[{_name(section)}]"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
