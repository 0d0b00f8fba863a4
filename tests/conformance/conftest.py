from pathlib import Path

import pytest

from tests.conformance.stores import NAMES, Store, make_stores


@pytest.fixture(params=NAMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each engine in turn, empty."""
    return make_stores(tmp_path)[request.param]()
