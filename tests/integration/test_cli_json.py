"""What every command that reads prints for programs: one object a line, with a schema number and times in UTC."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.cli.support import Shop
from tests.unit.cli.test_main import ALL, SILENT

ACTS = {"genesis send", "genesis dlq replay", "genesis dlq drop"}
READS = {
    "genesis status": "--why --json",
    "genesis tail": "--once --jsonl",
    "genesis dlq list": "--json",
    "genesis dlq show": "KEY --json",
    "genesis state get": "inventory tea --json",
    "genesis state list": "inventory --json",
    "genesis simulate": "shop:app --seeds 0 --faults 0 --json",
    "genesis config": "shop:app --json",
    "genesis doctor": "--json",
    "genesis bench": "--seconds 0.1 --json",
}
TIMES = {"at", "since", "until", "born_at", "told_at", "written_at"}
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(tmp_path_factory.mktemp("shop")) as found:
        for sku in ("tea", "bad"):
            found.send(sku, "--app", "shop:app")
        yield found


def times(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from times(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from times(inner, name)
    elif name in TIMES and value is not None:
        yield value


@pytest.mark.parametrize("path", sorted(set(ALL) - SILENT - ACTS))
def test_a_command_that_reads_prints_objects_with_a_schema(path: str, shop: Shop) -> None:
    key = shop.json("dlq", "list")["letters"][0]["key"]
    done = shop.run(*path.split()[1:], *READS[path].replace("KEY", key).split())
    assert done.returncode in (0, 1), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines
    assert all(next(iter(line)) == "schema" and line["schema"] == 1 for line in lines)
    assert all(UTC.fullmatch(time) for time in times(lines))
