"""What every test shares: how hard Hypothesis tries, and what a test may ask of the machine."""

import os
import shutil
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """Give `require_tool("strace")`: its path, or a skip; a failure where GENESIS_REQUIRE names the tool."""
    required = os.environ.get("GENESIS_REQUIRE", "").split(",")

    def path_of(tool: str) -> str:
        if path := shutil.which(tool):
            return path
        if tool in required:
            pytest.fail(f"{tool} is not installed, and GENESIS_REQUIRE names it")
        pytest.skip(f"{tool} is not installed")

    return path_of
