"""New York's airports in the storm: boards, rebookings and statistics, fed by four real days.

    genesis run examples.flights.app:app

FLIGHTS_SPEED   seconds of the feed in one real second; 1440, the default, is a day a minute; "inf" does not wait; with 0
                the feed comes over HTTP
FLIGHTS_SCALE   copies of the world, 1 by default

A more urgent message may pass an earlier one of the same flight: a cancellation (CRITICAL) its own appearance on the
boards (NORMAL). So nothing here depends on the order of different kinds: a status only moves up, counts only grow.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Literal, get_args

from examples.flights.alerts import alerts
from examples.flights.feed import feed
from examples.flights.messages import (
    FlightArrived,
    FlightCancelled,
    FlightDelayed,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    GateChanged,
    GetGate,
    GetStatus,
    RebookRequested,
    WeatherObserved,
)
from genesis import App, Context, Message, State, on

app = App("flights")
app.include(alerts)

Status = Literal["unknown", "scheduled", "delayed", "departed", "arrived", "diverted", "cancelled"]
RANK: dict[Status, int] = {status: rank for rank, status in enumerate(get_args(Status))}


class Board(State, version=1):
    status: Status = "unknown"
    departure_delay_min: int = 0
    scheduled: int = 0
    delayed: int = 0
    departed: int = 0
    arrived: int = 0
    diverted: int = 0
    cancelled: int = 0

    def reach(self, status: Status) -> None:
        if RANK[status] > RANK[self.status]:
            self.status = status


@app.component(key="flight", state=Board)
class FlightBoard:
    """What the boards show of each flight, and how often it heard of it: each count ends as 0 or 1."""

    @on(FlightScheduled)
    async def scheduled(self, flight: FlightScheduled, board: Board, ctx: Context) -> None:
        board.scheduled += 1
        board.reach("scheduled")

    @on(FlightDelayed)
    async def delayed(self, flight: FlightDelayed, board: Board, ctx: Context) -> None:
        board.delayed += 1
        board.reach("delayed")

    @on(FlightDeparted)
    async def departed(self, flight: FlightDeparted, board: Board, ctx: Context) -> None:
        board.departed += 1
        board.departure_delay_min = flight.delay_min
        board.reach("departed")

    @on(FlightArrived)
    async def arrived(self, flight: FlightArrived, board: Board, ctx: Context) -> None:
        board.arrived += 1
        board.reach("arrived")

    @on(FlightDiverted)
    async def diverted(self, flight: FlightDiverted, board: Board, ctx: Context) -> None:
        board.diverted += 1
        board.reach("diverted")

    @on(FlightCancelled)
    async def cancelled(self, flight: FlightCancelled, board: Board, ctx: Context) -> None:
        board.cancelled += 1
        board.reach("cancelled")

    @on(GetStatus, read_only=True)
    async def status(self, query: GetStatus, board: Board, ctx: Context) -> str:
        return board.status


class Gate(State, version=1):
    gate: str = "unknown"
    changes: int = 0


@app.component(key="flight", state=Gate)
class Gates:
    """The gates, as people say them over HTTP: apart from the boards, whose totals are those of the feed."""

    @on(GateChanged)
    async def changed(self, change: GateChanged, gate: Gate, ctx: Context) -> None:
        gate.gate = change.gate
        gate.changes += 1

    @on(GetGate, read_only=True)
    async def where(self, query: GetGate, gate: Gate, ctx: Context) -> str:
        return gate.gate


class Asked(State, version=1):
    seats: int = 0


@app.component(key="flight", state=Asked, essential=True)
class Rebooking:
    """Asks for another flight for each seat of a cancelled one: up to 400 messages in one atomic step."""

    @on(FlightCancelled)
    async def cancelled(self, flight: FlightCancelled, asked: Asked, ctx: Context) -> None:
        for seat in range(1, flight.seats + 1):
            ctx.emit(RebookRequested(flight=flight.flight, seat=seat, seats=flight.seats))
        asked.seats += flight.seats


class Ledger(State, version=1):
    seats_requested: int = 0
    seats_rebooked: int = 0
    last_seat: int = 0
    out_of_order: int = 0
    """Seats that were not the one after the last: lost, doubled or overtaken. Must stay 0."""


@app.component(key="flight", state=Ledger, essential=True)
class RebookingLedger:
    """Books the seats of each flight, and proves that none was lost, doubled or overtaken."""

    @on(RebookRequested)
    async def rebook(self, request: RebookRequested, ledger: Ledger, ctx: Context) -> None:
        if request.seat != ledger.last_seat + 1:
            ledger.out_of_order += 1
        ledger.last_seat = request.seat
        ledger.seats_requested = request.seats
        ledger.seats_rebooked += 1


class Airport(State, version=1):
    scheduled: int = 0
    delayed: int = 0
    departed: int = 0
    departure_delay_min: int = 0
    """Sum over the flights that left late; those that left early do not make up for them."""
    cancelled: int = 0
    arrived: int = 0
    diverted: int = 0
    weather_reports: int = 0
    gust_max_mph: float = 0.0


@app.component(key="origin", state=Airport)
class AirportStatistics:
    """Counts a departure where it was to start, an arrival or a diversion where it was to end."""

    @on(FlightScheduled)
    async def scheduled(self, flight: FlightScheduled, airport: Airport, ctx: Context) -> None:
        airport.scheduled += 1

    @on(FlightDelayed)
    async def delayed(self, flight: FlightDelayed, airport: Airport, ctx: Context) -> None:
        airport.delayed += 1

    @on(FlightDeparted)
    async def departed(self, flight: FlightDeparted, airport: Airport, ctx: Context) -> None:
        airport.departed += 1
        airport.departure_delay_min += max(flight.delay_min, 0)

    @on(FlightCancelled)
    async def cancelled(self, flight: FlightCancelled, airport: Airport, ctx: Context) -> None:
        airport.cancelled += 1

    @on(FlightArrived, key="dest")
    async def arrived(self, flight: FlightArrived, airport: Airport, ctx: Context) -> None:
        airport.arrived += 1

    @on(FlightDiverted, key="dest")
    async def diverted(self, flight: FlightDiverted, airport: Airport, ctx: Context) -> None:
        airport.diverted += 1

    @on(WeatherObserved, key="airport")
    async def weather(self, report: WeatherObserved, airport: Airport, ctx: Context) -> None:
        airport.weather_reports += 1
        airport.gust_max_mph = max(airport.gust_max_mph, report.gust_mph or 0.0)


@app.source
async def storm(position: int | None) -> AsyncIterator[tuple[int, Message]]:
    """Replay the feed from behind `position`, the last one committed, at the pace of its own clock.

    The pace counts from the first message after a start: time in which nothing ran is not caught up in a burst.
    """
    speed = float(os.environ.get("FLIGHTS_SPEED", "1440"))
    scale = int(os.environ.get("FLIGHTS_SCALE", "1"))
    if not (speed >= 0 and scale > 0):
        raise ValueError(f"FLIGHTS_SPEED must not be below 0, and FLIGHTS_SCALE above 0: they are {speed:g} and {scale}")
    if not speed:
        return

    loop = asyncio.get_running_loop()
    started = loop.time()
    first_at: int | None = None
    for place, at, message in feed(scale, start=0 if position is None else position + 1):
        first_at = at if first_at is None else first_at
        wait_s = started + (at - first_at) / speed - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        yield place, message
