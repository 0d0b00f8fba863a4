"""One seed: a world, the bank's producers, faults, calm, and the judgement."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from genesis import AskError, GenesisError, Message, Node, Priority, Settings
from genesis.chaos import faults
from genesis.chaos.loop import DeadlockError, LivelockError
from genesis.chaos.world import World
from genesis.core.event import DeadLetter
from tests.simulation import bank, check

PRODUCERS = 16
CALM_S = 3600.0
"""Virtual seconds within which everything ends once faults have stopped."""
STEPS_OVER_S = 12.0
"""Faults begin in the first so many seconds: about as long as the producers send."""


@dataclass
class Outcome:
    """What became of a seed."""

    seed: int
    complaints: list[str]
    schedule: list[faults.Happening]
    events: int = 0
    virtual_s: float = 0.0
    sending_s: float = 0.0
    """Virtual seconds until the last event was accepted."""
    steps: int = 0
    commits: int = 0
    kills: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    timeline: list[tuple[float, str, str]] = field(default_factory=list)
    digest: str = ""


class Scenario:
    """The bank in a world."""

    def __init__(self, seed: int, *, events: int, nodes: int, trace: bool) -> None:
        rng = Random(f"{seed}/world")
        settings = Settings(
            slots=rng.choice((1, 2, 8, 64)),
            window_bytes=rng.choice((1, 4000, 4 << 20, 4 << 20)),
            cache_bytes=rng.choice((1, 4000, 64 << 20)),
            dedupe_s=1e7,  # longer than any jump of a clock
        )
        self.outside = bank.Outside()
        self.app = bank.bank(self.outside)
        self.world = World(self.app.definition(), seed=seed, nodes=nodes, settings=settings.node(), trace=trace)
        self._events, self._seed = events, seed
        self.accepted: list[check.Event] = []
        self.answers = 0
        self.sending_s = 0.0

    async def producer(self, number: int) -> None:
        """Send one event after the other, each until it is accepted."""
        rng, share = Random(f"{self._seed}/producer-{number}"), -(-self._events // PRODUCERS)
        for event_id, message, priority in bank.events(rng, share, number):
            await self.accept(rng, event_id, message, priority)
            written = {"id": event_id, "producer": number, "priority": int(priority), **msgspec.to_builtins(message)}
            self.accepted.append({"kind": "deposit" if isinstance(message, bank.Deposit) else "hopeless", **written})
            if rng.random() < 0.1:
                await asyncio.sleep(rng.uniform(0, 0.5))

    async def accept(self, rng: Random, event_id: str, message: Message, priority: Priority) -> None:
        """As a client of the real world does: again with the same id, until there is a yes."""

        async def send(node: Node) -> Any:
            return await node.send(message, id=event_id, priority=priority)

        while True:
            try:
                await self.world.call(send, patience_s=5.0)
            except GenesisError:
                await asyncio.sleep(rng.uniform(0.01, 0.3))
                continue
            if rng.random() < 0.02:  # its yes was lost on the way
                continue
            return

    async def asker(self) -> None:
        """Ask now and then; the same question again until it is answered."""
        rng = Random(f"{self._seed}/asker")
        for number in range(5):
            question = bank.Balance(f"a{rng.randrange(bank.KEYS)}")

            async def ask(node: Node, question: bank.Balance = question, number: int = number) -> int:
                return await node.ask(question, id=f"ask-{number}", deadline=2.0)

            while True:
                try:
                    await self.world.call(ask, patience_s=5.0)
                    break
                except (GenesisError, AskError):
                    await asyncio.sleep(rng.uniform(0.05, 0.5))
            self.answers += 1
            await asyncio.sleep(rng.uniform(0.1, 2))

    async def play(self, schedule: list[faults.Happening]) -> list[str]:
        """Everything. Returns what is wrong."""
        world = self.world
        trouble = asyncio.create_task(world.follow(schedule), name="faults")
        work = [asyncio.create_task(self.producer(n), name=f"producer-{n}") for n in range(PRODUCERS)]
        work.append(asyncio.create_task(self.asker(), name="asker"))
        await trouble
        world.calm()
        try:
            async with asyncio.timeout(CALM_S):
                await asyncio.gather(*work)
                self.sending_s = world.loop.time()
                await self.settle()
                return await self.judge()
        except TimeoutError:
            return [f"an hour after the last fault it is not done: {await self._left()}"]

    async def settle(self) -> None:
        """Until nothing waits and no timer is set."""
        while True:
            process = self.world.serving()
            if process is not None and process.node is not None:
                pipeline = process.node._life.pipeline
                if pipeline is not None and not pipeline.head.ledger.waiting and not self.world.storage.partitions[0].timers:
                    await asyncio.sleep(1.0)
                    process = self.world.serving()
                    if process is not None and process.node is not None:
                        return
            await asyncio.sleep(0.5)

    async def _left(self) -> str:
        process = self.world.serving()
        if process is None or process.node is None or process.node._life.pipeline is None:
            return "nobody serves"
        return str(process.node._life.pipeline.head.ledger)

    async def judge(self) -> list[str]:
        """The checker's complaints, and what is left in machines that should be empty."""
        node = self.world.serving().node  # type: ignore[union-attr]
        assert node is not None
        pipeline = node._ready()
        components = {c.name: c.cls for c in pipeline.definition.components.values()}
        accounts = {key: msgspec.to_builtins(state) async for key, state in node.scan(components["accounts"])}
        books = {key: msgspec.to_builtins(state) async for key, state in node.scan(components["books"])}
        tables = self.world.storage.partitions[0].tables
        letters = [msgspec.msgpack.decode(row, type=DeadLetter).delivery for row in tables["dead"].rows.values()]
        dead = [letter.event_id for letter in letters]
        ledger = msgspec.structs.asdict(node.status().ledger)
        zombies = len(self.world.hosts) > 1
        wrong = check.complaints(
            self.accepted, accounts, books, ledger, dead, self.outside.charged, self.answers, zombies=zombies
        )
        left = {
            "running": pipeline.running,
            "locked keys": pipeline.lanes.keys,
            "bytes in windows": sum(lane.bytes for lane in pipeline.lanes.lanes),
            "pending keys": pipeline.pending.keys,
            "in flight": pipeline.gate.in_flight,
            "asks": pipeline.asks._waiting,
            "rows in lanes": {n: c for n, c in self.world.storage.partitions[0].chunks.items() if c},
            "pending rows": self.world.storage.partitions[0].pending,
        }
        await asyncio.sleep(120)  # what is forgotten is forgotten by now
        kept = tuple(f"{letter.origin}/" for letter in letters)  # with dead letters, for their replay
        left["journal"] = [key for key in tables["once"].rows if not key.startswith(kept)]
        return wrong + [f"left behind: {what} {there!r}"[:300] for what, there in left.items() if there]


