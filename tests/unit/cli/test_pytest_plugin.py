"""The plugin of pytest, in processes of their own: what it runs, what it leaves alone, and how it tells what it found."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.unit.cli.support import SOURCE

ROOT = Path(__file__).parents[3]
APP = """
from genesis import App, Context, Message, State, on

app = App("shop")


class Placed(Message, type="shop.placed"):
    sku: str


class Stock(State):
    left: int = 100


@app.component(key="sku", state=Stock)
class Inventory:
    @on(Placed)
    async def placed(self, order: Placed, stock: Stock, ctx: Context) -> None:
        if order.sku == "boom":
            raise ValueError("out of stock")
        stock.left -= 1
"""
SETTINGS = "[pytest]\ngenesis_app = shop:app\naddopts = --strict-markers -W error -p no:cacheprovider\n"
FOREIGN = """
import asyncio, functools, inspect, pytest

def pytest_configure(config):
    config.addinivalue_line("markers", "asyncio: as of pytest-asyncio")

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("asyncio") and inspect.iscoroutinefunction(pyfuncitem.obj):
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        asyncio.run(named(pyfuncitem.obj(**arguments)))
        return True

async def named(work):
    asyncio.current_task().set_name("foreign")
    await work
"""
"""Another plugin that runs coroutines, in the way in which they do it."""


class Project:
    """A folder with an application, and the pytest of a user in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("shop.py", APP)
        self.write("pytest.ini", SETTINGS)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)

    def run(self, *arguments: str, code: int = 0, plugin: bool = True, folder: str = ".") -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GENESIS_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *(["-p", "genesis.cli.pytest_plugin"] if plugin else []), *arguments],
            cwd=self.folder / folder,
            env={**environment, "PYTHONPATH": SOURCE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_it_is_there_wherever_genesis_is_installed() -> None:
    plugins = {found.name: found.value for found in entry_points(group="pytest11")}
    assert plugins["genesis"] == "genesis.cli.pytest_plugin"


def test_unused_it_imports_nothing_of_genesis_but_itself(project: Project) -> None:
    look = "import sys\n\ndef test():\n    print('loaded', *sorted(sys.modules))\n"
    project.write("pytest.ini", "[pytest]\n")
    project.write("test_empty.py", look)
    with_it, without = (
        set(re.findall(r"loaded (.*)", project.run("-s", plugin=plugin))[0].split()) for plugin in (True, False)
    )
    assert with_it - without == {"genesis", "genesis.cli", "genesis.cli.pytest_plugin"}
    assert not {"msgspec", "click", "asyncio"} & (with_it - without)


def test_a_coroutine_is_given_a_world_of_its_own_that_is_closed_afterwards(project: Project) -> None:
    project.write(
        "test_shop.py",
        """
import pytest
from shop import Inventory, Placed, app

worlds = []

@pytest.mark.parametrize("count", [1, 2])
async def test_orders_count(sim, count):
    assert all(world.loop.is_closed() for world in worlds)
    worlds.append(sim.world)
    for _ in range(count):
        await sim.send(Placed("tea"))
    await sim.crash()
    await sim.settle()
    assert sim.state(Inventory, "tea").left == 100 - count

class TestMethods:
    async def test_what_a_handler_raises_is_raised(self, sim):
        await sim.send(Placed("boom"))
        with pytest.raises(ValueError, match="out of stock"):
            await sim.settle()

    @pytest.mark.genesis(errors="record", seed=7, nodes=2)
    async def test_or_kept(self, sim):
        await sim.send(Placed("boom"))
        await sim.settle()
        assert [route for route, _ in sim.failures][0] == "inventory:shop.placed"
        assert (sim.world._seed, len(sim.world.hosts)) == (7, 2)

async def test_the_app_alone(genesis_app):
    assert genesis_app is app

@pytest.mark.genesis
async def test_the_mark_alone():
    pass

def test_ordinary(sim):
    assert sim.state(Inventory, "tea").left == 100
""",
    )
    assert "7 passed" in project.run()
    assert "the same" not in project.run("--genesis-seed", "7", "-k", "kept or count")


def test_a_fixture_may_give_the_app_and_another_may_wrap_the_world(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    project.write(
        "tests/conftest.py",
        """
import pytest
from shop import Placed, app

@pytest.fixture
def genesis_app():
    return app

class Clerk:
    def __init__(self, sim):
        self.sim = sim
    async def order(self, sku):
        await self.sim.send(Placed(sku))

@pytest.fixture
def clerk(sim):
    return Clerk(sim)
""",
    )
    project.write(
        "tests/test_clerk.py",
        """
import pytest
from shop import Inventory

async def test_once(clerk):
    await clerk.order("tea")
    await clerk.sim.settle()
    assert clerk.sim.state(Inventory, "tea").left == 99

@pytest.mark.genesis(runs=3)
async def test_many(clerk, sim):
    await test_once(clerk)

@pytest.mark.genesis(runs=3)
async def test_many_without_saying_sim(clerk):
    await test_once(clerk)
""",
    )
    own = "import pytest\n\n@pytest.fixture\ndef sim(sim):\n    return sim\n\nasync def test(sim): ...\n"
    project.write("tests/test_own.py", own)
    assert "4 passed" in project.run(folder="tests")


CARELESS = """
import pytest
from shop import Inventory, Placed

class Fault(Exception):
    pass

@pytest.mark.parametrize("sku", ["tea time"])
@pytest.mark.genesis(runs=50, nodes=1)
async def test_nothing_dies(sim, sku):
    print("world of", sim.world._seed)
    await sim.send(Placed(sku))
    await sim.advance(5)
    {check}
"""


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("assert sim.crashes == 0, f'died {sim.crashes} times'", "AssertionError: died 1 times"),
        ("with pytest.raises(OSError): sim.crashes or Placed.gone", "AttributeError: type object 'Placed' has no attribute"),
        ("sim.crashes and pytest.fail('it died')", "Failed: it died"),
    ],
)
def test_a_scenario_that_fails_tells_its_seed_the_fewest_faults_and_the_command(
    project: Project, check: str, said: str
) -> None:
    project.write("test_careless.py", CARELESS.replace("{check}", check))
    found = project.run(code=1)
    assert said in found
    assert re.search(r"^>\s+" + re.escape(check.split(":")[0]), found, re.MULTILINE), "the line of the test is shown"
    (seed, count) = re.findall(r"in the world of seed (\d+), with (\d) faults?:", found)[0]
    assert int(count) == (0 if "Placed.gone" in check else 1)
    assert "serves" in found
    (command,) = set(re.findall(r"the same again: pytest (.*)", found))  # where CI is set, the summary says it once more
    assert len(re.findall(r"^world of", found, re.MULTILINE)) == 1, "what was printed in other worlds is no part of it"
    again = project.run(*shlex.split(command), code=1)
    assert f"in the world of seed {seed}, with {count} fault" in again
    told, told_again = (re.findall(r"^E .* s  .*", text, re.MULTILINE) for text in (found, again))
    assert told == told_again != []


