"""What is said in this example. Every message of the feed names its flight or airport, and `at`: when it was true.

`at` counts seconds from midnight of 7 February 2013 on New York's clock. A flight is named by day, number and
origin, as in "2013-02-08/UA299/EWR". `tailnum` is "" where the data does not know the plane.
"""

from typing import Literal

from genesis import Message, Priority, Request


class FlightScheduled(Message, type="flights.flight.scheduled", priority=Priority.NORMAL):
    """A flight appears on the boards, an hour before its planned departure."""

    flight: str
    origin: str
    dest: str
    carrier: str
    tailnum: str
    at: int


class FlightDelayed(Message, type="flights.flight.delayed", priority=Priority.HIGH):
    """The flight is an hour late and still there. How late it will be, nobody knows yet."""

    flight: str
    origin: str
    dest: str
    at: int


class FlightDeparted(Message, type="flights.flight.departed", priority=Priority.NORMAL):
    flight: str
    origin: str
    dest: str
    delay_min: int
    """Minutes after the planned departure; less than 0 when early."""
    at: int


class FlightArrived(Message, type="flights.flight.arrived", priority=Priority.LOW):
    flight: str
    origin: str
    dest: str
    delay_min: int
    """Minutes after the planned arrival; less than 0 when early."""
    at: int


class FlightCancelled(Message, type="flights.flight.cancelled", priority=Priority.CRITICAL):
    flight: str
    origin: str
    dest: str
    carrier: str
    tailnum: str
    seats: int
    """Seats of the plane, not passengers; 0 where they are unknown."""
    at: int


class FlightDiverted(Message, type="flights.flight.diverted", priority=Priority.CRITICAL):
    flight: str
    origin: str
    dest: str
    """Where it did not land as planned."""
    at: int


class WeatherObserved(Message, type="flights.weather.observed", priority=Priority.NORMAL):
    """The hourly report of one airport."""

    airport: str
    temperature_f: float
    wind_mph: float
    gust_mph: float | None
    precipitation_in: float
    visibility_mi: float
    at: int


class RebookRequested(Message, type="flights.rebook.requested", priority=Priority.HIGH):
    """One seat of a cancelled flight needs another flight."""

    flight: str
    seat: int
    """1 to `seats`, asked for in this order."""
    seats: int


class Alert(Message, type="flights.alert", priority=Priority.BACKGROUND):
    """What people are told of."""

    flight: str
    kind: Literal["cancelled", "late"]
    at: int


class GateChanged(Message, type="flights.gate.changed", priority=Priority.HIGH):
    """Said by hand, over HTTP: the data knows no gates, so that no total depends on it."""

    flight: str
    gate: str


class GetGate(Request[str], type="flights.gate.get"):
    """Which gate was said last of this flight?"""

    flight: str


class GetStatus(Request[str], type="flights.status.get"):
    """What do the boards say about this flight?"""

    flight: str
