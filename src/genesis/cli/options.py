"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

from genesis.config import FILE, FILE_VARIABLE, Settings, known_settings, option_of

F = TypeVar("F", bound=Callable[..., Any])
KINDS = {int: "N", float: "X", str: "TEXT", bool: "true|false"}
SPECIAL = {"store": "PATH", "http": "PORT", "host": "ADDRESS"}
"""What stands for a value in the help."""
HERE = f"The store; by default $GENESIS_STORE, else that of {FILE}, else the one here."
"""Of commands that look at a store which is there already."""


def setting_flags(*names: str) -> Callable[[F], F]:
    """The option `--config`, and those of these settings."""

    def add(command: F) -> F:
        for name, known in reversed(known_settings().items()):
            if name not in names:
                continue
            kind = click.FloatRange(min=0) if isinstance(known.default, float) else type(known.default)
            unit = {"_s": "SECONDS", "_bytes": "BYTES"}.get(name[name.rfind("_") :]) or KINDS[type(known.default)]
            about = HERE if names == ("store",) else f"{known.metadata['meaning']}."
            command = click.option(option_of(name), name, type=kind, metavar=SPECIAL.get(name, unit), help=about)(command)
        about = f"Settings, instead of {FILE} here; also ${FILE_VARIABLE}."
        return click.option("--config", metavar="FILE", help=about)(command)

    return add


def load_settings(config: str | None, flags: dict[str, Any]) -> Settings:
    """Settings from the options of `setting_flags`, the environment and the file. Raises SettingsError."""
    return Settings.load(file=config, flags={name: value for name, value in flags.items() if value is not None})


def settings_options(*names: str) -> Callable[[F], F]:
    """The same; the command is given `settings` instead: from these, the environment and the file."""

    def add(command: F) -> F:
        @wraps(command)
        def given_settings(*arguments: Any, config: str | None, **given: Any) -> Any:
            flags = {name: given.pop(name) for name in names}
            return command(*arguments, settings=load_settings(config, flags), **given)

        return setting_flags(*names)(cast("F", given_settings))

    return add


def given_options(ctx: click.Context) -> list[str]:
    """The options with a value that a command was given, as they are written."""
    options = [p for p in ctx.command.params if isinstance(p, click.Option) and not p.is_flag]
    given = [(p.opts[0], ctx.params[p.name or ""]) for p in options]
    return [str(part) for option, value in given if value is not None for part in (option, value)]


store_option = settings_options("store")
"""The options `--store` and `--config`; the command is given `settings`."""


def json_option(command: F) -> F:
    """The option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def app_option(command: F) -> F:
    """The option `--app`."""
    return click.option("--app", metavar="MODULE:APP", help="Opens the store here when nobody runs.")(command)


def timeout_option(command: F) -> F:
    """The option `--timeout`."""
    kind = click.FloatRange(min=0, min_open=True)
    about = "How long to wait for an answer of the process that runs."
    return click.option("--timeout", type=kind, default=5.0, show_default=True, metavar="SECONDS", help=about)(command)
