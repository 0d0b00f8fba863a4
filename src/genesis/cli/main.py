"""The command `genesis`: finds the subcommand, and turns every error into a line and an exit code.

A subcommand's module is imported when it is used, so that `genesis --help` is quick.

Exit codes: 0 ok, 1 failed, 2 usage, 3 settings, definition or store, 4 nobody there, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from genesis.cli.talk import OK, deafen, did_you_mean, report
from genesis.runtime.release import version

SUBCOMMANDS = {
    "new": "Make a project that passes its own test.",
    "run": "Run an application until it is told to stop.",
    "send": "Send events to an application.",
    "status": "Show where an application stands.",
    "tail": "Follow what happens in a store.",
    "dlq": "List, show, replay or drop dead letters.",
    "state": "Look at the state of components.",
    "simulate": "Run a scenario in many simulated worlds.",
    "config": "Show the settings, and where each comes from.",
    "doctor": "Check the machine and the store.",
    "bench": "Measure this machine, with a job or with an application.",
    "completion": "Print what completes commands in a shell.",
}
"""Each is the command of that name in the module of that name."""


class Genesis(click.Group):
    """A group that knows its subcommands by name, and imports the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order in which a newcomer needs them."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = getattr(import_module(f"genesis.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that the arguments name, or a usage error with the closest one."""
        name = args[0]
        if name not in SUBCOMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no command {name!r}{did_you_mean(name, SUBCOMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the options before the subcommand; `--help` and `--version` are answered here."""
        with _quiet_pipe():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        with _quiet_pipe():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit; nothing but `SystemExit` comes out."""
        extra = {"prog_name": "genesis", **extra, "standalone_mode": False}
        try:
            code = super().main(*args, **extra)
        except Exception as error:
            code = report(error)
        sys.exit(code if isinstance(code, int) else OK)


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """When whoever read our output has left (`genesis dlq list | head`), that is no failure."""
    try:
        yield
    except BrokenPipeError:
        deafen()
        raise click.exceptions.Exit(OK) from None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"genesis {version()}")
        ctx.exit()


@click.group("genesis", cls=Genesis, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version.")
def main() -> None:
    """Run event-processing applications that keep their promises while things break.

    Data goes to stdout and talk to stderr; --json prints data for programs. GENESIS_LOG=debug shows the traceback of
    an error. Start with: genesis run MODULE:APP
    """
