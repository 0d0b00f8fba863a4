"""Clients over HTTP that are cheaper than any server: raw connections, kept alive, requests built beforehand."""

import asyncio
import json
from collections import deque

from benchmarks.harness import clock, percentiles
from benchmarks.job import event

SINGLE_CLIENTS, BATCH_CLIENTS, BATCH_SIZE = 64, 16, 100
BATCH = b"application/cloudevents-batch+json"
SINGLE_HEAD = (
    "POST /events HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nce-specversion: 1.0\r\nce-id: %d\r\n"
    "ce-source: /bench\r\nce-type: bench.added\r\ncontent-length: %d\r\n\r\n"
)
BATCH_HEAD = "POST /events HTTP/1.1\r\nhost: bench\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"


def singles(n: int) -> deque[bytes]:
    bodies = [json.dumps(event(i)) for i in range(n)]
    return deque((SINGLE_HEAD % (i, len(body)) + body).encode() for i, body in enumerate(bodies))


def batches(first: int, n: int) -> deque[bytes]:
    made: deque[bytes] = deque()
    for start in range(first, first + n, BATCH_SIZE):
        body = json.dumps(
            [
                {"specversion": "1.0", "id": str(i), "source": "/bench", "type": "bench.added", "data": event(i)}
                for i in range(start, min(first + n, start + BATCH_SIZE))
            ]
        )
        made.append((BATCH_HEAD % (BATCH.decode(), len(body)) + body).encode())
    return made


class Client(asyncio.Protocol):
    """Sends one request after the other's answer, as long as there are some."""

    def __init__(self, requests: deque[bytes], took: list[float]) -> None:
        self._requests, self._took = requests, took
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer = b""
        self._sent = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self) -> None:
        if not self._requests:
            self.done.set_result(None)
            return
        self._sent = clock()
        self.transport.write(self._requests.popleft())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        assert head.startswith(b"HTTP/1.1 202"), self._answer
        self._answer = b""
        self._took.append(clock() - self._sent)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def run(port: int, clients: int, requests: deque[bytes], events: int) -> tuple[float, list[float]]:
    """Events a second, and seconds of each request."""
    took: list[float] = []
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(lambda: Client(requests, took), "127.0.0.1", port))[1] for _ in range(clients)]
    begin = clock()
    for client in made:
        client.send()
    for client in made:
        await client.done
    rate = events / (clock() - begin)
    for client in made:
        client.transport.close()
    return rate, took


async def both(port: int, n: int, batched: int) -> dict[str, float]:
    """Singles, then batches."""
    single_rate, single_took = await run(port, SINGLE_CLIENTS, singles(n), n)
    batch_rate, batch_took = await run(port, BATCH_CLIENTS, batches(n, batched), batched)
    return {
        "singles_per_s": single_rate,
        "singles_p99_ms": percentiles(single_took)["p99_ms"],
        "batch_events_per_s": batch_rate,
        "batch_p99_ms": percentiles(batch_took)["p99_ms"],
    }
