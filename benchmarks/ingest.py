"""Events over HTTP: durable single requests and batches, beside a bare uvicorn that decodes the same and stores nothing."""

import asyncio
import gc
import json
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks import load
from benchmarks.harness import FOLDER, Figure, Options, Result, child, command, pairs, results
from benchmarks.job import Meter

SINGLES, BATCHED = 40_000, 200_000
FIGURES = (
    Figure(
        "singles_per_s",
        "1/s",
        "ratio >= 0.5",
        "40,000 events in binary mode, one a request, from 64 connections that each await their 202, on SQLite; handlers "
        "with keyed state run beside. Raw: uvicorn with httptools, which decodes the same JSON with the same msgspec type and "
        "answers 202; nothing is stored or handled.",
    ),
    Figure("singles_p99_ms", "ms", "", "From the request to its 202, 99 of 100, in the same runs: a closed loop at full load."),
    Figure(
        "batch_events_per_s",
        "1/s",
        ">= 10,000",
        "200,000 events in batches of 100, from 16 connections. Raw: the same, decoded and thrown away.",
    ),
    Figure("batch_p99_ms", "ms", "", "From the request to the 202 of the whole batch, 99 of 100, in the same runs."),
)


async def genesis(n: int, batched: int) -> dict[str, float]:
    from benchmarks.app import Totals, app
    from genesis import Settings
    from genesis.web.server import serving

    Totals.meter = Meter(n + batched)
    FOLDER.mkdir(parents=True, exist_ok=True)
    settings = Settings(http=0)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        async with serving(settings) as served, app.running(f"{folder}/bench.db", settings=settings) as node:
            served.door.open(node)
            found = await loaded(int(served.url.rpartition(":")[2]), n, batched)
            await Totals.meter.done.wait()
            ledger = node.status().ledger
            assert (ledger.accepted, ledger.duplicate, ledger.imbalance()) == (n + batched, 0, "")
    return found


async def bare(n: int, batched: int) -> dict[str, float]:
    """What uvicorn alone does with the same requests."""
    import msgspec
    import uvicorn

    from benchmarks.app import Added

    class Envelope(msgspec.Struct):
        specversion: str
        id: str
        source: str
        type: str
        data: Added

    single = msgspec.json.Decoder(Added).decode
    batch = msgspec.json.Decoder(list[Envelope]).decode
    start = {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"2")]}
    end = {"type": "http.response.body", "body": b"{}"}

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        decode = batch if (b"content-type", load.BATCH) in scope["headers"] else single
        decode(body)
        await send(start)
        await send(end)

    config = uvicorn.Config(
        answer, http="httptools", ws="none", loop="none", lifespan="off", log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle's delay on
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    serve = asyncio.create_task(server.serve([listening]))
    found = await loaded(listening.getsockname()[1], n, batched)
    server.should_exit = True
    await serve
    return found


async def loaded(port: int, n: int, batched: int) -> dict[str, float]:
    """Singles, then batches, from a process of its own."""
    gc.freeze()  # as `genesis run` does when it is open; the bare server gets the same
    made = await asyncio.create_subprocess_exec(
        *command(load.both, port=port, n=n, batched=batched), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await made.communicate()
    if made.returncode:
        raise SystemExit(f"benchmarks: the clients ended with {made.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


def measure(options: Options) -> Iterator[Result]:
    sizes = {"n": options.size(SINGLES), "batched": options.size(BATCHED)}
    runs = list(pairs("ingest", options.runs, lambda: child(bare, **sizes), lambda: child(genesis, **sizes)))
    yield from results("ingest", FIGURES, runs)