def test_a_scenario_whose_worlds_keep_every_promise_passes_in_all_of_them(project: Project) -> None:
    project.write("test_worlds.py", CARELESS.replace("{check}", "pass"))
    assert re.findall(r"world of (\d+)", project.run("-s"))[::2] == [str(seed) for seed in range(50)]
    assert re.findall(r"world of (\d+)", project.run("-s", "--genesis-seed", "183")) == ["183", "183"], "calm, then with faults"


def test_what_ends_the_whole_test_says_in_which_world(project: Project) -> None:
    project.write("test_careless.py", CARELESS.replace("{check}", "pytest.fail('Timeout (>5.0s) from pytest-timeout.')"))
    assert re.search(r"in the world of seed 0; the same again: pytest 'test_careless.py::.*", project.run(code=1))


def test_tests_of_other_plugins_stay_theirs_but_scenarios_are_ours(project: Project) -> None:
    project.write("conftest.py", FOREIGN)
    project.write(
        "test_loops.py",
        """
import asyncio, pytest

def whose():
    return asyncio.current_task().get_name()

@pytest.mark.asyncio
async def test_theirs(sim):
    assert whose() == "foreign"
    await sim.settle()

@pytest.mark.asyncio
@pytest.mark.genesis(runs=2)
async def test_scenario(sim):
    assert whose() != "foreign"

async def test_ours(sim):
    assert whose() != "foreign"

async def test_nobodys():
    assert False, "not run"

@pytest.fixture
def other():
    pass

@pytest.mark.asyncio
async def test_theirs_without_us(other):
    assert whose() == "foreign"
""",
    )
    found = project.run(code=1)
    assert "1 failed, 4 passed" in found
    assert "async def functions are not natively supported" in found


