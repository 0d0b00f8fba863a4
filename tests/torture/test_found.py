"""What the torture found, each as a small test."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from genesis import App, Context, Settings, on
from genesis.core.event import Delivery, Priority
from genesis.core.ports import CrashPoint
from genesis.engines.outside import Outside
from genesis.layers.prevention.lanes import Lanes
from tests.torture.heart import Hit, Seen, Snapshots, head, numbers, rest, row, run, running, until

ACCEPTED = 1
"""Place in the stored ledger."""


def delivery(number: int, priority: Priority) -> Delivery:
    made = Delivery("c:t", "c/a", str(number), "s", b"", 0.0, priority=priority)
    made.id = number
    return made


def test_a_more_urgent_one_that_passes_lets_no_other_pass() -> None:
    """The second was reserved when the urgent one came; when that was done, the third went before it."""
    lanes = Lanes()
    first, second, third = (delivery(n, Priority.NORMAL) for n in (1, 2, 3))
    urgent = delivery(4, Priority.CRITICAL)
    for made in (first, second, third):
        lanes.offer(made)
    assert lanes.take(0.0) is first
    lanes.lock(first)
    assert lanes.take(0.0) is None
    lanes.release(first)
    lanes.offer(urgent)
    for wanted in (urgent, second, third):
        assert lanes.take(0.0) is wanted
        lanes.release(wanted)
    assert lanes.take(0.0) is None


@pytest.mark.parametrize("cache_bytes", [1, 4000])
def test_a_state_that_the_cache_forgot_is_read_again(tmp_path: Path, cache_bytes: int) -> None:
    """After an unclean end the state was read, then a commit was awaited, then it was gone: the key began anew."""
    app = App("forgets")

    @app.component(key="key", state=Seen)
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            state.numbers.append(hit.n)

    keys = [f"k{n}" for n in range(60)]

    async def hit_all(store: Path, n: int) -> Path:
        snapshots = Snapshots(store)
        async with running(app, store, settings=Settings(cache_bytes=cache_bytes)) as (node, _):
            await asyncio.gather(*(node.send(Hit(key, n)) for key in keys))
            await rest(node)
            return snapshots.take()

    killed = run(lambda: hit_all(tmp_path / "a.db", 1))
    killed = run(lambda: hit_all(killed, 2))
    killed = run(lambda: hit_all(killed, 3))
    for key in keys:  # the last commits may be missing
        assert numbers(killed, f"notes/{key}") in ([1], [1, 2], [1, 2, 3])


def test_order_skip_keeps_the_order_of_what_leaves_a_full_window(tmp_path: Path) -> None:
    """What waited for its key in a full window was moved to the pending table, and what came after it went first."""
    app, go = App("skips"), asyncio.Event()

    @app.component(key="key", state=Seen, order="skip")
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            if hit.n == 0:
                await go.wait()
            state.numbers.append(hit.n)

    async def work() -> None:
        async with running(app, tmp_path / "a.db", settings=Settings(window_bytes=2000)) as (node, _):
            for n in range(40):
                await node.send(Hit("a", n))
            await until(lambda: node.status().ledger.in_pending)
            go.set()
            await rest(node)

    run(work)
    assert numbers(tmp_path / "a.db", "notes/a") == list(range(40))


def test_a_window_full_of_one_key_does_not_stop_the_others(tmp_path: Path) -> None:
    """Nobody told the loader: what was behind such a window waited for its next look, up to 15 s later."""
    app, go = App("full"), asyncio.Event()

    @app.component(key="key", state=Seen)
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            if hit.key == "slow":
                await go.wait()
            state.numbers.append(hit.n)

    async def work() -> None:
        async with running(app, tmp_path / "a.db", settings=Settings(window_bytes=2000)) as (node, _):
            await node.send_many([Hit("slow", n) for n in range(10)])
            await node.send(Hit("other", 1))
            async with asyncio.timeout(5):
                await until(lambda: numbers(tmp_path / "a.db", "notes/other"))
            go.set()
            await rest(node)

    run(work)
    assert numbers(tmp_path / "a.db", "notes/slow") == list(range(10))


def test_a_filed_event_without_an_id_is_accepted_once(tmp_path: Path) -> None:
    """The event was accepted in one commit and its request removed in the next: a death between them doubled it."""
    app, store = App("filed"), tmp_path / "a.db"

    @app.component(key="key", state=Seen)
    class Notes:
        @on(Hit)
        async def hit(self, hit: Hit, state: Seen, ctx: Context) -> None:
            state.numbers.append(hit.n)

    async def work(path: Path, crash: Snapshots | None = None) -> None:
        async with running(app, path, crash=crash) as (node, _):
            if crash is not None:
                body = msgspec.msgpack.encode({"kind": "send", "type": "hit", "fields": {"n": 1}})
                with closing(Outside(path)) as outside:
                    outside.file_request("send", body)
            await until(lambda: not row(path, "SELECT count(*) FROM request"))
            await rest(node)

    snapshots = Snapshots(store, CrashPoint.ANSWER)
    run(lambda: work(store, snapshots))
    for taken in [store, *(t for t in snapshots.taken if head(t)["ledger"][ACCEPTED])]:
        run(lambda taken=taken: work(taken))
        assert numbers(taken, "notes/a") == [1]
