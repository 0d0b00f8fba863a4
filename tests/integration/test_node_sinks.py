"""Sinks on real files: what a store keeps for them, how it is shown, and stores that are older than sinks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from genesis import Item, Message, Retry, UnavailableError
from genesis.cli.main import main
from genesis.engines.outside import Outside
from genesis.runtime.log import silence
from genesis.web.metrics import DoorFigures, exposition
from tests.unit.runtime.crm import Crm, fails, shop
from tests.unit.runtime.support import Job, in_real_time, until


def down(items: Sequence[Item[Job]]) -> None:
    raise UnavailableError("the crm", 600)


def genesis(*arguments: object) -> str:
    return CliRunner().invoke(main, [str(argument) for argument in arguments]).output


@in_real_time
async def test_a_sink_that_fails_is_shown_by_status_and_metrics_and_its_items_outlive_the_process(tmp_path: Path) -> None:
    crm, path = Crm(), tmp_path / "shop.db"
    crm.trouble = down
    async with shop(crm).running(str(path)) as node:
        await node.send_many([Job("a", n) for n in range(5)])
        await until(lambda: node.status().sinks["crm"].error and node.status().sinks["crm"].waiting == 5)
        text = exposition(node, DoorFigures({}, 0)).decode()
        assert 'genesis_sink_waiting{sink="crm"} 5.0' in text
        assert 'genesis_sink_failing{sink="crm"} 1.0' in text
        await until(lambda: "sink crm fails" in genesis("status", "--why", "--store", path))
        why = genesis("status", "--why", "--store", path)
        assert "UnavailableError: the crm is unavailable; retry after 600.0 s; 5 items wait; it is tried again at" in why
        screen = genesis("status", "--store", path)
        assert "outbox 5" in screen
        assert "sink     crm failed  5 wait  UnavailableError" in screen
    seen = json.loads(genesis("status", "--json", "--store", path))
    assert (seen["well"], seen["ledger"]["in_outbox"], seen["sinks"]["crm"]["waiting"]) == (True, 5, 5)
    assert "sink     crm not running  5 wait" in genesis("status", "--store", path)
    crm.trouble = lambda items: None
    async with shop(crm).running(str(path)) as node:
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == [0, 1, 2, 3, 4]


@in_real_time
async def test_letters_of_a_sink_are_shown_and_replayed_on_the_command_line(tmp_path: Path) -> None:
    crm, path = Crm(), tmp_path / "shop.db"
    crm.trouble = fails(2)
    async with shop(crm, retry=Retry(attempts=1)).running(str(path)) as node:
        await node.send_many([Job("a", n) for n in range(5)])
        await until(lambda: not node.status().ledger.waiting)
        assert "failed: ConnectionError: not this one" in genesis("dlq", "list", "--store", path)
        crm.trouble = lambda items: None
        await asyncio.to_thread(genesis, "dlq", "replay", "--all", "--store", path)
        await until(lambda: crm.taken == [0, 1, 3, 4, 2])
        await until(lambda: "0 letters kept" in genesis("status", "--store", path))


def aged(path: Path) -> None:
    """Make the store one of before there were sinks."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE out")
        db.execute("PRAGMA user_version = 1")
        db.commit()


@in_real_time
async def test_a_store_of_before_there_were_sinks_is_read_and_gets_its_outbox_when_it_is_opened(tmp_path: Path) -> None:
    crm, path = Crm(), tmp_path / "shop.db"
    async with shop(crm).running(str(path)) as node:
        await node.send(Job("a", 1))
        await until(lambda: not node.status().ledger.waiting)
    aged(path)
    with closing(Outside(path)) as outside:
        assert outside.count("out") == 0
    assert "adds up" in genesis("status", "--why", "--store", path) + genesis("status", "--store", path)
    async with shop(crm).running(str(path)) as node:
        await node.send(Job("a", 2))
        await until(lambda: not node.status().ledger.waiting)
        assert crm.taken == [1, 2]


@in_real_time
async def test_errors_in_words_that_no_store_can_hold_are_shown_and_stop_nothing(tmp_path: Path) -> None:
    crm, path = Crm(), tmp_path / "shop.db"
    crm.trouble = fails(1, error=ConnectionError("shut \udcff"))
    app = shop(crm)

    @app.source
    async def spring(position: int | None) -> AsyncIterator[tuple[int, Message]]:
        raise ConnectionError("dry \udcff")
        yield 1, Job("a", 1)

    with silence():  # such words cannot be sent from one process of a test run to another
        async with app.running(str(path)) as node:
            await node.send(Job("a", 1))
            seen = ("sink     crm failed  1 wait  ConnectionError: shut \\udcff", "ConnectionError: dry \\udcff")
            await until(lambda: all(words in genesis("status", "--store", path).replace("\\\\", "\\") for words in seen))
