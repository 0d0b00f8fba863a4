"""What every test shares: how hard Hypothesis tries, and what a test may ask of the machine."""

import os
import shutil
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import settings

from genesis.chaos.vfs import NotWatchableError, find_library

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """Give `require_tool("strace")`: its path, or a skip; a failure where GENESIS_REQUIRE names the tool."""

    def path_of(tool: str) -> str:
        if path := shutil.which(tool):
            return path
        do_without(tool, f"{tool} is not installed")

    return path_of


@pytest.fixture(scope="session")
def shared_sqlite() -> None:
    """The SQLite of this Python can be watched; else a skip, or a failure where GENESIS_REQUIRE names shared-sqlite."""
    try:
        find_library()
    except NotWatchableError as error:
        do_without("shared-sqlite", str(error))


def do_without(what: str, why: str) -> NoReturn:
    if what in os.environ.get("GENESIS_REQUIRE", "").split(","):
        pytest.fail(f"{why}, and GENESIS_REQUIRE names {what}")
    pytest.skip(why)
