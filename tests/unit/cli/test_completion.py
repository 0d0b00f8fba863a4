import pytest
from click.testing import CliRunner

from genesis.cli.main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_GENESIS_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("genesis sta", {"status", "state"}),
        ("genesis be", {"bench"}),
        ("genesis dlq re", {"replay"}),
        ("genesis status --js", {"--json"}),
    ],
)
def test_what_is_typed_is_completed(typed: str, found: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = CliRunner(env={"_GENESIS_COMPLETE": "bash_complete", **words}).invoke(main, [])
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == found


def test_an_unknown_shell_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
