"""The data as one stream of messages: in the order of time, the same at every call, as long as one likes.

In come the files of `data/`; out go `(position, at, message)`, positions without gaps from 0, `at` in seconds from
midnight of 7 February 2013 on New York's clock. Nothing is random and no clock is read: pacing is the caller's.

Three kinds of event have no time of their own in the data. A flight appears on the boards an hour before its planned
departure, is cancelled at its planned departure, and is diverted when it was due at its destination: the departure
plus the planned flight time. A flight is delayed from the minute in which it is an hour late.
"""

import csv
import gzip
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

from examples.flights.messages import (
    FlightArrived,
    FlightCancelled,
    FlightDelayed,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    WeatherObserved,
)
from genesis import Message

DATA = Path(__file__).parent / "data"
FIRST_DAY = 7
DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60
LATE_MIN = 60

Row = dict[str, str]
Moment = tuple[int, Callable[[int, str], Message]]
"""`at`, and what makes the message of it and of the tag of a copy of the world: "", "#2", ..."""


def feed(scale: int = 1, start: int = 0) -> Iterator[tuple[int, int, Message]]:
    """Yield `(position, at, message)` from position `start` on.

    Args:
        scale: Copies of the world, >= 1. Each event comes once for each copy, at the same time; flights and airports
            of the second copy end in "#2", and so on. Messages are made when they are asked for.
        start: First position wanted, >= 0; those before it cost nothing.
    """
    moments = sorted(_moments(), key=itemgetter(0))  # stable: a flight's own order stays
    for position in range(start, len(moments) * scale):
        index, copy = divmod(position, scale)
        at, make = moments[index]
        yield position, at, make(at, f"#{copy + 1}" if copy else "")


def _moments() -> Iterator[Moment]:
    for report in _rows("weather"):
        yield _weather(report)
    seats = {row["tailnum"]: int(row["seats"]) for row in _rows("planes")}
    zones = {row["faa"]: int(row["tz"]) for row in _rows("airports")}
    for row in _rows("flights"):
        yield from _flight(row, seats.get(row["tailnum"], 0), zones)


def _rows(name: str) -> Iterator[Row]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _weather(row: Row) -> Moment:
    return (
        _midnight(row) + int(row["hour"]) * HOUR_S,
        lambda at, tag: WeatherObserved(
            airport=row["origin"] + tag,
            temperature_f=float(row["temp"]),
            wind_mph=float(row["wind_speed"]),
            gust_mph=None if row["wind_gust"] == "NA" else float(row["wind_gust"]),
            precipitation_in=float(row["precip"]),
            visibility_mi=float(row["visib"]),
            at=at,
        ),
    )


def _flight(row: Row, seats: int, zones: dict[str, int]) -> Iterator[Moment]:
    """Yield what happened to one flight, in the order in which it happened."""
    day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
    origin, dest, carrier = row["origin"], row["dest"], row["carrier"]
    flight = f"{day}/{carrier}{row['flight']}/{origin}"
    tailnum = "" if row["tailnum"] == "NA" else row["tailnum"]
    due_out = _midnight(row) + _clock(row["sched_dep_time"])
    due_in = due_out + _planned(row, zones)

    yield (
        due_out - HOUR_S,
        lambda at, tag: FlightScheduled(
            flight=flight + tag, origin=origin + tag, dest=dest + tag, carrier=carrier, tailnum=tailnum, at=at
        ),
    )
    if row["dep_time"] == "NA":
        yield (
            due_out,
            lambda at, tag: FlightCancelled(
                flight=flight + tag,
                origin=origin + tag,
                dest=dest + tag,
                carrier=carrier,
                tailnum=tailnum,
                seats=seats,
                at=at,
            ),
        )
        return

    left_min = int(row["dep_delay"])
    if left_min >= LATE_MIN:
        yield (
            due_out + LATE_MIN * MINUTE_S,
            lambda at, tag: FlightDelayed(flight=flight + tag, origin=origin + tag, dest=dest + tag, at=at),
        )
    yield (
        due_out + left_min * MINUTE_S,
        lambda at, tag: FlightDeparted(flight=flight + tag, origin=origin + tag, dest=dest + tag, delay_min=left_min, at=at),
    )
    if row["arr_delay"] == "NA":
        yield (
            due_in + left_min * MINUTE_S,
            lambda at, tag: FlightDiverted(flight=flight + tag, origin=origin + tag, dest=dest + tag, at=at),
        )
        return

    came_min = int(row["arr_delay"])
    yield (
        due_in + came_min * MINUTE_S,
        lambda at, tag: FlightArrived(flight=flight + tag, origin=origin + tag, dest=dest + tag, delay_min=came_min, at=at),
    )


def _planned(row: Row, zones: dict[str, int]) -> int:
    """Return the planned seconds from gate to gate; the data has each end on its own airport's clock."""
    zone_s = (zones[row["dest"]] - zones[row["origin"]]) * HOUR_S
    return (_clock(row["sched_arr_time"]) - _clock(row["sched_dep_time"]) - zone_s) % DAY_S


def _midnight(row: Row) -> int:
    return (int(row["day"]) - FIRST_DAY) * DAY_S


def _clock(hhmm: str) -> int:
    """Return seconds from midnight: "517" is 5:17."""
    hours, minutes = divmod(int(hhmm), 100)
    return hours * HOUR_S + minutes * MINUTE_S
