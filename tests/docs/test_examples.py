"""The code in the documents is code: every block runs, in order, and what it defines can be used."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from genesis.config import Settings, known_settings, option_of
from genesis.runtime.own_settings import Given
from tests.unit.cli.support import Shop, until

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text())


def run(source: str, names: dict[str, Any]) -> None:
    """Execute a block; one that awaits at its top level runs in a coroutine."""
    if re.search(r"^(async with|await) ", source, re.MULTILINE):
        body = "".join(f"    {line}\n" for line in source.splitlines())
        source = f"async def _block():\n{body}"
    exec(compile(source, "block", "exec"), names)


def defined(document: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "documented"}
    for source in blocks(document):
        run(source, names)
    return names


def guide() -> dict[str, Any]:
    from genesis import App, Context, on

    names: dict[str, Any] = {"__name__": "documented", "app": App("guide"), "Context": Context, "on": on}
    for source in blocks("docs/guide.md"):
        run(source, names)
    return names


def test_the_example_of_the_readme_is_tested_as_the_readme_says() -> None:
    names = defined("README.md")
    asyncio.run(names["test_an_order_counts_once"]())


def test_the_embedded_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = defined("README.md")

    async def use() -> None:
        await names["_block"]()
        async with names["app"].running(store="shop.db") as node:
            again = await node.send(names["OrderPlaced"]("tea", 3), id="order-17")
            assert again.duplicate

    asyncio.run(use())


def test_the_example_of_the_readme_is_short() -> None:
    example = blocks("README.md")[0]
    assert len(example.strip().splitlines()) <= 24


def test_the_source_of_the_guide_gives_its_events() -> None:
    names = guide()

    async def first() -> Any:
        return await anext(names["lines"](4))

    assert inspect.isasyncgenfunction(names["lines"])
    assert asyncio.run(first()) == (5, names["OrderPlaced"]("order-5", "tea"))


def test_the_sink_of_its_page_brings_an_alert_to_the_crm_that_a_test_gives() -> None:
    names = defined("docs/sinks.md")
    rows: list[tuple[str, str]] = []

    class Fake(names["Crm"]):  # type: ignore[misc]
        async def put(self, more: list[tuple[str, str]]) -> None:
            rows.extend(more)

    async def alert() -> None:
        async with names["app"].simulate(resources={names["Crm"]: Fake()}) as sim:
            await sim.send(names["Alert"]("boiler", 97.0), id="a1")
            await sim.settle()

    asyncio.run(alert())
    assert rows == [("a1", "boiler")]


def test_the_test_of_the_guide_that_replaces_a_resource_passes() -> None:
    asyncio.run(guide()["test_a_quote_has_the_price_of_the_client"]())


def test_the_application_of_the_guide_is_given_its_settings_and_those_of_its_module() -> None:
    names = guide()
    _, rows = names["app"].own_settings().fill(Given(variables={"GENESIS_APP_BILLING_DAYS": "14"}))
    assert {row.name: row.value for row in rows} == {"app.currency": "EUR", "app.fee": 0.5, "app.billing.days": 14}
    assert set(names["app"].definition().components) == {"quoting", "biller"}


def test_the_table_of_settings_has_each_with_its_variable_and_flag_and_its_file_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs/operating.md").read_text()
    for name in known_settings():
        row = f"| `{name}` | `GENESIS_{name.upper()}` | `{option_of(name)}"
        assert row in page, row
    (tmp_path / "genesis.toml").write_text(re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    settings = Settings.load(file=tmp_path / "genesis.toml", environment={})
    assert (settings.store, settings.slots, settings.drain_s) == ("shop.db", 128, 20.0)
    assert settings.app.table == {"currency": "USD", "billing": {"days": 14}}


def test_the_states_of_the_guide_migrate() -> None:
    names: dict[str, Any] = {"__name__": "documented"}
    run(blocks("docs/guide.md")[1], names)
    from genesis.core.message import StateCodec, encode

    assert StateCodec(names["Stock"]).decode(1, encode({"remaining": 7})) == names["Stock"](left=7)


def test_the_wrong_component_of_the_simulation_page_is_found_and_the_test_of_one_world_passes() -> None:
    from genesis.chaos.explore import PromiseBrokenError

    names = defined("docs/simulation.md")

    async def one_world() -> None:
        async with names["app"].simulate() as sim:
            await names["scenario"](sim)

    asyncio.run(one_world())
    with pytest.raises(PromiseBrokenError, match="charges for 10 orders") as found:
        asyncio.run(names["test_every_order_is_charged_once"]())
    assert len(found.value.run.schedule) == 1


def test_the_door_of_the_page_on_http_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shop = blocks("README.md")[0]
    names: dict[str, Any] = {"__name__": "documented"}
    run(blocks("docs/http.md")[0], names)
    run(shop.partition('app = App("shop")')[2].join(("from genesis import Context, Message, State, on\n", "")), names)

    async def live() -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        async with names["lifespan"](None):
            scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}
            await names["door"](scope, None, send)
        return statuses[0]

    assert asyncio.run(live()) == 200


def test_the_test_of_the_page_on_the_service_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sys.getswitchinterval()
    try:
        defined("examples/fastapi/README.md")["test_an_order_counts"](monkeypatch)
    finally:
        sys.setswitchinterval(before)


def test_the_calls_of_the_page_on_policies_over_http_are_protected() -> None:
    names = defined("docs/policies-http.md")

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if request.url.host == "prices.example" else 200, json={"cents": 450})

    async def call() -> list[int]:
        names["transport"]._transport = httpx.MockTransport(answer)
        names["pricing"].update(attempts=1)
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            await names["price"]("tea")
        served = httpx.ASGITransport(names["api"])
        async with httpx.AsyncClient(transport=served, base_url="http://sales") as client:
            replies = [await client.get("/", headers={"grpc-timeout": value}) for value in ("1S", "0n", "soon")]
            return [reply.status_code for reply in replies]

    assert asyncio.run(call()) == [200, 504, 400]


def test_the_recipe_for_structlog_logs_as_whose_it_is(tmp_path: Path) -> None:
    """In a process of its own: structlog is configured for all of one."""
    logging = 'log.bind(sku=order.sku).info("reserved", left=stock.left)\n        stock.left -= order.qty'
    shop = blocks("README.md")[0].replace("stock.left -= order.qty", logging)
    with Shop(tmp_path) as found:
        (tmp_path / "shop.py").write_text(f"{blocks('docs/operating.md')[0]}\n\n{shop}")
        running = found.start("--log", "json", GENESIS_LOG="info")
        assert found.run("send", "shop.order.placed", '{"sku": "tea", "qty": 3}', "--id", "order-17").returncode == 0
        until(lambda: '"reserved"' in running.said, "the line")
        line = next(json.loads(line) for line in running.said.splitlines() if '"reserved"' in line)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "shop",
        "message": "reserved",
        "sku": "tea",
        "left": 100,
        "component": "inventory",
        "event_id": "order-17",
        "source": "shop",
        "attempt": 1,
    }


def test_the_tests_of_the_page_on_testing_pass_with_its_settings(tmp_path: Path) -> None:
    """With the shop of the README, whose handler also refuses what it has not."""
    page = (ROOT / "docs/testing.md").read_text()
    shop = blocks("README.md")[0]
    refusing = "        if order.qty > stock.left:\n            raise OutOfStockError\n        stock.left -= order.qty"
    shop = shop.replace("        stock.left -= order.qty", refusing)
    (tmp_path / "shop.py").write_text(f"{shop}\n\nclass OutOfStockError(Exception):\n    pass\n")
    (tmp_path / "pyproject.toml").write_text(re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    (tmp_path / "test_shop.py").write_text(blocks("docs/testing.md")[0])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "genesis.cli.pytest_plugin"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
