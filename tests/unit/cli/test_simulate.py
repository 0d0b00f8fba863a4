"""`genesis simulate`: what it says of a component that is wrong, and of what it is given."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genesis.cli.main import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def till(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the wrong component of the documents, as a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = (ROOT / "docs/simulation.md").read_text()
    source = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "careless_till.py").write_text(
        source + "\n\nasync def patient(sim: Simulation) -> None:\n    await sim.settle()\n"
    )
    monkeypatch.delitem(sys.modules, "careless_till", raising=False)
    return tmp_path


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", "careless_till:app", *arguments])


def test_a_broken_promise_is_told_with_the_command_that_repeats_it(till: Path) -> None:
    found = simulate("--seeds", "0:50")
    assert found.exit_code == 1
    assert "breaks a promise: AssertionError: 11 charges for 10 orders" in found.stdout
    assert "with 1 fault:" in found.stdout
    (repeat,) = re.findall(r"the same again:  genesis simulate careless_till:app (.*)", found.stdout)
    again = simulate(*repeat.split())
    assert again.exit_code == 1
    assert "11 charges for 10 orders" in again.stdout
    (story,) = till.glob("simulate-*.html")
    page = story.read_text()
    assert repeat in page
    assert "fault " in page
    assert "<svg" in page


def test_programs_are_told_the_same(till: Path) -> None:
    broken = json.loads(simulate("--seeds", "0:50", "--json").stdout)
    assert (broken["schema"], broken["ok"]) == (1, False)
    assert len(broken["schedule"]) == 1
    good = simulate("--scenario", "patient", "--seeds", "0:3", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["worlds"] == 3


def test_several_processes_find_the_same_seed(till: Path) -> None:
    assert (
        json.loads(simulate("--seeds", "0:20", "--jobs", "2", "--json").stdout)["seed"]
        == json.loads(simulate("--seeds", "0:20", "--json").stdout)["seed"]
    )


def test_several_processes_tell_of_each_world_that_ends_well(till: Path) -> None:
    good = json.loads(simulate("--scenario", "patient", "--seeds", "5:12", "--jobs", "2", "--json").stdout)
    assert (good["worlds"], good["ok"]) == (7, True)


@pytest.mark.usefixtures("shared_sqlite")
def test_the_real_engine_is_run_on_a_disk_that_breaks_and_so_it_is_again(till: Path) -> None:
    found = simulate("--seeds", "0:50", "--store", "sqlite", "--kinds", "power-loss,sync-fails")
    assert found.exit_code == 1
    (repeat,) = re.findall(r"the same again:  genesis simulate careless_till:app (.*)", found.stdout)
    assert "--store sqlite" in repeat
    again = simulate(*repeat.split())
    assert again.exit_code == 1
    assert again.stdout.splitlines()[0] == found.stdout.splitlines()[0]


def test_an_app_without_a_scenario_is_sent_made_up_messages(till: Path) -> None:
    (till / "plain_till.py").write_text((till / "careless_till.py").read_text().partition("async def scenario")[0])
    done = CliRunner().invoke(main, ["simulate", "plain_till:app", "--seeds", "0:3", "--jobs", "2"])
    assert done.exit_code == 0, done.output
    assert "plain_till has no scenario: made-up messages are sent" in done.stderr
    assert "3 worlds kept every promise: 288 deliveries, " in done.stdout
    asked = CliRunner().invoke(main, ["simulate", "plain_till:app", "--scenario", "scenario"])
    assert "plain_till.scenario is not there" in asked.stderr


def test_handlers_that_fail_are_counted_as_dead_letters(till: Path) -> None:
    source = (till / "careless_till.py").read_text().partition("async def scenario")[0]
    (till / "failing_till.py").write_text(source.replace("await asyncio.sleep(0.01)", "raise ValueError"))
    done = CliRunner().invoke(main, ["simulate", "failing_till:app", "--seeds", "0:2", "--faults", "0"])
    assert "192 deliveries (192 dead letters), 0 kills" in done.stdout


def test_messages_that_cannot_be_made_up_are_named_with_what_to_write(till: Path) -> None:
    source = (till / "careless_till.py").read_text().partition("async def scenario")[0]
    (till / "odd_till.py").write_text(
        "from typing import Annotated\nfrom msgspec import Meta\n"
        + source.replace("    number: int", '    number: Annotated[str, Meta(pattern="^[0-9]{4}$")]')
    )
    done = CliRunner().invoke(main, ["simulate", "odd_till:app"])
    assert done.exit_code == 2
    assert "no Order (till.order) can be made up: nobody can know a value for number" in done.stderr
    assert "Write `async def scenario(sim)` in odd_till: it sends, waits and asserts" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "5:3"], "--seeds 5:3 are none: FIRST is below END"),
        (["--seeds", "many"], "--seeds is 'many': write FIRST:END"),
        (["--scenario", "patien"], "careless_till.patien is not there; did you mean 'patient'?"),
        (["--scenario", "app"], "careless_till.app is no coroutine function"),
        (["--kinds", "meteor"], "'meteor' is no fault; they are crash, crash-at-point"),
        (
            ["--kinds", "power-loss"],
            "power-loss happens to a disk, and the model of a store in memory has none: store='sqlite'",
        ),
        (["--store", "sqlite", "--nodes", "2"], "a file of SQLite belongs to one machine: nodes=1, not 2"),
        (["--store", "redis"], "'redis' is not one of 'memory', 'sqlite'"),
        (["--schedule", "nope.json"], "nope.json cannot be read: No such file or directory"),
        (["--schedule", "careless_till.py"], "careless_till.py is no schedule of faults"),
    ],
)
def test_bad_input_is_a_line_that_says_what_to_do(till: Path, arguments: list[str], said: str) -> None:
    found = simulate(*arguments)
    assert found.exit_code == 2
    assert said in found.stderr
    assert not list(till.glob("simulate-*"))


QUOTING = """
from collections.abc import AsyncIterator

