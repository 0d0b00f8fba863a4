"""The HTTP door of `genesis run`: connections in the event loop of the node, in front of its door."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate

from genesis.config import Settings
from genesis.core.errors import SettingsError
from genesis.runtime.clock import LoopClock
from genesis.runtime.log import log
from genesis.runtime.supervisor import Supervisor
from genesis.web.connection import Connection, Connections
from genesis.web.ingest import Door

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


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Served]:
    """Listen while the block runs.

    Raises:
        SettingsError: the address cannot be used.
    """
    listening = listen(settings.host, settings.http)
    door = Door(trust_priority=settings.trust_priority)
    connections, supervisor = Connections(door, settings.http_connections), Supervisor()
    looking = supervisor.spawn(_look(connections), "http-clients")
    server = await asyncio.get_running_loop().create_server(lambda: Connection(connections), sock=listening, backlog=BACKLOG)
    host, port = listening.getsockname()[:2]
    if host not in LOCAL:
        log.warning("%s is open to other machines, and nobody is asked for a password", host)
    try:
        yield Served(door, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    finally:
        server.close()
        await _leave(connections)
        await supervisor.stop(LAST_S)
    if not looking.cancelled():
        raise supervisor.failure.result()


async def _look(connections: Connections) -> None:
    """Look after slow clients and the date, for ever."""
    clock = LoopClock()
    while True:
        connections.date = f"date: {formatdate(clock.wall(), usegmt=True)}\r\n".encode()
        for connection in list(connections.all):
            connection.check(clock.now())
        await asyncio.sleep(LOOK_S)


async def _leave(connections: Connections) -> None:
    """Close all connections: what came whole is answered and read, within its time."""
    for connection in list(connections.all):
        connection.shut()
    if connections.all:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                connections.none_left.clear()
                await connections.none_left.wait()
    for connection in list(connections.all):
        connection.transport.abort()
    for task in connections.tasks:
        task.cancel()
    if connections.tasks:
        await asyncio.wait(connections.tasks)


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
