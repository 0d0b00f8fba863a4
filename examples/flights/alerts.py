"""Alerts: what people are told of, and the desk outside that tells them.

    [app.alerts]          # genesis.toml; or GENESIS_APP_ALERTS_LATE_MIN=90
    late_min = 90

The desk is asked in order and no faster than it can. While it is down its circuit is open: alerts wait in the store, and one
call now and then tries whether it is back. It knows an alert by the id of its event, which stays the same however often it is
given.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from examples.flights.messages import Alert, FlightCancelled, FlightDeparted
from genesis import Context, Item, Module, Policy, State, UnavailableError, on

ANSWER_S = 5.0
"""How long the desk may take to connect, to take the alerts, and to answer: for each."""
RETRY_S = 0.2
"""After which it is asked again when it does not say itself: five failures, which open the circuit, take a second or so."""


class TooFastError(UnavailableError):
    """The desk works, and says when it has time for more."""


desk_policy = Policy(
    "desk",
    ignore=TooFastError,  # a limit is no failure: a desk that is asked too fast must not be cut off for it
    timeout_s=3 * ANSWER_S,  # above what the connection bounds itself: the thread of a call that is cut off goes on
    recovery_timeout_s=1.0,  # a demo is a minute long: who looks on sees probes, and does not wait for the end of an outage
    recovery_max_s=2.0,  # in production 5 s that double up to 300 s, the defaults, spare a desk that is down for an hour
)
alerts = Module("alerts")


@alerts.settings
class AlertSettings(msgspec.Struct, frozen=True):
    late_min: Annotated[int, Meta(ge=1, description="A flight that leaves so many minutes late, or more, is an alert")] = 120
    desk: Annotated[str, Meta(pattern="^(http://[^/]+)?$", description="URL of the desk; empty: alerts go no further")] = ""
    desk_per_s: Annotated[float, Meta(gt=0, description="Alerts a second that the desk of ./dev demo takes")] = 100.0


class NotADeskError(Exception):
    """What answers there does not understand alerts."""


class Desk:
    """The notification desk."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    async def tell(self, items: Sequence[Item[Alert]]) -> None:
        """Give it alerts, all or none.

        Raises:
            TooFastError: it has no time for them yet.
            UnavailableError: it is down, or cut.
        """
        if self._address:
            told = [
                {"id": item.id, "number": item.number, "flight": item.message.flight, "kind": item.message.kind}
                for item in items
            ]
            await asyncio.to_thread(self._post, msgspec.json.encode(told))

    def _post(self, body: bytes) -> None:
        try:
            with closing(HTTPConnection(self._address, timeout=ANSWER_S)) as connection:
                connection.request("POST", "/alerts", body)
                answer = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise UnavailableError("the desk", RETRY_S) from error
        after_s = float(answer.headers.get("Retry-After", RETRY_S))
        if answer.status == 429:
            raise TooFastError("the desk", after_s)
        if answer.status == 503:
            raise UnavailableError("the desk", after_s)
        if answer.status != 200:
            raise NotADeskError(f"http://{self._address}/alerts answered {answer.status}: see [app.alerts] desk")


@alerts.resource
async def desk(settings: AlertSettings) -> AsyncIterator[Desk]:
    yield Desk(settings.desk)


class Raised(State, version=1):
    cancelled: int = 0
    late: int = 0


@alerts.component(single=True, state=Raised)
class Alarm:
    """Raises an alert for each flight that is cancelled or leaves very late."""

    def __init__(self, settings: AlertSettings) -> None:
        self.late_min = settings.late_min

    @on(FlightCancelled)
    async def cancelled(self, flight: FlightCancelled, raised: Raised, ctx: Context) -> None:
        raised.cancelled += 1
        ctx.emit(Alert(flight=flight.flight, kind="cancelled", at=flight.at))

    @on(FlightDeparted)
    async def departed(self, flight: FlightDeparted, raised: Raised, ctx: Context) -> None:
        if flight.delay_min >= self.late_min:
            raised.late += 1
            ctx.emit(Alert(flight=flight.flight, kind="late", at=flight.at))


@alerts.sink(Alert, batch=50, per_second=100.0, policy=desk_policy)
async def to_desk(items: Sequence[Item[Alert]], desk: Desk) -> None:
    await desk.tell(items)
