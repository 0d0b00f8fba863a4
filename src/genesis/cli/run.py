"""`genesis run`: the application in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from genesis.app import App
from genesis.cli.logs import FORMS, logging_to_stderr
from genesis.cli.options import given_options, load_settings, setting_flags
from genesis.cli.reload import reloading
from genesis.cli.talk import INTERRUPTED, OK, UNFIT, Failure, report, say
from genesis.cli.where import load_app, open_store, store_path
from genesis.config import Settings, known_settings
from genesis.core.errors import GenesisError
from genesis.core.ports import CrashPoint, Ledger
from genesis.runtime.node import Node
from genesis.runtime.release import version

if TYPE_CHECKING:
    from genesis.web.server import Served

SWITCH_S = 1e-4
"""A busy event loop gives the thread that commits its turn after this long; with Python's 5 ms commits starve."""
LINGER_S = 1.0
"""How long threads that still run a handler may take to end after the drain."""


class Stop:
    """Told to stop: once means in order, twice means now. What is still opening is interrupted."""

    def __init__(self) -> None:
        self.opening = asyncio.current_task()
        self.signal: signal.Signals | None = None
        self._told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._tell, number)

    def _tell(self, number: signal.Signals) -> None:
        if self.signal is not None:
            say("genesis: stopped at once; what was running runs again at the next start")
            os._exit(INTERRUPTED)
        self.signal = number
        if sys.stderr.isatty():
            say("stopping in order; once more stops at once")
        self._told.set()
        if self.opening is not None:
            self.opening.cancel()

    def with_stdin(self) -> None:
        """Stop in order when standard input ends, too."""
        loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

        def ended() -> None:
            if not os.read(stdin, 1024):
                loop.remove_reader(stdin)
                self._tell(signal.SIGTERM)

        loop.add_reader(stdin, ended)

    async def told(self) -> None:
        """Wait for the first signal."""
        await self._told.wait()


class CrashAt:
    """Kills this process, as `kill -9` does, at the n-th passing of a point of the commit path."""

    def __init__(self, point: CrashPoint, times: int) -> None:
        self._point, self._left = point, times

    @classmethod
    def of(cls, text: str) -> CrashAt:
        """Read ``POINT:N``.

        Raises:
            Failure: it is not of this form.
        """
        name, _, times = text.partition(":")
        if name not in list(CrashPoint) or not times.isdecimal() or int(times) < 1:
            points = ", ".join(CrashPoint)
            raise Failure(f"GENESIS_CRASH is {text!r}: POINT:N, a point of {points} and a number from 1", UNFIT)
        return cls(CrashPoint(name), int(times))

    def __call__(self, point: CrashPoint) -> None:
        """Pass a point."""
        if point is self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


@click.command()
@click.argument("app", metavar="MODULE:APP")
@setting_flags(*known_settings())
@click.option("--log", type=click.Choice(FORMS), help="How it logs; by default pretty on a terminal, else json.")
@click.option("--reload", is_flag=True, help="For development: start it again whenever a .py file beside or below it changes.")
@click.option(
    "--leash", is_flag=True, hidden=True, help="Stop in order when standard input ends: with the process that started it."
)
@click.pass_context
def run(ctx: click.Context, /, app: str, config: str | None, log: str | None, reload: bool, leash: bool, **flags: Any) -> None:
    """Run an application until SIGTERM or Ctrl-C, then stop in order.

    Intake ends first, running handlers may end (--drain), and all that was done is committed. A second signal stops at
    once: nothing is lost, and what was running runs again at the next start. What is not said here comes from the
    environment and from genesis.toml: see genesis config.

    With --http, events are taken at POST /events (CloudEvents), questions at POST /ask/TYPE; /readyz says whether there
    is room, /metrics how it goes.

    Exit code 0 after SIGTERM, 130 after Ctrl-C, 3 when the application or its store cannot be used.
    """
    with logging_to_stderr(log):
        try:
            settings = load_settings(config, flags)
            code = reloading(app, given_options(ctx)) if reload else _run(app, settings, leash=leash)
        except Exception as error:
            code = report(error)
        _leave(code)
    ctx.exit(code)


def _run(spec: str, settings: Settings, *, leash: bool) -> int:
    text = os.environ.get("GENESIS_CRASH")
    crash = CrashAt.of(text) if text else None
    found = load_app(spec)
    sys.setswitchinterval(SWITCH_S)
    return asyncio.run(_serve(found, settings.store or f"{found.name}.db", settings, crash, leash=leash))


async def _serve(app: App, store: str, settings: Settings, crash: CrashAt | None, *, leash: bool) -> int:
    stop = Stop()
    if leash:
        stop.with_stdin()
    try:
        async with _door(settings) as served, app.running(store, settings=settings, crash=crash) as node:
            stop.opening = None
            where = f"  http {served.url}" if served is not None else ""
            say(f"Genesis {version()}  {app.name}  store {store}  pid {os.getpid()}{where}")
            if served is not None:
                served.door.open(node)
            gc.freeze()  # what was imported lives as long as the process: no collection need look through it
            await stop.told()
            if served is not None:
                await served.door.drain(settings.drain_s)
            ledger = _counted(node)
    except asyncio.CancelledError:
        if stop.opening is None or stop.signal is None:
            raise
        say(f"{app.name} stopped before it was open")
    else:
        say(f"{app.name} stopped  {_told(_stored(store) or ledger)}")
    return INTERRUPTED if stop.signal is signal.SIGINT else OK


def _door(settings: Settings) -> AbstractAsyncContextManager[Served | None]:
    """The HTTP door, if there is to be one. It listens before the store is opened and until the node has stopped."""
    if settings.http < 0:
        return nullcontext()
    from genesis.web.server import serving  # late: who runs no door pays for no server

    return serving(settings)


def _counted(node: Node) -> Ledger:
    """The ledger before the drain; zeros while the store is being opened again."""
    try:
        return node.status().ledger
    except GenesisError:
        return Ledger()


def _stored(store: str) -> Ledger | None:
    """The ledger as the last commit left it; None when it went with the process."""
    if store in ("memory:", ":memory:"):
        return None
    with open_store(store_path(store)) as outside:
        head = outside.head()
    return head.ledger if head is not None else None


def _told(ledger: Ledger) -> str:
    wrong = ledger.imbalance()
    return (
        f"accepted {ledger.accepted:,}  done {ledger.done:,}  expired {ledger.expired:,}  dead {ledger.dead:,}"
        f"  waiting {ledger.waiting:,}  {f'THE LEDGER DOES NOT ADD UP: {wrong}' if wrong else 'the ledger adds up'}"
    )


def _leave(code: int) -> None:
    """End the process although a handler in a thread does not: Python would wait for it for ever."""
    others = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in others:
        thread.join(LINGER_S / len(others))
    stuck = [thread.name for thread in others if thread.is_alive()]
    if stuck:
        say(f"genesis: left behind, still running: {', '.join(stuck)}")
        os._exit(code)
