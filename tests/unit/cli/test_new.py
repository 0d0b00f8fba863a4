"""`genesis new`, and the project that it makes, as its owner would use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis.cli.main import main
from genesis.cli.new import FILES
from tests.unit.cli.support import DEADLINE_S, SOURCE, Running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GENESIS_", "PYTEST_"))}
    return {**kept, "PYTHONPATH": SOURCE}


def test_a_new_project_passes_its_own_tests(here: Path) -> None:
    made = CliRunner().invoke(main, ["new", "depot"])
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == [f"depot/{path.format(name='depot')}" for path in FILES]
    assert made.stderr == "next: cd depot && python -m pytest, then genesis run depot:app\n"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=here / "depot",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_new_project_runs(here: Path) -> None:
    assert CliRunner().invoke(main, ["new", "depot"]).exit_code == 0
    said = here / "said.txt"
    with said.open("wb") as stderr:
        command = [sys.executable, "-m", "genesis", "run", "depot:app", "--log", "pretty"]
        process = subprocess.Popen(command, cwd=here / "depot", env=environment(), stderr=stderr)
    try:
        running = Running(process, said)
        running.tell(signal.SIGTERM)
        assert running.ended() == 0
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def test_what_is_there_is_left_as_it_is(here: Path) -> None:
    (here / "depot").write_text("mine")
    done = CliRunner().invoke(main, ["new", "depot"])
    assert (done.exit_code, done.stderr) == (
        1,
        "genesis: depot is there already: choose another name, or remove it\n",
    )
    assert (here / "depot").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-shop", "'my-shop' is no name for a project: small letters, digits and single _, a letter first, such as my_shop"),
        ("Shop", "'Shop' is no name for a project: small letters, digits and single _, a letter first, such as shop"),
        ("../shop", "'../shop' is no name for a project"),
        ("1shop", "'1shop' is no name for a project: small letters, digits and single _, a letter first\n"),
        ("", "'' is no name for a project"),
        ("s" * 61, "is no name for a project"),
        ("schöp", "a letter first, such as schop\n"),
        ("shop____x", "a letter first, such as shop_x\n"),
        ("Shop -- x", "a letter first, such as shop_x\n"),
        ("shop_", "a letter first, such as shop\n"),
        ("_shop", "a letter first, such as shop\n"),
        ("JSON", "a letter first, such as json_app\n"),
        ("s" * 61 + "-", "a letter first\n"),
        ("shop\n", "'shop\\n' is no name for a project"),
        ("class", "'class' is taken"),
        ("json", "'json' is taken: it is a word or a module of Python or of Genesis; try json_app"),
        ("genesis", "'genesis' is taken"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(name: str, said: str, here: Path) -> None:
    done = CliRunner().invoke(main, ["new", name])
    assert done.exit_code == 2
    assert said in done.stderr
    assert not list(here.iterdir())


def test_a_folder_that_cannot_be_written_is_said(here: Path) -> None:
    if os.geteuid() == 0:
        (here / f".depot.{os.getpid()}").write_text("in the way")
    else:
        here.chmod(0o500)
    done = CliRunner().invoke(main, ["new", "depot"])
    here.chmod(0o700)
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert not (here / "depot").exists()
