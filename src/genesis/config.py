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

    def __post_init__(self) -> None:
        """Raises SettingsError when a value is out of range."""
        self.node()

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
                given[name] = kind(text)
            except ValueError:
                raise SettingsError(f"{variable} is {text!r}: {'a whole number' if kind is int else 'a number'}") from None
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