WRONG = """
import pytest

@pytest.mark.genesis(run=5)
async def test_misspelt(sim): ...

@pytest.mark.genesis(5)
async def test_by_place(sim): ...

@pytest.mark.genesis(runs=-1)
async def test_less_than_none(sim): ...

@pytest.mark.genesis(runs=5, errors="record")
async def test_both(sim): ...

@pytest.mark.genesis(runs=5)
def test_ordinary(sim): ...

@pytest.mark.genesis(runs=5)
async def test_without_world(): ...

@pytest.mark.genesis(runs=5, kinds=["meteor"])
async def test_unknown_fault(sim): ...

@pytest.fixture
def early(sim):
    sim.crash_at("commit")

@pytest.mark.genesis(runs=5)
async def test_early(early, sim): ...
"""


def test_what_is_asked_wrongly_is_answered_with_what_to_write(project: Project) -> None:
    project.write("test_wrong.py", WRONG)
    found = project.run(code=1)
    for said in (
        "test_misspelt: @pytest.mark.genesis has no run: genesis(seed=0, nodes=1",
        "test_by_place: @pytest.mark.genesis takes its arguments by name: genesis(seed=0",
        "test_less_than_none: @pytest.mark.genesis: runs is a number of worlds",
        "test_both: @pytest.mark.genesis: runs is a number of worlds, and goes without errors=",
        "with runs= a test is a scenario: write `async def`",
        "and `sim` among its arguments",
        "'meteor' is no fault; they are crash, crash-at-point",
        "sim.crash_at: with runs=, a fixture may keep `sim`, but worlds are there in the test only",
    ):
        assert said in found, said
    assert "3 failed, 5 errors" in found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[pytest]\n", "which application is tested? write genesis_app = "),
        ("[pytest]\ngenesis_app = shop:ap\n", "genesis_app: shop has no 'ap'; did you mean 'app'?"),
    ],
)
def test_an_app_that_is_not_to_be_found(project: Project, settings: str, said: str) -> None:
    project.write("pytest.ini", settings)
    project.write("test_wrong.py", "async def test(sim): ...\n")
    assert said in project.run(code=1)


def test_a_fixture_gives_other_resources_than_those_of_the_application(project: Project) -> None:
    resource = """

from collections.abc import AsyncIterator

class Http:
    left = 0

@app.resource
async def http() -> AsyncIterator[Http]:
    raise OSError("no network")
    yield Http()

@app.component
class Asking:
    def __init__(self, http: Http) -> None:
        self.http = http

    @on(Placed)
    async def placed(self, order: Placed, ctx: Context) -> None:
        assert self.http.left == 7
"""
    project.write("shop.py", APP + resource)
    project.write(
        "test_shop.py",
        """
import pytest
from shop import Http, Placed

@pytest.fixture
def genesis_resources():
    async def fake():
        client = Http()
        client.left = 7
        yield client
    return {Http: fake}

async def test_one(sim):
    await sim.send(Placed("tea"))
    await sim.settle()

@pytest.mark.genesis(runs=2)
async def test_many(sim):
    await sim.send(Placed("tea"))
    await sim.settle()
""",
    )
    assert "2 passed" in project.run()
