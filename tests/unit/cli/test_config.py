"""Settings: flag > variable > file > default, each with its origin; what does not fit is named with its place."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genesis import App, Context, Settings, SettingsError, on
from genesis.cli.main import main
from tests.unit.runtime.support import Done, Job

SHOP = """
import msgspec
from genesis import App, Context, Message, on

app = App("shop")


class Ping(Message, type="ping"):
    n: int = 0


@app.settings
class Shop(msgspec.Struct):
    currency: str = "EUR"
    fee: float = 0.5


@app.component
class Pinger:
    @on(Ping)
    async def ping(self, ping: Ping, ctx: Context) -> None: ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def config(*arguments: str, **variables: str) -> dict[str, Any]:
    """What `genesis config --json` prints, by name."""
    result = CliRunner(env=variables).invoke(main, ["config", "--json", *arguments])
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["schema"] == 1
    return {row.pop("name"): row for row in printed["settings"]}


def sources(rows: dict[str, Any], *names: str) -> list[tuple[Any, str]]:
    return [(rows[name]["value"], rows[name]["source"]) for name in names]


# --- where values come from -----------------------------------------------------------------------------------------


def test_a_flag_stands_over_a_variable_that_over_the_file_and_that_over_the_default(here: Path) -> None:
    (here / "genesis.toml").write_text("slots = 1\nthreads = 2\n# nothing\ndrain_s = 3\n")
    rows = config("--slots", "9", "--drain", "1.5", GENESIS_SLOTS="5", GENESIS_THREADS="6")
    assert sources(rows, "slots", "threads", "drain_s", "grace_s") == [
        (9, "--slots"),
        (6, "GENESIS_THREADS"),
        (1.5, "--drain"),
        (1.0, "default"),
    ]
    rows = config()
    assert sources(rows, "drain_s") == [(3.0, "genesis.toml")]
    assert (rows["drain_s"]["line"], rows["grace_s"]["line"]) == (4, None)
    assert all(row["meaning"] for row in rows.values())


def test_the_file_can_be_named_and_pyproject_takes_its_place(here: Path) -> None:
    (here / "pyproject.toml").write_text(
        '[project]\nname = "shop"\n\n[tool.genesis]\nslots = 2\n\n[tool.genesis.app]\nfee = 1\n'
    )
    rows = config("shop:app")
    assert sources(rows, "slots", "app.fee") == [(2, "pyproject.toml"), (1.0, "pyproject.toml")]
    assert (rows["slots"]["line"], rows["app.fee"]["line"]) == (5, 8)
    (here / "genesis.toml").write_text("slots = 3")
    assert sources(config(), "slots") == [(3, "genesis.toml")]
    (here / "other.toml").write_text("slots = 4")
    assert sources(config("--config", "other.toml"), "slots") == [(4, "other.toml")]
    assert sources(config(GENESIS_CONFIG="other.toml"), "slots") == [(4, "other.toml")]
    assert sources(config("--config", "pyproject.toml"), "slots") == [(2, "pyproject.toml")]


def test_a_project_without_our_section_is_left_alone(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.other]\nslots = not toml\n")
    assert sources(config(), "slots")[0][1] == "default"


def test_people_see_a_table_and_what_each_means(here: Path) -> None:
    (here / "genesis.toml").write_text('[app]\ncurrency = "USD"\n')
    plain = CliRunner().invoke(main, ["config"])
    assert re.search(r"^SETTING +VALUE +SOURCE$", plain.stdout, re.MULTILINE)
    assert re.search(r"^app.currency +USD +genesis.toml:2$", plain.stdout, re.MULTILINE)
    assert "genesis config MODULE:APP" in plain.stderr
    explained = CliRunner().invoke(main, ["config", "shop:app", "--explain", "--store", "a.db"])
    assert re.search(r"^store +a.db +--store +Path of a SQLite file, or memory:", explained.stdout, re.MULTILINE)
    assert re.search(r"^app.fee +0.5 +default$", explained.stdout, re.MULTILINE)
    assert explained.stderr == "read genesis.toml\n"


def test_every_command_looks_into_the_store_of_the_file(here: Path) -> None:
    (here / "genesis.toml").write_text('store = "nope.db"')
    for command in (["status"], ["dlq", "list"], ["state", "get", "pinger"], ["doctor"]):
        result = CliRunner().invoke(main, command)
        assert "nope.db: there is no store" in result.stdout + result.stderr, command
    result = CliRunner(env={"GENESIS_STORE": "other.db"}).invoke(main, ["status"])
    assert result.stderr.startswith("genesis: other.db: there is no store")
    result = CliRunner(env={"GENESIS_STORE": "other.db"}).invoke(main, ["status", "--store", "third.db"])
    assert result.stderr.startswith("genesis: third.db: there is no store")


