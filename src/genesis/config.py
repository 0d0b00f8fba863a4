"""One frozen tree of settings, which knows where each value came from: flag > `GENESIS_*` > file > default.

The file is `genesis.toml` in the working directory, or the one that is named, or `[tool.genesis]` of `pyproject.toml`. Each
default and each range stands beside the machine that it is for.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from genesis.core.errors import SettingsError
from genesis.core.ports import Crasher, Engine
from genesis.layers.prevention.admission import BACKLOG_MAX, DISK_RESERVE_BYTES, AdmissionSettings
from genesis.layers.prevention.horizon import KEEP_IDS, KEEP_S
from genesis.layers.prevention.lanes import WINDOW_BYTES
from genesis.layers.recovery.overlay import CACHE_BYTES
from genesis.runtime.life import DRAIN_S, NodeSettings
from genesis.runtime.own_settings import Given, Key, Origin, Row
from genesis.runtime.policy import policies
from genesis.runtime.policy_settings import FITTING as FITTING_A_POLICY
from genesis.runtime.policy_settings import PREFIX as POLICY_PREFIX
from genesis.runtime.policy_settings import SWITCH, rows_of, tune
from genesis.runtime.slot import GRACE_S, SLOTS

PREFIX = "GENESIS_"
APP_PREFIX = "GENESIS_APP_"
FILE_VARIABLE = "GENESIS_CONFIG"
"""Names the file, instead of the one in the working directory."""
ELSEWHERE = {"GENESIS_REQUIRE", "GENESIS_CRASH", "GENESIS_LOG", FILE_VARIABLE}
"""Variables with the prefix that are not settings of this tree."""
FILE, PROJECT = "genesis.toml", "pyproject.toml"
FITTING = {**FITTING_A_POLICY, str: "text"}
TABLES = ("app", "policy")
"""Sections of the file that are no settings of this tree."""
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def _setting(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a node. Times in seconds, sizes in bytes. `genesis config --explain` tells of each."""

    store: str = _setting("", "Path of a SQLite file, or memory:; empty: NAME.db, by the application's name")
    slots: int = _setting(SLOTS, "Deliveries that may run at once; at least 1")
    threads: int = _setting(8, "Plain handlers that may run at once, each in a thread; at least 1")
    window_bytes: int = _setting(WINDOW_BYTES, "Waiting deliveries that are held in memory; the others wait in the store")
    cache_bytes: int = _setting(CACHE_BYTES, "States that are held in memory")
    drain_s: float = _setting(DRAIN_S, "How long running handlers have at a stop")
    grace_s: float = _setting(GRACE_S, "How long an attempt may ignore its cancellation before it is given up")
    dedupe_s: float = _setting(KEEP_S, "How long an id is known, so that its event is accepted once")
    dedupe_ids: int = _setting(KEEP_IDS, "How many ids are known at the most")
    backlog_max: int = _setting(BACKLOG_MAX, "Expected deliveries that may wait before intake is refused")
    disk_reserve_bytes: int = _setting(DISK_RESERVE_BYTES, "Intake is refused when less is left on the disk")
    quota_bytes: int = _setting(0, "Size the store may reach, from 1 MiB; intake ends at 70 % of it. 0: the disk's")
    http: int = _setting(-1, "Port of the HTTP door of genesis run; 0: any free one, -1: no door")
    host: str = _setting(
        "127.0.0.1", "Address of the HTTP door. It asks nobody for a password: put a proxy that does before it"
    )
    http_connections: int = _setting(1000, "Clients that may be connected to the HTTP door: up to a tenth of a megabyte each")
    trust_priority: bool = _setting(False, "Whether clients of the HTTP door may raise a priority above that of its class")
    app: Given = field(default_factory=Given)
    """What there is for the application's own settings."""
    policies: Given = field(default_factory=Given)
    """What there is for the settings of policies. Whether it fits is known when these are: `tune_policies`."""
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    """Of the values that were read, by name."""

    def __post_init__(self) -> None:
        """Raises SettingsError when a value is out of range."""
        self.node()
        if not -1 <= self.http <= 65535:
            raise SettingsError(f"http is {self.http}: a port, 0 for any free one, -1 for none")
        if self.http_connections < 1:
            raise SettingsError(f"http_connections is {self.http_connections}: at least 1")

    @classmethod
    def load(
        cls,
        *,
        file: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Settings:
        """Settings from a file, over the defaults; from `GENESIS_*` variables, over these; and from flags, over all.

        Args:
            file: Default: `GENESIS_CONFIG`, else ``genesis.toml`` here, else ``[tool.genesis]`` of ``pyproject.toml`` here.
            environment: Default: that of this process.
            flags: What the command line says, by name of the setting.

        Raises:
            SettingsError: the file cannot be read, a key is unknown (with the closest one), or its value does not fit.
        """
        environment = os.environ if environment is None else environment
        found = _read(file or environment.get(FILE_VARIABLE))
        given = dict(_from_file(found)) | dict(_from_variables(environment))
        given |= {name: (value, Origin(option_of(name))) for name, value in (flags or {}).items()}
        app = _section_of(found, "app", _with(APP_PREFIX, environment))
        return cls._of(given, app, _section_of(found, "policy", _with(POLICY_PREFIX, environment)))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from `GENESIS_*` variables over the defaults, whatever files there are.

        Raises:
            SettingsError: a variable is unknown (with the closest name) or its value does not fit.
        """
        environment = os.environ if environment is None else environment
        app, policy = (Given(variables=_with(prefix, environment)) for prefix in (APP_PREFIX, POLICY_PREFIX))
        return cls._of(dict(_from_variables(environment)), app, policy)

    @classmethod
    def _of(cls, given: Mapping[str, tuple[Any, Origin]], app: Given, policy: Given) -> Settings:
        for name, (value, origin) in given.items():
            try:
                cls(**{name: value})
            except SettingsError as error:
                raise SettingsError(error.what, origin=str(origin)) from None
        values = {name: value for name, (value, _) in given.items()}
        return cls(**values, app=app, policies=policy, origins={name: origin for name, (_, origin) in given.items()})

    def rows(self) -> list[Row]:
        """Each setting as it is in force, with its origin and its meaning."""
        found = []
        for name, known in known_settings().items():
            value = getattr(self, name)
            origin = self.origins.get(name) or Origin(*() if value == known.default else ("code",))
            found.append(Row(name, value, origin, known.metadata["meaning"]))
        return found

    def tune_policies(self) -> None:
        """Give the policies that there are what is given for them. Raises SettingsError, and then none has changed."""
        tune(self.policies, policies())

    def policy_rows(self, *, every: bool) -> list[Row]:
        """Their settings as they are in force: all, or those that are not the default. Raises SettingsError."""
        return rows_of(self.policies, policies(), every=every)

    def node(self) -> NodeSettings:
        """The part that the runtime wants. Raises SettingsError."""
        try:
            return NodeSettings(
                slots=self.slots,
                threads=self.threads,
                window_bytes=self.window_bytes,
                cache_bytes=self.cache_bytes,
                drain_s=self.drain_s,
                grace_s=self.grace_s,
                dedupe_s=self.dedupe_s,
                dedupe_ids=self.dedupe_ids,
                admission=AdmissionSettings(self.backlog_max, self.disk_reserve_bytes, self.quota_bytes or None),
            )
        except ValueError as error:
            raise SettingsError(str(error)) from None


def known_settings() -> dict[str, Any]:
    """The dataclass field of each setting, by name; its meaning is ``metadata["meaning"]``."""
    return {known.name: known for known in fields(Settings) if "meaning" in known.metadata}


def option_of(name: str) -> str:
    """The option of a setting on the command line: ``--drain`` for drain_s, ``--window-bytes`` for window_bytes."""
    return f"--{name.removesuffix('_s').replace('_', '-')}"


# --- the environment ------------------------------------------------------------------------------------------------


def _from_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[object, Origin]]]:
    known = known_settings()
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable.startswith((APP_PREFIX, POLICY_PREFIX)) or variable in ELSEWHERE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            close = difflib.get_close_matches(name, list(known), 1)
            meant = f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""
            raise SettingsError(f"unknown setting {variable}{meant}", origin=variable)
        kind: type = type(known[name].default)
        try:
            yield name, (SWITCH[text.lower()] if kind is bool else kind(text), Origin(variable))
        except (ValueError, KeyError):
            raise SettingsError(f"{variable} is {text!r}: {FITTING[kind]}", origin=variable) from None


def _with(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {variable: text for variable, text in environment.items() if variable.startswith(prefix)}


# --- the file -------------------------------------------------------------------------------------------------------


def _from_file(found: Given) -> Iterator[tuple[str, tuple[object, Origin]]]:
    known = known_settings()
    for name, value in found.table.items():
        if name in TABLES:
            continue
        place = found.place((name,))
        if name not in known:
            what = f"section [{name}]" if isinstance(value, dict) else f"setting {name}"
            close = difflib.get_close_matches(name, [*known, *TABLES], 1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}, [app] and [policy.NAME]"
            raise SettingsError(f"unknown {what}{meant}", origin=str(place))
        kind: type = type(known[name].default)
        if kind is float and type(value) is int:
            value = float(value)  # 10 is a number of seconds too
        if type(value) is not kind:
            raise SettingsError(f"{name} is {value!r}: {FITTING[kind]}", origin=str(place))
        yield name, (value, place)


def _section_of(found: Given, name: str, variables: Mapping[str, str]) -> Given:
    table = found.table.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{name} is {table!r}: a table", origin=str(found.place((name,))))
    lines = {key[1:]: line for key, line in found.lines.items() if key[:1] == (name,)}
    return Given(table, variables, found.file, lines)


def _read(named: str | Path | None) -> Given:
    """The file that was named, else the one here; empty when there is none. Raises SettingsError."""
    if named is not None:
        path = Path(named)
        text = _text(path)
        if path.name == PROJECT and not _is_ours(text):
            raise SettingsError("it has no [tool.genesis]", origin=str(path))
    elif Path(FILE).exists():
        path = Path(FILE)
        text = _text(path)
    else:
        path = Path(PROJECT)
        text = _text(path) if path.is_file() else ""
        if not _is_ours(text):
            return Given()
    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"it is no TOML: {error}", origin=str(path)) from error
    above: Key = ("tool", "genesis") if path.name == PROJECT else ()
    for part in above:
        table = table.get(part, {})
    lines = {key[len(above) :]: line for key, line in _lines(text) if key[: len(above)] == above}
    return Given(table, {}, str(path), lines)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"it cannot be read: {error.strerror}", origin=str(path)) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"it is no UTF-8: {error.reason} at byte {error.start}", origin=str(path)) from error


def _is_ours(text: str) -> bool:
    return re.search(r"^\s*\[\s*tool\s*\.\s*genesis\s*[\].]", text, re.MULTILINE) is not None


def _lines(text: str) -> Iterator[tuple[Key, int]]:
    """Where keys and sections stand, as far as that can be told from single lines."""
    section: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _parts(header[1])
            yield section, number
        elif key := _KEY.match(line):
            yield (*section, *_parts(key[1])), number


def _parts(dotted: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


# --- the engine -----------------------------------------------------------------------------------------------------


def engine_for(store: str, settings: Settings, crash: Crasher | None = None) -> Engine:
    """The engine that a store's name asks for. Imports only that one.

    Raises:
        SettingsError: no engine has this kind of name.
    """
    if store in ("memory:", ":memory:"):
        from genesis.engines.memory import MemoryEngine

        return MemoryEngine(crash=crash)
    if "://" in store:
        raise SettingsError(f"{store!r}: this version knows SQLite files and memory:")
    from genesis.engines.sqlite import SqliteEngine

    return SqliteEngine(Path(store.removeprefix("sqlite:")), crash=crash, quota_bytes=settings.quota_bytes or None)
