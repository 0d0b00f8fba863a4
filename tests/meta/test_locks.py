import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PINNED = sorted(path.name for pattern in ("*.lock", "*.txt") for path in REQUIREMENTS.glob(pattern))


@pytest.mark.parametrize("name", PINNED)
def test_every_package_is_pinned_by_hash_and_no_address_is_named(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    assert "://" not in text
    for block in re.findall(r"^\w.*(?:\n +.*)*", text, re.MULTILINE):
        assert re.match(r"[\w.-]+==\S+ ", block)
        assert "--hash=sha256:" in block
