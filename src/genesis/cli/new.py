"""`genesis new`: a project that passes its own test."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import unicodedata
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from genesis.cli.talk import FAILED, USAGE, Failure, say, show

FILES = {
    "pyproject.toml": "pyproject.toml.tmpl",
    "{name}.py": "app.py.tmpl",
    "tests/test_{name}.py": "test_app.py.tmpl",
    "README.md": "README.md.tmpl",
    ".gitignore": "gitignore.tmpl",
}
"""Of each file of a project, the template. They are templates of the standard library: ``$name``."""
NAME_MAX = 60
_FITS = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
TAKEN = frozenset({"genesis", "tests", "test", "pytest", "click", "msgspec"})
"""Beside the standard library: a module of such a name would hide what the project needs."""


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Make a project NAME in a folder of that name: an application, its tests, and how to run it.

    What is there already is left as it is.
    """
    _check(name)
    folder = Path(name)
    if folder.exists() or folder.is_symlink():
        raise Failure(f"{name} is there already: choose another name, or remove it", FAILED)
    try:
        _write(folder, name)
    except OSError as error:
        raise Failure(f"{error.filename or folder} cannot be written: {error.strerror}", FAILED) from error
    for path in FILES:
        show(str(folder / path.format(name=name)))
    say(f"next: cd {name} && python -m pytest, then genesis run {name}:app")


def _check(name: str) -> None:
    """Raises Failure unless the name can be that of a folder, a module and an application at once."""
    if not _FITS.fullmatch(name) or len(name) > NAME_MAX:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        wish = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
        wish += "" if _free(wish) else "_app"
        hint = f", such as {wish}" if _FITS.fullmatch(wish) and len(wish) <= NAME_MAX else ""
        raise Failure(f"{name!r} is no name for a project: small letters, digits and single _, a letter first{hint}", USAGE)
    if not _free(name):
        raise Failure(f"{name!r} is taken: it is a word or a module of Python or of Genesis; try {name}_app", USAGE)


def _free(name: str) -> bool:
    return not keyword.iskeyword(name) and name not in TAKEN and name not in sys.stdlib_module_names


def _write(folder: Path, name: str) -> None:
    """All of it or nothing: beside its place first."""
    templates = files("genesis.cli") / "templates"
    making = folder.with_name(f".{name}.{os.getpid()}")
    try:
        for path, template in FILES.items():
            target = making / path.format(name=name)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = Template((templates / template).read_text(encoding="utf-8")).substitute(name=name)
            target.write_text(text, encoding="utf-8")
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
