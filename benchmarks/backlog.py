"""A store after `kill -9`: a million keys with a state, a million events that wait. Made once, then copied."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import ClassVar

from benchmarks.app import Committed
from benchmarks.harness import FOLDER, ROOT, command, progress, scratch
from genesis import App, Context, Message, State, on
from genesis.config import Settings

app = App("backlog")
EVENTS = 1_000_000
PRODUCERS = 512
FORMAT = (
    "core/message.py",
    "engines/sqlite_schema.py",
    "engines/sqlite_rows.py",
    "core/event.py",
    "core/ports.py",
    "runtime/commit.py",
)
"""Where it is said what a store looks like: a change of these makes a new one."""


class Ordered(Message, type="backlog.ordered"):
    id: int
    key: str
    text: str


class Account(State, version=1):
    count: int = 0
    last: str = ""


@app.component(key="key", state=Account)
class Accounts:
    shut: ClassVar[bool] = False
    """Handlers begin, and wait for ever."""
    meter: ClassVar[Committed]

    @on(Ordered, timeout=None)
    async def order(self, ordered: Ordered, account: Account, ctx: Context) -> None:
        if self.shut:
            await asyncio.Event().wait()
        account.count += 1
        account.last = ordered.text
        self.meter.handled(ordered.id)


def orders(first: int, n: int) -> Iterator[Ordered]:
    """One for each of n keys, with a payload of about 100 bytes."""
    return (Ordered(first + i, f"account-{i:07}", f"{i:08}{'.' * 40}") for i in range(n))


async def build(folder: str, n: int) -> None:
    """Fill a store and die."""
    Accounts.meter = Committed(n)
    async with app.running(f"{folder}/backlog.db", settings=Settings(), crash=Accounts.meter) as node:
        await node.send_many(orders(0, n))
        await Accounts.meter.done.wait()
        progress(f"backlog: {n:,} keys")
        Accounts.shut = True
        waiting = orders(n, n)

        async def produce() -> None:
            for order in waiting:
                await node.send(order, id=str(order.id))

        async with asyncio.TaskGroup() as group:
            for _ in range(PRODUCERS):
                group.create_task(produce())
        progress(f"backlog: {n:,} waiting events")
        os.kill(os.getpid(), signal.SIGKILL)


def ready(n: int) -> Path:
    """The folder of a built store; built now if there is none."""
    source = b"".join((ROOT / "src/genesis" / name).read_bytes() for name in FORMAT) + Path(__file__).read_bytes()
    folder = FOLDER / f"backlog-{n}-{sha256(source).hexdigest()[:12]}"
    if folder.exists():
        return folder
    for old in FOLDER.glob(f"backlog-{n}-*"):
        rmtree(old)
    with scratch() as draft:
        made = Path(draft) / "made"
        made.mkdir()
        ended = subprocess.run(command(build, folder=str(made), n=n), cwd=ROOT, check=False).returncode
        if ended != -signal.SIGKILL:
            sys.exit(f"benchmarks: the backlog was not built (ended with {ended})")
        for leftover in ("backlog.db-shm", "backlog.db.lock"):
            (made / leftover).unlink()
        made.rename(folder)
    return folder