def nodes_of(seed: int) -> int:
    """How many machines its world has."""
    return 1 + seed % 2


def run(
    seed: int,
    *,
    events: int = 1000,
    count: int = 24,
    nodes: int | None = None,
    schedule: list[faults.Happening] | None = None,
    trace: bool = False,
) -> Outcome:
    """Run a seed to its end, and judge it."""
    logging.getLogger("genesis").setLevel(logging.CRITICAL + 1)
    nodes = nodes if nodes is not None else nodes_of(seed)
    if schedule is None:
        schedule = faults.draw(Random(f"{seed}/faults"), count, over_s=STEPS_OVER_S, nodes=nodes)
    scenario = Scenario(seed, events=events, nodes=nodes, trace=trace)
    world = scenario.world
    wrong: list[str] = []
    try:
        wrong += world.run(scenario.play(schedule))
        world.close()
    except (DeadlockError, LivelockError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    except AssertionError as error:
        wrong.append(f"AssertionError: {error}")
    wrong += world.violations
    return Outcome(
        seed,
        wrong,
        schedule,
        events=len(scenario.accepted),
        virtual_s=world.loop.time(),
        sending_s=scenario.sending_s,
        steps=world.loop.steps,
        commits=world.commits,
        kills=world.kills,
        injected=world.injected,
        killed_at=Counter({str(point): n for point, n in world.killed_at.items()}),
        timeline=world.timeline,
        digest=world.loop.digest() if trace else "",
    )
