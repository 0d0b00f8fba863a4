"""The rules of the house that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import genesis

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "genesis").rglob("*.py"))
LINES_MAX = 400
FUNCTION_MAX = 60
NAMES_MAX = 40
CLOCKS = {"time", "datetime"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_answers_one_question(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_fits_on_a_screen(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            lines = node.end_lineno - node.lineno + 1
            if docstring is not None:
                lines -= docstring.end_lineno - docstring.lineno + 1
            assert lines <= FUNCTION_MAX, f"{node.name} has {lines} lines"


def test_time_is_read_in_one_file_of_the_runtime() -> None:
    for path in SOURCES:
        room = path.relative_to(ROOT / "src" / "genesis").parts[0]
        if room in ("cli",) or path.name == "clock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not CLOCKS & set(names), f"{path} imports {names}"


def test_the_public_names_are_few_and_documented() -> None:
    assert len(genesis.__all__) <= NAMES_MAX
    assert sorted(genesis.__all__) == genesis.__all__
    for name in genesis.__all__:
        assert getattr(genesis, name).__doc__, name


def test_errors_end_in_error_and_have_a_code_of_their_own() -> None:
    from genesis.core import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, genesis.GenesisError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert all(kind.__name__.endswith("Error") or kind is genesis.Reject for kind in kinds)


def test_importing_genesis_loads_no_heavy_library() -> None:
    code = "import sys; from genesis import *; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"uvicorn", "prometheus_client", "rich", "click", "sqlite3", "http", "email", "unittest"} & set(loaded)


def test_every_public_name_is_imported_from_where_the_checkers_see_it() -> None:
    tree = ast.parse((ROOT / "src" / "genesis" / "__init__.py").read_text())
    seen = {a.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    homes = {name: home for name, home in seen.items() if str(home).startswith("genesis.")}
    assert homes == genesis._HOMES
    assert sorted(homes) == genesis.__all__
    assert set(homes) <= set(dir(genesis))


def test_a_name_that_is_not_public_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="module 'genesis' has no attribute 'Setings'") as found:
        genesis.Setings  # noqa: B018 - reading it is the test
    assert (found.value.name, found.value.obj) == ("Setings", genesis), "Python says from these what was meant"


def test_genesis_alone_imports_none_of_its_modules() -> None:
    code = "import sys, genesis; print(*(m for m in sys.modules if m.partition('.')[0] in ('genesis', 'msgspec', 'asyncio')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "genesis"
    ]
