"""The plugin of pytest: `sim` is a world of the user's app, and with `@pytest.mark.genesis(runs=...)` a test runs in many.

Imports nothing of Genesis until a test asks for it: where it is installed and not used, pytest starts as fast as before.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from genesis.app import App
    from genesis.chaos.explore import Explorer, Run
    from genesis.chaos.simulation import Simulation
    from genesis.runtime.definition import Definition

FOREIGN = ("anyio", "asyncio", "trio")
"""Marks of other plugins that run coroutines: what was given to them is theirs."""
TIMED_OUT = "from pytest-timeout"
MARK = """\
genesis(seed=0, nodes=1, errors="raise", runs=0, faults=20, kinds=None, store="memory"): the world of `sim`; with `runs`, the
 test is a scenario and runs in that many worlds, each with other faults in another order"""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the mark of a test asks for."""

    seed: int = 0
    nodes: int = 1
    errors: str = "raise"
    runs: int = 0
    """In how many worlds it is explored; 0: it runs once, with the faults that it names itself."""
    faults: int = 20
    kinds: Sequence[str] | None = None
    store: str = "memory"


class Worlds:
    """The `sim` of a test that runs in many worlds: the world that it runs in now."""

    now: Simulation | None = None
    failure: BaseException | None = None
    """What the test raised in it."""

    def __getattr__(self, name: str) -> Any:
        if self.now is None:
            raise AttributeError(f"sim.{name}: with runs=, a fixture may keep `sim`, but worlds are there in the test only")
        return getattr(self.now, name)


# --- what a user sees -----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings."""
    parser.addini("genesis_app", "the application of the fixture `sim`, as MODULE:APP")
    parser.getgroup("genesis").addoption(
        "--genesis-seed", type=int, metavar="SEED", help="the seed of the fixture `sim`; of tests with runs=, the only one"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark."""
    config.addinivalue_line("markers", MARK.replace("\n", ""))


@pytest.fixture(scope="session")
def genesis_app(pytestconfig: pytest.Config) -> App:
    """The application under test: the setting `genesis_app`, unless a fixture of this name gives another."""
    spec = str(pytestconfig.getini("genesis_app") or "")
    if not spec:
        said = 'write genesis_app = "module:app" among the settings of pytest, or a fixture `genesis_app` that returns it'
        pytest.fail(f"which application is tested? {said}", pytrace=False)
    from genesis.cli.talk import Failure
    from genesis.cli.where import load_app

    if (root := str(pytestconfig.rootpath)) not in sys.path:
        sys.path.insert(0, root)
    try:
        return load_app(spec)
    except Failure as failure:
        pytest.fail(f"genesis_app: {failure.format_message()}", pytrace=False)


@pytest.fixture
def genesis_resources() -> dict[Any, object]:
    """What is given instead of resources and settings, by type: nothing, unless a fixture of this name says so."""
    return {}


@pytest.fixture
def sim(request: pytest.FixtureRequest, genesis_app: App, genesis_resources: dict[Any, object]) -> Iterator[Any]:
    """The application in virtual time, in a world of its own: a `genesis.chaos.simulation.Simulation`."""
    wish = _wish(request.node)
    if wish.runs:
        yield Worlds()
        return
    from genesis.chaos.simulation import Simulation
    from genesis.config import Settings

    world = Simulation(
        genesis_app.definition(resources=genesis_resources),
        seed=wish.seed,
        errors=wish.errors,
        settings=Settings().node(),
        nodes=wish.nodes,
        store=wish.store,
    )
    yield world
    world.close()


# --- how tests run --------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run our tests that are coroutines: pytest, and every other plugin, is shown an ordinary function in their place."""
    plain = _plain(pyfuncitem)
    if plain is None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfuncitem, "obj", plain)
        return (yield)


def _plain(item: pytest.Function) -> Callable[..., None] | None:
    """An ordinary function that runs a test of ours; None: it is not ours."""
    marked = item.get_closest_marker("genesis") is not None
    if marked and _wish(item).runs:
        return _in_many_worlds(item)
    foreign = "anyio_backend" in item.fixturenames or any(item.get_closest_marker(mark) for mark in FOREIGN)
    if foreign or not (marked or "genesis_app" in item.fixturenames) or not inspect.iscoroutinefunction(item.obj):
        return None
    test = item.obj

    def once(**arguments: Any) -> None:
        _run(test(**arguments))

    return once


