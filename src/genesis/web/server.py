"""The HTTP door of `genesis run`: uvicorn in our own event loop, which leaves signals to whoever runs it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

import uvicorn

from genesis.config import Settings
from genesis.core.errors import SettingsError
from genesis.runtime.log import log
from genesis.runtime.supervisor import Supervisor
from genesis.web.connection import Connection, DoorConfig
from genesis.web.ingest import Door

KEEP_ALIVE_S = 30
"""How long an idle connection is kept: longer than a scrape of Prometheus takes to come again at its usual 15 s."""
BACKLOG = 512
"""Connections that wait to be taken: a burst of clients that come back after a restart."""
LOOK_S = 1.0
"""How often connections are looked at: a limit of seconds needs no finer clock."""
LAST_S = 1
"""How long answers that were given may take to reach their clients at a stop."""
LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Served:
    """A door that listens."""

    door: Door
    url: str
    """Its address, with the port that it has."""


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Served]:
    """Listen while the block runs.

    Raises:
        SettingsError: the address cannot be used.
    """
    listening = listen(settings.host, settings.http)
    door = Door(trust_priority=settings.trust_priority)
    config = DoorConfig(
        door,
        http=Connection,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what clients do wrong is told to them
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_S,
    )
    config.connections_max = settings.http_connections
    server, supervisor = _Server(config), Supervisor()
    serve = supervisor.spawn(server.serve([listening]), "http")
    supervisor.spawn(_look(server), "http-clients")
    host, port = listening.getsockname()[:2]
    if host not in LOCAL:
        log.warning("%s is open to other machines, and nobody is asked for a password", host)
    try:
        yield Served(door, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    finally:
        server.should_exit = True
        await asyncio.wait([serve])
        for connection in list(server.server_state.connections):
            cast(Connection, connection).transport.abort()
        await supervisor.stop(LAST_S)
    if supervisor.failure.done():
        raise supervisor.failure.result()


async def _look(server: uvicorn.Server) -> None:
    """Look after slow clients, for ever."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(LOOK_S)
        for connection in list(server.server_state.connections):
            cast(Connection, connection).check(now())


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingsError when the address cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # With its protocol said: asyncio sends small writes at once (TCP_NODELAY) only on sockets that name it, and
        # without that the second write of each answer waits 40 ms for an acknowledgement of the first.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host, port, error) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        raise _unusable(host, port, error) from None


def _unusable(host: str, port: int, error: OSError) -> SettingsError:
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else str(error)  # what `socket` says names the address once more
    return SettingsError(f"cannot listen on port {port} of {host}: {why}")
