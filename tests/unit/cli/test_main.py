import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from genesis.cli.main import SUBCOMMANDS, main
from tests.unit.cli.support import SOURCE

LOOK = """
import json, sys
from genesis.cli.main import main
try:
    main(["--help"])
except SystemExit as end:
    print(json.dumps([end.code, sorted(name for name in sys.modules if name.startswith("genesis.cli"))]))
"""


def commands(group: click.Group, path: str = "genesis") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL = dict(commands(main))


def test_all_subcommands_are_there() -> None:
    assert set(ALL) == {
        "genesis new",
        "genesis run",
        "genesis send",
        "genesis status",
        "genesis tail",
        "genesis dlq list",
        "genesis dlq show",
        "genesis dlq replay",
        "genesis dlq drop",
        "genesis state get",
        "genesis state list",
        "genesis simulate",
        "genesis config",
        "genesis doctor",
        "genesis bench",
        "genesis completion",
    }
    shown = CliRunner().invoke(main, ["--help"]).stdout
    assert all(f"{name} " in shown and about in shown for name, about in SUBCOMMANDS.items())


SILENT = {"genesis run", "genesis new", "genesis completion"}
"""They print nothing of an application."""


@pytest.mark.parametrize("path", sorted(set(ALL) - SILENT))
def test_everything_that_prints_has_json(path: str) -> None:
    assert any({"--json", "--jsonl"} & set(parameter.opts) for parameter in ALL[path].params)


@pytest.mark.parametrize("path", sorted(ALL))
def test_everything_explains_itself(path: str) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter
    assert CliRunner().invoke(main, [*path.split()[1:], "-h"]).exit_code == 0


def test_help_imports_no_subcommand() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, ["genesis.cli", "genesis.cli.main", "genesis.cli.talk"]]


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("genesis 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("staus", "genesis: no command 'staus'; did you mean 'status'?\n  see: genesis --help\n"),
        ("xyz", "genesis: no command 'xyz'\n  see: genesis --help\n"),
        ("--frob", "genesis: No such option '--frob'"),
        ("run", "genesis run: Missing argument 'MODULE:APP'\n  see: genesis run --help\n"),
        ("run shop:app --drain -1", "genesis run: Invalid value for '--drain'"),
        ("dlq lst", "genesis dlq: No such command 'lst'"),
        ("dlq list --limit 0", "genesis dlq list: Invalid value for '--limit'"),
        ("send a {} --priority urgent", "genesis send: Invalid value for '--priority'"),
        ("send a {} --timeout 0", "genesis send: Invalid value for '--timeout'"),
        ("state get", "genesis state get: Missing argument 'COMPONENT'"),
    ],
)
def test_usage_errors_are_two_lines_and_exit_2(arguments: str, said: str) -> None:
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 2
    assert not result.stdout