def test_settings_made_in_code_say_so() -> None:
    rows = {row.name: str(row.origin) for row in Settings(slots=3).rows()}
    assert (rows["slots"], rows["threads"]) == ("code", "default")


def test_an_embedded_application_reads_the_environment_alone_when_it_says_so(here: Path) -> None:
    (here / "genesis.toml").write_text("slots = 3")
    assert Settings.load(environment={}).slots == 3
    assert Settings.from_environment({"GENESIS_THREADS": "2"}) == Settings(threads=2)


async def test_a_simulation_has_the_settings_it_is_given_and_no_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    monkeypatch.setenv("GENESIS_APP_FEE", "7")
    app = App("shop")

    @app.settings
    class Shop(msgspec.Struct):
        fee: int = 1

    @app.component
    class Asking:
        def __init__(self, shop: Shop) -> None:
            self.fee = shop.fee

        @on(Job)
        async def job(self, job: Job, ctx: Context) -> None:
            ctx.emit(Done(n=self.fee))

    for settings, fee in ((None, 1), (Settings.load(), 7)):
        async with app.simulate(settings=settings) as sim:
            await sim.send(Job())
            await sim.settle()
            assert [done.n for done in sim.emitted(Done)] == [fee]


# --- secrets ------------------------------------------------------------------------------------------------------------

SECRETS = """
import msgspec
from typing import Literal
from shop import app
from genesis import Module

bank = Module("bank")


class Inner(msgspec.Struct, frozen=True):
    url: str = "https://till:s3cr3t@bank.example/api"
    client_token: str = "s3cr3t"


@bank.settings
class Bank(msgspec.Struct):
    api_key: str = "s3cr3t"
    signing_keys: tuple[str, ...] = ("s3cr3t",)
    dsn: str = "host=db user=shop password=s3cr3t"
    database: str = "host=db user=shop Password = s3cr3t sslmode=require"
    inner: Inner = Inner()
    pin_secret: int = 1234
    empty_password: str = ""
    ask_password: bool = True
    places: dict[str, str] = msgspec.field(default_factory=lambda: {"oslo": "a@b.example", "oslo_token": "s3cr3t"})
    mode_key: Literal["a", "b"] = "a"


app.include(bank)
"""


def test_secrets_are_not_shown(here: Path) -> None:
    (here / "secrets_shop.py").write_text(SECRETS)
    rows = config("secrets_shop:app", GENESIS_APP_BANK_API_KEY="s3cr3t too")
    assert {name.removeprefix("app.bank."): row["value"] for name, row in rows.items() if name.startswith("app.bank")} == {
        "api_key": "***",
        "signing_keys": "***",
        "dsn": "***",
        "database": "host=db user=shop Password = *** sslmode=require",
        "inner.url": "https://till:***@bank.example/api",
        "inner.client_token": "***",
        "pin_secret": "***",
        "empty_password": "",
        "ask_password": True,
        "places": {"oslo": "a@b.example", "oslo_token": "***"},
        "mode_key": "***",
    }
    assert rows["app.bank.api_key"]["source"] == "GENESIS_APP_BANK_API_KEY"
    for_people = CliRunner().invoke(main, ["config", "secrets_shop:app", "--explain"])
    assert "s3cr3t" not in for_people.output
    revealed = config("secrets_shop:app", "--reveal", GENESIS_APP_BANK_API_KEY="s3cr3t too")
    assert sources(revealed, "app.bank.api_key", "app.bank.pin_secret") == [
        ("s3cr3t too", "GENESIS_APP_BANK_API_KEY"),
        (1234, "default"),
    ]


