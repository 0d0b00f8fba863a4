"""What people install: the wheel has all that the package is made of, and works away from its source."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0
COMMAND = """
from importlib.metadata import entry_points
entry_points(group="console_scripts", name="genesis")["genesis"].load()()
"""
"""What the script `genesis` of an installation does."""


def ran(folder: Path, *arguments: str, site: Path | None = None) -> str:
    """What a command of this Python prints, with the packages of a folder before all others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GENESIS_", "PYTEST_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=kept | ({"PYTHONPATH": str(site)} if site else {}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by what is installed here: no network, and no environment of its own."""
    folder = tmp_path_factory.mktemp("dist")
    ran(ROOT, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (found,) = folder.iterdir()
    return found


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """A wheel of nothing but Python is installed by unpacking it."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "src"
    files = {str(path.relative_to(source)) for path in (source / "genesis").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files
    assert {"genesis/py.typed", "genesis/cli/templates/app.py.tmpl"} <= packed


def test_a_project_is_made_and_tested_with_what_the_wheel_installs(installed: Path, tmp_path: Path) -> None:
    where = ran(tmp_path, "-c", "import genesis.cli.new; print(genesis.cli.new.__file__)", site=installed)
    assert Path(where.strip()) == installed / "genesis" / "cli" / "new.py"
    ran(tmp_path, "-c", COMMAND, "new", "shop", site=installed)
    assert "2 passed" in ran(tmp_path / "shop", "-m", "pytest", "-q", site=installed)
