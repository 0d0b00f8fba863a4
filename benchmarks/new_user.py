"""The way of somebody new: `genesis new`, the tests of the project, and an event over HTTP that the state then holds."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import ROOT, Figure, Options, Result, clock, progress, result, scratch

FIGURES = (
    Figure(
        "first_answer_s",
        "s",
        "",
        "All steps together, one after the other: `genesis new shop`, its tests, `genesis run shop:app --http`, an event over "
        "HTTP, and `genesis state get` until it shows what the event did. Each command is a process of its own.",
    ),
    Figure("new_s", "s", "", "Of these: `genesis new shop`."),
    Figure("tests_s", "s", "", "Of these: the tests of the new project."),
    Figure("event_s", "s", "", "Of these: from the start of `genesis run` to the answer that the first event is durable."),
    Figure("state_s", "s", "", "Of these: from that answer to the state, shown by `genesis state get`."),
)
EVENT = {"content-type": "application/json", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/me"}
PATIENCE_S = 60.0


def walk(folder: Path) -> dict[str, float]:
    """Go the way in a folder, and check each step. Seconds of each, by the names of the figures.

    Raises:
        AssertionError: a step does not do what the newcomer is told.
    """
    begin = clock()
    _genesis(folder, "new", "shop")
    shop = folder / "shop"
    made = clock()
    tested = _python(shop, "-m", "pytest", "-q", "-p", "genesis.cli.pytest_plugin")
    assert "2 passed" in tested, tested
    passed = clock()
    command = [sys.executable, "-m", "genesis", "run", "shop:app", "--http", "0", "--log", "pretty"]
    with subprocess.Popen(command, cwd=shop, env=_environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"http (http://\S+)", said)
            assert found, said
            _send(found[1])
            sent = clock()
            _await_state(shop)
            seen = clock()
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    steps = {"new_s": made - begin, "tests_s": passed - made, "event_s": sent - passed, "state_s": seen - sent}
    return {"first_answer_s": seen - begin, **steps}


def _send(url: str) -> None:
    headers = EVENT | {"ce-type": "shop.counted"}
    request = urllib.request.Request(f"{url}/events", data=b'{"what": "tea", "by": 3}', headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        assert reply.status == 202, reply.status


def _await_state(shop: Path) -> None:
    end = clock() + PATIENCE_S
    while json.loads(_genesis(shop, "state", "get", "counter", "tea", "--json"))["state"]["total"] != 3:
        assert clock() < end, "the state does not hold the event"


def _genesis(folder: Path, *arguments: str) -> str:
    return _python(folder, "-m", "genesis", *arguments)


def _python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    """That of somebody who has set nothing, with this Genesis. Of the plugins that our own tests need, pytest loads none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GENESIS_", "PYTEST_"))}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def measure(options: Options) -> Iterator[Result]:
    runs = []
    for run in range(1, options.runs + 1):
        with scratch() as folder:
            runs.append(walk(Path(folder)))
        progress(f"new_user {run}/{options.runs}: {runs[-1]['first_answer_s']:.2f} s")
    for figure in FIGURES:
        yield result("new_user", figure, [steps[figure.name] for steps in runs])
