"""The commands in the documents work: every line of every `sh` block runs, in order, in a fresh folder, with real servers.

What is not as it stands on the page, and nothing else: `SUBSTITUTED` (ports, which the system chooses here, and that an error
of HTTP is one of curl), `NOT_RUN`, `PAGES_NOT_RUN`, and the exit codes in `ENDS`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from genesis.cli.main import SUBCOMMANDS, main
from genesis.config import Settings
from tests.docs.test_examples import ROOT, blocks, guide
from tests.unit.cli.support import DEADLINE_S, SOURCE, until

TEMPLATE = "src/genesis/cli/templates/README.md.tmpl"
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(page.relative_to(ROOT)) for folder in ("docs", "examples") for page in (ROOT / folder).rglob("*.md")),
    TEMPLATE,
]
SERVERS = ("genesis run ", "uvicorn ")
"""Commands that stay: they run beside the others until the end of their page."""
SUBSTITUTED = {
    "--http 8080": "--http 0",
    "uvicorn ": "uvicorn --port 0 ",
    "curl ": "curl -sS -f ",
    "http://127.0.0.1:8080": "what the server printed",
    "http://127.0.0.1:8000": "what the server printed",
}
NOT_RUN = {
    "./dev demo": "takes minutes; tests/integration/test_demo.py runs the demo",
    "./dev test": "these are the tests",
    "./dev lint": "checks the code, and CI runs it beside the tests",
    "./dev bench list": "would install once more what runs here; the figures are not part of the tests",
    "pip install genesis-runtime fastapi uvicorn": "installs what is installed here",
    "pip install 'genesis-runtime[httpx]'": "installs what is installed here",
    "pip install 'genesis-runtime[httpx]' fastapi uvicorn": "installs what is installed here",
}
PAGES_NOT_RUN = {
    "examples/postgres/README.md": "needs a database; tests/integration/test_sink_postgres.py runs the application with one",
}
ENDS = {"genesis simulate till:app --seeds 0:10000 --jobs 2": 1}
"""The page is about a component that is wrong, and the command finds it."""
QUESTION = """

class GetLevel(Request[int], type="shop.stock.level"):
    sku: str
"""
ANSWER = """
    @on(GetLevel, read_only=True)
    async def level(self, query: GetLevel, stock: Stock, ctx: Context) -> int:
        return stock.left
"""


def fenced(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> Iterator[str]:
    """The commands of a page; one may be several lines long."""
    for language, text in fenced(page):
        command = ""
        for line in text.splitlines() if language == "sh" else ():
            command += f"{line}\n"
            if line.endswith("\\") or not _whole(command):
                continue
            yield re.sub(r"\s+# .*", "", command.strip())
            command = ""


def _whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


class Terminal:
    """A folder in which the commands of a page run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self._servers: list[subprocess.Popen[bytes]] = []
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GENESIS_", "PYTEST_"))}
        self._environment = {**kept, "PATH": programs, "PYTHONPATH": os.pathsep.join((SOURCE, str(folder)))}

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            try:
                server.wait(DEADLINE_S)
            finally:
                server.kill()

    def enter(self, command: str) -> str:
        """Run a command to its end, or a server until it serves. Returns what it prints."""
        for written, meant in SUBSTITUTED.items():
            command = command.replace(written, self.url if written.startswith("http") else meant)
        if command.startswith(SERVERS):
            self._serve(command)
            return ""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_S,
            check=False,
        )
        assert done.returncode == ENDS.get(command, 0), f"{command}\n{done.stdout}{done.stderr}"
        self._until_quiet(command)
        return done.stdout

    def _serve(self, command: str) -> None:
        said = self.folder / f"said-{len(self._servers)}.txt"
        with said.open("wb") as out:
            arguments = ["sh", "-c", f"exec {command}"]
            process = subprocess.Popen(arguments, cwd=self.folder, env=self._environment, stdout=out, stderr=out)
        self._servers.append(process)
        until(lambda: re.search(r" pid |running on", said.read_text()) or process.poll() is not None, command)
        assert process.poll() is None, said.read_text()
        found = re.search(r"http://[^\s\"]+", said.read_text())
        self.url = found[0] if found else ""

    def _until_quiet(self, command: str) -> None:
        """What was sent is done before the next command looks at it: a reader of the page is not as quick as this test."""
        if command.startswith(("genesis send ", "curl ")) and any(self.folder.glob("*.db")):
            until(lambda: json.loads(self.enter("genesis status --json"))["ledger"]["waiting"] == 0, "quiet")


def lay_out(page: str, folder: Path) -> Path:
    """What the reader of a page has in the folder in which the commands are entered."""
    shop = blocks("README.md")[0]
    if page == "docs/http.md":
        shop = shop.replace("import App", "import Request, App").replace("\n\n@app", f"{QUESTION}\n\n@app", 1) + ANSWER
    if page == "docs/simulation.md":
        (folder / "till.py").write_text(blocks(page)[0])
    elif page.startswith("examples/"):
        (folder / "examples").symlink_to(ROOT / "examples")
    elif page == TEMPLATE:
        assert CliRunner().invoke(main, ["new", "depot"]).exit_code == 0
        return folder / "depot"
    else:
        (folder / "shop.py").write_text(shop)
    return folder


