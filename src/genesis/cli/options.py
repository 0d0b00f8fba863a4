"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def store_option(command: F) -> F:
    """The option `--store`."""
    return click.option(
        "--store",
        metavar="PATH",
        envvar="GENESIS_STORE",
        help="The store; by default $GENESIS_STORE, else the one here.",
    )(command)


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
