"""One frozen tree of settings. Environment (`GENESIS_*`) over defaults; each default stands beside the machine it is for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from genesis.core.errors import SettingsError
from genesis.core.ports import Crasher, Engine
from genesis.layers.prevention.admission import BACKLOG_MAX, DISK_RESERVE_BYTES, AdmissionSettings
from genesis.layers.prevention.horizon import KEEP_IDS, KEEP_S
from genesis.layers.prevention.lanes import WINDOW_BYTES
from genesis.layers.recovery.overlay import CACHE_BYTES
from genesis.runtime.life import DRAIN_S, NodeSettings
from genesis.runtime.slot import GRACE_S, SLOTS

PREFIX = "GENESIS_"
ELSEWHERE = {"GENESIS_REQUIRE", "GENESIS_CRASH", "GENESIS_LOG"}
"""Variables with the prefix that are not settings of this tree."""
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""How a setting that is true or false is written in a variable."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a node. Times in seconds, sizes in bytes."""

    store: str = ""
    """Path of a SQLite file, or ``memory:``; empty: ``<app>.db``."""
    slots: int = SLOTS
    threads: int = 8
    window_bytes: int = WINDOW_BYTES
    cache_bytes: int = CACHE_BYTES
    drain_s: float = DRAIN_S
    grace_s: float = GRACE_S
    dedupe_s: float = KEEP_S
    dedupe_ids: int = KEEP_IDS
    backlog_max: int = BACKLOG_MAX
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    quota_bytes: int = 0
    """Size the store may reach; 0: as much as the disk has."""
    http: int = -1
    """Port of the HTTP door of `genesis run`; 0: any free one, -1: no door."""
    host: str = "127.0.0.1"
    """Address of the HTTP door. It asks nobody for a password: other machines reach it through a proxy that does."""
    http_connections: int = 1000
    """Clients that may be connected to the HTTP door: a tenth of a megabyte each at the worst."""
    trust_priority: bool = False
    """Clients of the HTTP door may raise the priority of an event above that of its class."""

    def __post_init__(self) -> None:
        """Raises SettingsError when a value is out of range."""
        self.node()
        if not -1 <= self.http <= 65535:
            raise SettingsError(f"http is {self.http}: a port, 0 for any free one, -1 for none")
        if self.http_connections < 1:
            raise SettingsError(f"http_connections is {self.http_connections}: at least 1")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from `GENESIS_*` variables over the defaults.

        Raises:
            SettingsError: a variable is unknown (with the closest name) or its value does not fit.
        """
        environment = os.environ if environment is None else environment
        known = {field.name: field for field in fields(cls)}
        given: dict[str, object] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or variable in ELSEWHERE:
                continue
            name = variable[len(PREFIX) :].lower()
            if name not in known:
                close = difflib.get_close_matches(name, list(known), 1)
                raise SettingsError(
                    f"unknown setting {variable}" + (f"; did you mean {PREFIX}{close[0].upper()}?" if close else "")
                )
            kind: type = type(known[name].default)
            try:
                given[name] = SWITCH[text.lower()] if kind is bool else kind(text)
            except (ValueError, KeyError):
                wanted = {int: "a whole number", bool: "true or false"}.get(kind, "a number")
                raise SettingsError(f"{variable} is {text!r}: {wanted}") from None
        return cls(**given)  # type: ignore[arg-type]

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