def test_secrets_are_not_shown_either_where_nobody_says_whose_they_are(here: Path) -> None:
    (here / "genesis.toml").write_text('[app]\nfee = 1\n[app.bank]\napi_key = "s3cr3t"\nurl = "x://a:s3cr3t@b"\n')
    rows = config(GENESIS_APP_TOKEN="s3cr3t")
    assert sources(rows, "app.bank", "GENESIS_APP_TOKEN", "app.fee") == [
        ({"api_key": "***", "url": "x://a:***@b"}, "genesis.toml"),
        ("***", "GENESIS_APP_TOKEN"),
        (1, "genesis.toml"),
    ]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"GENESIS_APP_BANK_PIN_SECRET": "s3cr3t"}, "GENESIS_APP_BANK_PIN_SECRET is '***': expected `int`"),
        ({"GENESIS_APP_BANK_MODE_KEY": "s3cr3t"}, "GENESIS_APP_BANK_MODE_KEY is '***': invalid enum value '***'"),
    ],
)
def test_an_error_does_not_show_a_secret(variables: dict[str, str], said: str, here: Path) -> None:
    (here / "secrets_shop.py").write_text(SECRETS)
    result = CliRunner(env=variables).invoke(main, ["config", "secrets_shop:app"])
    assert result.exit_code == 3
    assert said in result.stderr
    assert "s3cr3t" not in result.output


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nslot = 3", "genesis.toml:2: unknown setting slot; did you mean slots?"),
        ("zzz = 3", "genesis.toml:1: unknown setting zzz; there are store, slots, "),
        ("[ap]\nfee = 1", "genesis.toml:1: unknown section [ap]; did you mean app?"),
        ("slots = 'many'", "genesis.toml:1: slots is 'many': a whole number"),
        ("slots = 1.5", "genesis.toml:1: slots is 1.5: a whole number"),
        ("slots = true", "genesis.toml:1: slots is True: a whole number"),
        ("store = 3", "genesis.toml:1: store is 3: text"),
        ("drain_s = '1'", "genesis.toml:1: drain_s is '1': a number"),
        ("slots = 0", "genesis.toml:1: slots is 0: at least 1"),
        ("drain_s = nan", "genesis.toml:1: drain_s is nan: at least 0, and no infinity"),
        ("quota_bytes = 5", "genesis.toml:1: quota_bytes is 5: at least 1 MiB"),
        ("slots = ?", "genesis.toml: it is no TOML: Invalid value (at line 1, column 9)"),
        ("slots = 1\nslots = 2", "genesis.toml: it is no TOML: Cannot overwrite a value"),
        ("app = 3", "genesis.toml:1: app is 3: a table"),
        ("[app]\n\nfees = 3", "genesis.toml:3: unknown setting app.fees; did you mean fee?"),
        ("[app]\nfee = 'dear'", "genesis.toml:2: app.fee is 'dear': expected `float`, got `str`"),
        ("app.fee = 'dear'", "genesis.toml:1: app.fee is 'dear': expected `float`, got `str`"),
    ],
)
@pytest.mark.parametrize("command", ["config", "run"])
def test_a_file_that_does_not_fit_exits_3_with_the_place_the_key_and_what_fits(
    command: str, text: str, said: str, here: Path
) -> None:
    (here / "genesis.toml").write_text(text)
    pretty = ["--log", "pretty"] if command == "run" else []
    result = CliRunner().invoke(main, [command, "shop:app", *pretty])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"genesis: {said}"), result.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"GENESIS_SLOTS": "0"}, "GENESIS_SLOTS: slots is 0: at least 1"),
        ([], {"GENESIS_DRAIN": "1"}, "unknown setting GENESIS_DRAIN; did you mean GENESIS_DRAIN_S?"),
        ([], {"GENESIS_APP_FEES": "1"}, "unknown setting GENESIS_APP_FEES; did you mean GENESIS_APP_FEE?"),
        (["--slots", "0"], {}, "--slots: slots is 0: at least 1"),
        (["--config", "nope.toml"], {}, "nope.toml: it cannot be read: No such file or directory"),
        (["--config", "."], {}, ".: it cannot be read: Is a directory"),
        (["--config", "binary.toml"], {}, "binary.toml: it is no UTF-8: invalid start byte at byte 0"),
        (["--config", "pyproject.toml"], {}, "pyproject.toml: it has no [tool.genesis]"),
    ],
)
def test_variables_flags_and_files_that_do_not_fit_exit_3(
    arguments: list[str], variables: dict[str, str], said: str, here: Path
) -> None:
    (here / "binary.toml").write_bytes(b"\xff")
    (here / "pyproject.toml").write_text("[project]\n")
    result = CliRunner(env=variables).invoke(main, ["config", "shop:app", *arguments])
    assert (result.exit_code, result.stderr) == (3, f"genesis: {said}\n")


def test_an_error_carries_what_and_where() -> None:
    with pytest.raises(SettingsError) as found:
        Settings.from_environment({"GENESIS_SLOTS": "0"})
    assert (found.value.what, found.value.origin) == ("slots is 0: at least 1", "GENESIS_SLOTS")


def test_doctor_names_what_is_wrong_in_the_file(here: Path) -> None:
    (here / "genesis.toml").write_text("slots = 0")
    result = CliRunner().invoke(main, ["doctor", "--json"])
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert (result.exit_code, found["settings"]["found"]) == (1, "genesis.toml:1: slots is 0: at least 1")