SHOWN: dict[str, dict[str, Callable[[str], Any]]] = {
    "README.md": {"genesis state get inventory tea": lambda out: json.loads(out)["left"] == 97},
    "docs/http.md": {
        "order-17": lambda out: json.loads(out) == {"id": "order-17", "source": "/till/3", "duplicate": False, "deliveries": 1},
        "order-18": lambda out: json.loads(out)["id"] == "order-18",
        "order-19": lambda out: json.loads(out)["accepted"] == 2,
        "/ask/shop.stock.level": lambda out: json.loads(out) == 100 - 3 - 1 - 1,
    },
    "docs/simulation.md": {"genesis simulate": lambda out: "charges for 10 orders" in out},
    "examples/fastapi/README.md": {
        "/orders/now": lambda out: json.loads(out)["left"] == 96,
        "/stock/tea": lambda out: json.loads(out) == {"left": 94, "backorders": 0},
        "genesis status": lambda out: "RUNNING  shop" in out,
    },
    "examples/protected/README.md": {
        "/prices/tea": lambda out: json.loads(out) == {"sku": "tea", "cents": 500, "fresh": False},
        "/pricing": lambda out: json.loads(out)["counts"]["fallback"] == 1,
    },
    "examples/flights/README.md": {"totals.py": lambda out: json.loads(out)["boards"]["cancelled"] == 895},
    TEMPLATE: {"pytest": lambda out: "2 passed" in out},
}
"""By page and a part of a command: whether what it prints is right."""


RUN = [p for p in PAGES if p not in PAGES_NOT_RUN and any(command not in NOT_RUN for command in commands(p))]


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_work(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_tool: Callable[[str], str]
) -> None:
    require_tool("curl")
    monkeypatch.chdir(tmp_path)
    checks = dict(SHOWN.get(page, {}))
    with Terminal(lay_out(page, tmp_path)) as terminal:
        for command in commands(page):
            if command in NOT_RUN:
                continue
            shown = terminal.enter(command.replace("$name", "depot"))
            for part in [part for part in checks if part in command]:
                assert checks.pop(part)(shown), f"{command}\n{shown}"
    assert not checks, "these commands are not on the page any more"


def test_what_is_not_run_is_on_some_page() -> None:
    assert set(NOT_RUN) | set(ENDS) <= {command for page in PAGES for command in commands(page)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_that_are_run(page: str) -> None:
    """But for the overview of the command line, which is no list of commands to enter."""
    for language, text in fenced(page):
        if language != "sh" and not text.startswith("genesis new NAME"):
            assert not re.search(r"^\s*(\$ |genesis |curl |\./dev |pip |uvicorn |python )", text, re.MULTILINE), text
    assert not re.search(r"^    (\$ |genesis |curl |\./dev )", (ROOT / page).read_text(), re.MULTILINE), (
        "indented blocks are not run"
    )


def test_the_overview_of_the_command_line_has_every_command_with_options_that_exist() -> None:
    overview = next(text for _, text in fenced("docs/operating.md") if text.startswith("genesis new NAME"))
    listed = {}
    for line in re.sub(r"\n {10,}.*", "", overview).splitlines():
        usage = re.split(r" {2,}", line)[0]
        listed[usage.split()[1]] = usage
    assert set(listed) == set(SUBCOMMANDS)
    for name, usage in listed.items():
        assert set(re.findall(r"--[a-z-]+", usage)) <= options_of(name), usage
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            assert set(usage.split()[2].split("|")) == set(command.commands)


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_and_their_options_exist(page: str) -> None:
    for written in re.findall(r"`genesis ([a-z]+[^`]*)`", (ROOT / page).read_text()):
        name, *rest = written.split()
        assert name in SUBCOMMANDS, written
        assert set(re.findall(r"--[a-z-]+", " ".join(rest))) <= options_of(name), written


def options_of(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    parts = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    return {option for part in parts for parameter in part.params for option in parameter.opts}


@pytest.mark.parametrize(("page", "text"), [(p, text) for p in PAGES for language, text in fenced(p) if language == "toml"])
def test_the_configuration_on_a_page_loads(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of_project = text.startswith("[tool.")
    Path("pyproject.toml" if of_project else "genesis.toml").write_text(text)
    settings = Settings.load(environment={})
    assert tomllib.loads(text)
    if not of_project:
        assert settings.app.file == "genesis.toml"
        guide()["app"].own_settings().fill(settings.app)  # whose settings they are


@pytest.mark.parametrize(("page", "text"), [(p, text) for p in PAGES for language, text in fenced(p) if language == "json"])
def test_the_json_on_a_page_is_json(page: str, text: str) -> None:
    assert json.loads(text)
