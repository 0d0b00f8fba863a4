"""Readings of a plant become alerts, and each alert one row of PostgreSQL, whatever is killed meanwhile.

Run it: ``GENESIS_APP_CONNINFO="dbname=plant" genesis run examples.postgres.app:app --http 8080``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from psycopg import AsyncConnection, OperationalError

from genesis import App, Context, Item, Message, UnavailableError, on

app = App("plant")
TOO_HOT = 90.0

TABLES = """
    CREATE TABLE IF NOT EXISTS alert (
        source text, id text, number bigint NOT NULL, station text NOT NULL, reading text NOT NULL, celsius float8 NOT NULL,
        PRIMARY KEY (source, id));
    CREATE TABLE IF NOT EXISTS station (name text PRIMARY KEY, alerts bigint NOT NULL)
"""
NEW_ALERTS = """
    INSERT INTO alert (source, id, number, station, reading, celsius)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::float8[])
    ON CONFLICT DO NOTHING RETURNING station
"""
COUNTED = """
    INSERT INTO station (name, alerts) SELECT name, count(*) FROM unnest(%s::text[]) AS name GROUP BY name
    ON CONFLICT (name) DO UPDATE SET alerts = station.alerts + excluded.alerts
"""


class Reading(Message, type="plant.reading"):
    station: str
    celsius: float


class Alert(Message, type="plant.alert"):
    station: str
    reading: str
    celsius: float


@app.settings
class Database(msgspec.Struct):
    conninfo: str = "dbname=plant"


class Postgres:
    """A connection that is made when it is needed, and made anew after any failure."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: AsyncConnection | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """All or nothing. Raises UnavailableError while the server is away."""
        try:
            if self._connection is None:
                self._connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
                await self._connection.execute(TABLES)
            async with self._connection.transaction():
                yield self._connection
        except OperationalError as error:
            await self.close()
            raise UnavailableError(f"PostgreSQL: {error}", retry_after_s=1.0) from error
        except BaseException:  # a call that was cancelled may have left a query half read
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


@app.resource
async def postgres(database: Database) -> AsyncIterator[Postgres]:
    found = Postgres(database.conninfo)
    yield found
    await found.close()


@app.component
class Watch:
    @on(Reading)
    async def look(self, reading: Reading, ctx: Context) -> None:
        if reading.celsius > TOO_HOT:
            ctx.emit(Alert(reading.station, ctx.event_id, reading.celsius))


@app.sink(Alert, batch=200, timeout=10.0)
async def to_postgres(items: Sequence[Item[Alert]], postgres: Postgres) -> None:
    """One transaction: what was stored before is not stored again, and what goes with it is done for the new ones only."""
    rows = [(i.source, i.id, i.number, i.message.station, i.message.reading, i.message.celsius) for i in items]
    async with postgres.transaction() as db:
        new = await db.execute(NEW_ALERTS, [list(column) for column in zip(*rows, strict=True)])
        stations = [station for (station,) in await new.fetchall()]
        await db.execute(COUNTED, [stations])