import msgspec

from genesis import App, Context, Message, on

app = App("quoting")


class Quote(Message, type="quote"):
    n: int = 0


class Http: ...


class Fake(Http): ...


@app.settings
class Shop(msgspec.Struct):
    token: str


@app.resource
async def http() -> AsyncIterator[Http]:
    raise OSError("no network")
    yield Http()


@app.component
class Quoting:
    def __init__(self, http: Http, shop: Shop) -> None:
        self.http, self.shop = http, shop

    @on(Quote)
    async def quote(self, quote: Quote, ctx: Context) -> None:
        assert isinstance(self.http, Fake)


async def fake_http():
    yield Fake()


fakes = {Http: fake_http, Shop: Shop("secret")}
half = {Shop: Shop("secret")}
"""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--resources", "fakes"], 0, ""),
        (["--resources", "fakes", "--jobs", "2"], 0, ""),
        ([], 3, "genesis: app.token is missing"),
        (["--resources", "half"], 1, r"genesis: resource http \(.*\) could not be opened: OSError: no network"),
        (["--resources", "half", "--jobs", "2"], 1, r"genesis: resource http \(.*\) could not be opened: OSError: no network"),
        (["--resources", "fake"], 2, r"genesis: quoting_app.fake is not there; did you mean 'fakes'\?"),
        (["--resources", "fake_http"], 2, r"genesis: quoting_app.fake_http is no mapping: write fake_http = \{HttpClient:"),
    ],
)
def test_resources_of_the_module_take_the_place_of_those_of_the_application(
    arguments: list[str], code: int, said: str, till: Path
) -> None:
    (till / "quoting_app.py").write_text(QUOTING)
    result = CliRunner().invoke(main, ["simulate", "quoting_app:app", "--seeds", "0:2", "--faults", "2", *arguments])
    sys.modules.pop("quoting_app", None)
    assert result.exit_code == code, result.stderr
    assert re.search(said, result.stderr)
