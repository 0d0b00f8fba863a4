import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis import App
from genesis.cli.main import main
from genesis.cli.talk import Failure
from genesis.cli.where import find_store, load_app, stores_in

HEADER = b"SQLite format 3\0".ljust(68, b"\0") + b"GENS" + bytes(28)
APP = "from genesis import App, Message\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("GENESIS_STORE", raising=False)
    return tmp_path


# --- the store ------------------------------------------------------------------------------------------------------


def test_the_only_store_in_a_folder_is_found(here: Path) -> None:
    (here / "shop.db").write_bytes(HEADER)
    (here / "other.db").write_bytes(b"SQLite format 3\0".ljust(100, b"\0"))
    (here / "empty.db").touch()
    (here / "folder.db").mkdir()
    assert find_store(None) == Path("shop.db")
    assert stores_in(here) == [here / "shop.db"]


def test_none_or_several_are_a_usage_error_that_says_what_to_do(here: Path) -> None:
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr) == (
        2,
        "genesis: there is no store in this folder: name one with --store PATH or GENESIS_STORE\n",
    )
    for name in ("a.db", "b.db"):
        (here / name).write_bytes(HEADER)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr) == (
        2,
        "genesis: there are 2 stores here (a.db, b.db): name one with --store PATH\n",
    )


@pytest.mark.parametrize("store", ["memory:", ":memory:", "nats://localhost", "postgres://x/y"])
def test_stores_that_cannot_be_looked_at(store: str, here: Path) -> None:
    assert CliRunner().invoke(main, ["status", "--store", store]).exit_code == 2


def test_the_environment_names_a_store(here: Path) -> None:
    result = CliRunner(env={"GENESIS_STORE": "nope.db"}).invoke(main, ["status"])
    assert result.exit_code == 3
    assert result.stderr.startswith("genesis: nope.db: there is no store")


def test_a_prefix_that_run_takes_is_taken_here_too() -> None:
    assert find_store("sqlite:a/b.db") == Path("a/b.db")


# --- the application ------------------------------------------------------------------------------------------------


def test_an_application_is_imported_from_the_folder(here: Path) -> None:
    (here / "pack").mkdir()
    (here / "pack" / "here.py").write_text(APP + 'class Shop:\n    app = App("shop")\n')
    found = load_app("pack.here:Shop.app")
    assert isinstance(found, App)
    assert found.name == "shop"


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ("shop", 2, "'shop' does not name an application: write MODULE:APP, such as shop:app"),
        ("shop:", 2, "'shop:' does not name an application"),
        (":app", 2, "':app' does not name an application: write MODULE:APP, such as shop:app"),
        ("a-b:app", 2, "'a-b:app' does not name an application"),
        ("shop.py:app", 2, "'shop.py:app': name the module, not the file: shop:app"),
        ("./pack/shop.py", 2, "'./pack/shop.py': name the module, not the file: pack.shop:app"),
        ("shopp:app", 2, r"there is no module 'shopp' in .*; did you mean 'shop'\?"),
        ("shop.inner:app", 2, r"there is no module 'shop.inner' in shop"),
        ("nothing_like_it:app", 2, "there is no module 'nothing_like_it' in [^;]*$"),
        ("shop:ap", 2, r"shop has no 'ap'; did you mean 'app'\?"),
        ("shop:zzz", 2, "shop has no 'zzz'; it has shop:app"),
        ("shop:Thing", 2, "shop:Thing is no App but the class Thing; it has shop:app"),
        ("plain:number", 2, r'plain:number is no App but of type int; write: app = App\("shop"\)'),
        ("needs:app", 3, r"importing needs failed: No module named 'not_installed' \(.*needs.py:1\)"),
        ("divides:app", 3, r"importing divides failed: ZeroDivisionError: division by zero \(.*divides.py:1\)"),
        ("broken:app", 3, r"importing broken failed: SyntaxError: .*broken.py"),
        ("leaves:app", 3, "importing leaves failed: SystemExit: 7"),
    ],
)
def test_what_cannot_be_imported_is_said_in_a_line(spec: str, code: int, said: str, here: Path) -> None:
    sources = {
        "shop": APP + 'app = App("shop")\nclass Thing: ...\n',
        "plain": "number = 1\n",
        "needs": "import not_installed\n",
        "divides": "1 / 0\n",
        "broken": "def (\n",
        "leaves": "raise SystemExit(7)\n",
    }
    for name, source in sources.items():
        (here / f"{name}.py").write_text(source)
    with pytest.raises(Failure) as caught:
        load_app(spec)
    assert caught.value.code == code
    assert re.match(said, caught.value.message)
    assert "\n" not in caught.value.message


def test_a_definition_error_is_printed_as_it_is(here: Path) -> None:
    (here / "wrong.py").write_text(APP + "class Placed(Message):\n    sku: str\n")
    result = CliRunner().invoke(main, ["run", "wrong:app", "--log", "pretty"])
    assert result.exit_code == 3
    assert result.stderr.startswith(
        "class Placed: a message needs the type of its event\n    write: class Placed(Message, type="
    )