def _in_many_worlds(item: pytest.Function) -> Callable[..., None]:
    test, worlds = inspect.unwrap(item.obj, stop=inspect.iscoroutinefunction), item.funcargs.get("sim")
    if not inspect.iscoroutinefunction(test) or not isinstance(worlds, Worlds):
        pytest.fail("with runs= a test is a scenario: write `async def`, and `sim` among its arguments", pytrace=False)
    wish = _wish(item)
    app: Any = item.funcargs["genesis_app"]
    resources: Any = item.funcargs["genesis_resources"]

    def all_worlds(**arguments: Any) -> None:
        explorer = _explorer(app.definition(resources=resources), wish, worlds, lambda: test(**arguments))
        only = item.config.getoption("--genesis-seed") is not None
        for seed in range(wish.seed, wish.seed + (1 if only else wish.runs)):
            _explore(explorer, seed, worlds, item)

    return all_worlds


def _explorer(definition: Definition, wish: Wish, worlds: Worlds, test: Callable[[], Coroutine[Any, Any, Any]]) -> Explorer:
    from genesis.chaos.explore import Explorer, gentle
    from genesis.config import Settings

    async def scenario(world: Simulation) -> None:
        worlds.now, worlds.failure = world, None
        try:
            await test()
        except Exception as failure:
            worlds.failure = failure
            raise
        except pytest.fail.Exception as failed:  # as of pytest.raises; no `Exception` for pytest, but for a world
            if TIMED_OUT in str(failed):
                raise
            worlds.failure = failed
            raise AssertionError(str(failed)) from failed

    kinds = gentle(wish.store) if wish.kinds is None else wish.kinds
    return Explorer(definition, scenario, Settings().node(), wish.nodes, wish.faults, kinds, wish.store)


def _explore(explorer: Explorer, seed: int, worlds: Worlds, item: pytest.Item) -> None:
    """Run a test in the world of a seed. What it raises there is raised, with the fewest faults that cause it as its note."""
    from genesis.chaos.explore import PromiseBrokenError

    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    repeat = f"pytest {shlex.quote('::'.join([path, *item.nodeid.split('::')[1:]]))} --genesis-seed {seed}"
    try:
        _run(explorer.explore([seed]))
    except PromiseBrokenError as broken:
        item.config.pluginmanager.getplugin("capturemanager").read_global_capture()  # forgets what other worlds printed
        _run(explorer.run(seed, broken.run.schedule))  # once more: the last one tried was another
        failure = worlds.failure or broken
        failure.add_note(_story(broken.run, repeat, told=failure is broken))
        raise failure from None
    except BaseException as error:  # out of time, skipped, interrupted
        error.add_note(f"in the world of seed {seed}; the same again: {repeat}")
        raise


def _story(run: Run, repeat: str, *, told: bool) -> str:
    story = "" if told else f"in the world of seed {run.seed}, {run.story()}\n"
    return f"{story}the same again: {repeat}"


def _wish(item: pytest.Item) -> Wish:
    mark, seed = item.get_closest_marker("genesis"), item.config.getoption("--genesis-seed")
    given, where = dict(mark.kwargs) if mark is not None else {}, f"{item.nodeid}: @pytest.mark.genesis"
    unknown = sorted(given.keys() - {field.name for field in fields(Wish)})
    if unknown or (mark is not None and mark.args):
        said = f"has no {', '.join(unknown)}" if unknown else "takes its arguments by name"
        pytest.fail(f"{where} {said}: {MARK.partition(': ')[0]}", pytrace=False)
    wish = Wish(**given)
    if wish.runs < 0 or (wish.runs and wish.errors != "raise"):
        pytest.fail(f"{where}: runs is a number of worlds, and goes without errors=: a world records them", pytrace=False)
    return wish if seed is None else replace(wish, seed=seed)


def _run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine in a loop of its own, and leave the one of this thread alone."""
    import asyncio

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work)
