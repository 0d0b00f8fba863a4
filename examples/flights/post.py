"""The feed over HTTP: posted to the worker's door as CloudEvents, batch by batch, each until it is answered with 202.

An answer that does not come says nothing: the same batch is posted again, and its events are known by their ids.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import msgspec

from examples.flights.feed import feed
from genesis import Message
from genesis.core.message import type_of

BATCH_MAX = 200
"""Events: each is four deliveries at the most, and a batch may be 900."""
ANSWER_S, AGAIN_S = 10.0, 0.1
GATHER_S = 0.01
"""How far ahead of its time an event may come, so that batches are more than one event at high speed."""


class PostError(Exception):
    """The worker refuses the feed for good."""


class Poster:
    """A thread that posts the feed."""

    def __init__(self, speed: float, scale: int) -> None:
        self.position = -1
        """Of the last event that was answered with 202."""
        self._speed, self._scale = speed, scale
        self._url: Callable[[], str] = str
        self._refused = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @contextmanager
    def posting(self, url: Callable[[], str]) -> Iterator[None]:
        """Post while the block runs. `url` says where the door is; empty: that is not known yet."""
        self._url = url
        self._thread.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Post nothing more; what is under way may still be answered."""
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raises PostError when the worker refuses the feed."""
        if self._refused:
            raise PostError(self._refused)

    def _run(self) -> None:
        started = time.monotonic()
        first_at: int | None = None
        batch: list[dict[str, object]] = []
        for place, at, message in feed(self._scale):
            first_at = at if first_at is None else first_at
            due = started + (at - first_at) / self._speed
            if batch and (len(batch) == BATCH_MAX or due - time.monotonic() > GATHER_S):
                if not self._deliver(batch):
                    return
                batch = []
            wait_s = due - time.monotonic()
            if wait_s > GATHER_S and self._stopped.wait(wait_s):
                return
            batch.append(_cloud_event(place, message))
        self._deliver(batch)

    def _deliver(self, batch: list[dict[str, object]]) -> bool:
        """Post a batch until it is accepted. Returns False when there is no use in going on."""
        body = msgspec.json.encode(batch)
        while not self._stopped.is_set():
            status, said = self._post(body)
            if status == 202:
                self.position += len(batch)
                return True
            if status not in (0, 503):
                self._refused = f"the worker answers the feed with {status}: {said}"
                return False
            self._stopped.wait(AGAIN_S)
        return False

    def _post(self, body: bytes) -> tuple[int, str]:
        """The status of the answer, 0 when there is none, and what it says."""
        if not (address := urlsplit(self._url()).netloc):
            return 0, ""
        try:
            with closing(HTTPConnection(address, timeout=ANSWER_S)) as connection:
                connection.request("POST", "/events", body, {"Content-Type": "application/cloudevents-batch+json"})
                answer = connection.getresponse()
                return answer.status, answer.read(2000).decode(errors="replace")
        except (OSError, HTTPException):  # it is down, or starts
            return 0, ""


def _cloud_event(place: int, message: Message) -> dict[str, object]:
    return {"specversion": "1.0", "id": str(place), "source": "/feed", "type": type_of(type(message)), "data": message}
