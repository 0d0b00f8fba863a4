"""One seed: a world, the bank's clients, faults, calm, an encore, and the judgement."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from genesis import GenesisError, Node, Priority, Settings, StoreError
from genesis.chaos import faults
from genesis.chaos.loop import PLACE, DeadlockError, LivelockError
from genesis.chaos.stores import Store
from genesis.core.event import DeadLetter, Kind
from genesis.core.message import State
from genesis.runtime.log import silence
from genesis.runtime.pipeline import Pipeline
from tests.simulation import bank, check
from tests.simulation.clients import Clients
from tests.simulation.facts import Facts
from tests.simulation.outside import Outside
from tests.simulation.watch import Watch, Watched

PRODUCERS = 16
CALM_S = 3600.0
"""Virtual seconds within which everything ends once faults have stopped."""
STEPS_OVER_S = 12.0
"""Faults begin in the first so many seconds: about as long as the producers send."""
DEDUPE_S = 1e7
"""Longer than any jump of a clock but the last."""
NOTICED_S = 20.0
"""By then everybody has noticed that the clocks were set: the loader looks every 15 s."""
ENCORES = 3
STATES: dict[str, type[State]] = {
    "accounts": bank.Account,
    "books": bank.Book,
    "desks": bank.Log,
    "audit": bank.Log,
    "safes": bank.Safe,
    "clockwork": bank.Ticks,
}


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

    def __init__(self, seed: int, *, events: int, nodes: int, store: str, trace: bool) -> None:
        rng = Random(f"{seed}/world")
        settings = Settings(
            slots=rng.choice((1, 2, 8, 64)),
            window_bytes=rng.choice((1, 4000, 4 << 20, 4 << 20)),
            cache_bytes=rng.choice((1, 4000, 64 << 20)),
            dedupe_s=DEDUPE_S,
        ).node()
        outside = self.outside = Outside()
        definition = bank.bank(outside).definition()
        world = self.world = Watched(
            definition, seed=seed, nodes=nodes, store=store, settings=settings, trace=trace, observe=outside.told
        )
        outside.now, outside.die = world.loop.time, world.die
        outside.unnoticed, outside.jams = self._runs_unnoticed, self._jams
        outside.in_outbox = self._in_outbox
        outside.lowest_wall, outside.highest_wall = world.lowest_wall, world.highest_wall
        self.clients = Clients(world, seed)
        self.watch = Watch(world, settings, self.clients)
        self._share, self._rng = -(-events // PRODUCERS), Random(f"{seed}/encore")
        self.calm_at = self.skew_s = self.sending_s = 0.0
        self._replayed, self._replays = 0, 0
        """Dead letters that were replayed for certain, and calls that may have done it."""
        self._left: dict[str, Any] = {}
        self._in_memory = store == "memory"

    async def play(self, schedule: list[faults.Happening]) -> list[str]:
        """Everything. Returns what is wrong."""
        world, clients = self.world, self.clients
        trouble = asyncio.create_task(world.follow(schedule), name="faults")
        look = asyncio.create_task(self.watch.run(), name="watch")
        work = [asyncio.create_task(clients.produce(n, self._share), name=f"producer-{n}") for n in range(PRODUCERS)]
        work.append(asyncio.create_task(clients.ask_now_and_then(), name="asker"))
        work.append(asyncio.create_task(clients.send_in_bulk(), name="bulk"))
        opener = asyncio.create_task(clients.open_safes(), name="opener")
        await trouble
        world.calm()
        self.calm_at = world.loop.time()
        self.watch.calm()
        self.skew_s = world.highest_wall() - world.lowest_wall()
        try:
            async with asyncio.timeout(CALM_S):
                await asyncio.gather(*work)
                self.sending_s = world.loop.time()
                await self._settle()
                await self._encore()
                pipeline = await self._quiet()
                return check.complaints(self._facts(pipeline)) + self._left_behind(pipeline)
        except TimeoutError:
            return [f"an hour after the last fault it is not done: {self.store.head().ledger}"]
        finally:
            look.cancel()
            opener.cancel()

    @property
    def store(self) -> Store:
        """What is stored."""
        return self.world.store

    def _runs_unnoticed(self) -> bool:
        """Whether, by the store, nothing runs: nobody would look for what kills it. Of two nodes, it cannot be told."""
        return self._is_called_by_the_only_one() and self.store.head().clean

    def _is_called_by_the_only_one(self) -> bool:
        (process, *others) = [host.process for host in self.world.hosts]
        return not others and process is PLACE.get() and not process.died.done()

    def _jams(self, number: int) -> bool:
        """Whether, by the store, a safe is jammed by this one, and nobody came. Of two nodes, it cannot be told."""
        if number in self.clients.opened or not self._is_called_by_the_only_one():
            return False
        return number in [parked for parked, _, _ in self.clients.parked()]

    def _in_outbox(self) -> list[int] | None:
        """Numbers of what is stored for the archive. Of two nodes, it cannot be told what a process knows."""
        if not (self._in_memory and self._is_called_by_the_only_one()):
            return None
        return sorted(int(key.rpartition("/")[2], 16) for key in self.store.table("out"))

    # --- once all is calm -------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Until nothing waits, no timer is set but that of the schedule, and the source has ended."""
        while True:
            row = self.store.states().get("desks/meter")
            given = len(msgspec.msgpack.decode(row[1], type=bank.Log).seen) if row else 0
            timers = any(timer.every_s is None for timer in self.store.timers())
            if given >= bank.READINGS and not timers and not self.store.head().ledger.waiting:
                return
            await asyncio.sleep(0.5)

    async def _encore(self) -> None:
        """Much later everything still works, and what is older than the horizon is forgotten."""
        await self._replay()
        await self._settle()
        self.watch.calm()
        for host in self.world.hosts:
            self.world.inject(faults.ClockJump(host.number, by_s=2 * DEDUPE_S))
        await asyncio.sleep(NOTICED_S)
        self._left["ids older than the horizon"] = list(self.store.table("dedupe"))
        old = dict(self.store.table("reply"))
        for number in range(len(old) // 2 + 1):  # each answer makes room for two
            await self.clients.ask(self._rng, f"encore-{number}", read_only=False)
        for number in range(ENCORES):
            offer = bank.Fleeting(f"d{number}", 1_000_000 + number)
            await self.clients.accept(
                self._rng, (f"encore-{number}-offer", offer, Priority.LOW, None), producer=-1, kind="encore"
            )
        self._left["answers older than the horizon"] = [
            key for key, row in self.store.table("reply").items() if old.get(key) == row
        ]

    async def _replay(self) -> None:
        """Bring rejected deposits back: they are rejected once more, by a call to the outside that was made before."""
        for key, row in list(self.store.table("dead").items()):
            letter = msgspec.msgpack.decode(row, type=DeadLetter)
            if letter.reason != "rejected" or letter.delivery.component != "accounts":
                continue

            async def replay(node: Node, key: str = key) -> bool:
                return await node.operator.replay(key)

            while True:
                self._replays += 1
                try:
                    self._replayed += await self.world.call(replay)
                    break
                except GenesisError:
                    await asyncio.sleep(0.5)

    async def _quiet(self) -> Pipeline:
        """The pipeline that owns the store, when nothing is under way in it, not even a tick."""
        while True:
            await asyncio.sleep(0.1)
            process = self.world.serving()
            pipeline = process.node._life.pipeline if process is not None and process.node is not None else None
            if pipeline is None or pipeline.head.epoch != self.store.epoch():
                continue
            under_way = pipeline.running or pipeline.sealed is not None or not pipeline.group.empty or pipeline.news.is_set()
            if not (self.store.head().ledger.waiting or under_way):
                return pipeline

    # --- the judgement ----------------------------------------------------------------------------------------------

    def _facts(self, pipeline: Pipeline) -> Facts:
        head, outside, clients = self.store.head(), self.outside, self.clients
        states: dict[str, dict[str, Any]] = {name: {} for name in STATES}
        for address, (_, body) in self.store.states().items():
            component, _, key = address.partition("/")
            states[component][key] = msgspec.to_builtins(msgspec.msgpack.decode(body, type=STATES[component]))
        return Facts(
            accepted=clients.accepted,
            answers=clients.answers,
            bulks=clients.bulks,
            letters=[_letter(row) for row in self.store.table("dead").values()],
            states=states,
            ledger=msgspec.structs.asdict(head.ledger),
            born=head.born_by_priority,
            ended=head.ended_by_priority,
            waiting=head.waiting_by_lane,
            readings=bank.READINGS,
            charged=outside.charged,
            got=outside.got,
            attempts=outside.attempts,
            deaths=outside.deaths,
            failures=outside.failures,
            early=outside.early,
            replayed=(self._replayed, self._replays),
            asked=outside.asked,
            arrived=outside.arrived,
            archived=outside.archived,
            epochs=self.store.epoch(),
            calls=clients.calls,
            kills=self.world.kills,
            stops=sum(what.startswith("stops") for _, _, what in self.world.timeline) + self.world.injected["stop"],
            zombies=len(self.world.hosts) > 1,
            calm_at=self.calm_at,
            skew_s=self.skew_s,
            wall_at_end=pipeline.clock.wall(),
            tick_s=bank.TICK_S,
        )

    def _left_behind(self, pipeline: Pipeline) -> list[str]:
        """What is left in machines and tables that should be empty."""
        store, lanes = self.store, pipeline.lanes
        letters = [msgspec.msgpack.decode(row, type=DeadLetter).delivery for row in store.table("dead").values()]
        kept = tuple(f"{letter.origin}/" for letter in letters)  # with dead letters, for their replay
        serving = [(host.name, host.process.node) for host in self.world.hosts if host.process is not None]
        left = self._left | {
            "owners that were fenced": [
                name for name, node in serving if node is not None and node._life.pipeline is not pipeline
            ],
            "running": pipeline.running,
            "locked keys": lanes.keys,
            "held keys": lanes._held,
            "set aside": lanes.to_hold,
            "bytes in windows": sum(lane.bytes for lane in lanes.lanes),
            "pending keys": pipeline.pending.keys,
            "parked": pipeline.pending.parked,
            "due": [*pipeline.due, *pipeline.pending._in_wheel],
            "to bring up": pipeline.promotions,
            "ticks": pipeline.ticks,
            "in flight": pipeline.gate.in_flight,
            "offers": pipeline.intake.waiting,
            "asks": [*pipeline.asks._waiting, *[None] * pipeline.asks.in_handlers],
            "timers in memory": [key for key, timer in pipeline.timers._timers.items() if timer.every_s is None],
            "known ids": max(0, len(pipeline.horizon.known) - len(_ids(self.clients))),
            "rows in lanes": store.in_lanes(),
            "outbox": [*store.table("out"), *store.head().outgoing],
            "pending rows": store.pending(),
            "timers": [timer.name for timer in store.timers() if timer.every_s is None],
            "journal": [key for key in store.table("once") if not key.startswith(kept)],
        }
        return [f"left behind: {what} {there!r}"[:300] for what, there in left.items() if there]


def _letter(row: bytes) -> dict[str, Any]:
    letter = msgspec.msgpack.decode(row, type=DeadLetter)
    delivery = letter.delivery
    return {
        "id": delivery.event_id,
        "component": delivery.component,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "priority": delivery.priority,
        "source": delivery.source,
        "headers": delivery.headers,
        "body": msgspec.msgpack.decode(delivery.payload),
        "replayed": delivery.kind == Kind.REPLAY,
    }


def _ids(clients: Clients) -> list[str]:
    """Ids of events of the encore."""
    events = [event["id"] for event in clients.accepted if event["kind"] == "encore"]
    return events + [f"{number}" for number, answer in enumerate(clients.answers) if not answer["read_only"]]


def nodes_of(seed: int) -> int:
    """How many machines its world has."""
    return 1 + seed % 2


@silence()
def run(
    seed: int,
    *,
    events: int = 1000,
    count: int = 24,
    nodes: int | None = None,
    store: str = "memory",
    schedule: list[faults.Happening] | None = None,
    trace: bool = False,
) -> Outcome:
    """Run a seed to its end, and judge it."""
    nodes = nodes if nodes is not None else nodes_of(seed) if store == "memory" else 1
    if schedule is None:
        kinds = faults.KINDS if store == "memory" else faults.KINDS + faults.ON_DISK
        schedule = faults.draw(Random(f"{seed}/faults"), count, over_s=STEPS_OVER_S, nodes=nodes, kinds=kinds)
    scenario = Scenario(seed, events=events, nodes=nodes, store=store, trace=trace)
    world = scenario.world
    wrong: list[str] = []
    try:
        wrong += world.run(scenario.play(schedule))
        world.close()
    except (DeadlockError, LivelockError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    except (AssertionError, StoreError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
    wrong += scenario.watch.wrong.values()
    wrong += world.violations
    return Outcome(
        seed,
        wrong,
        schedule,
        events=len(scenario.clients.accepted),
        virtual_s=world.loop.time(),
        sending_s=scenario.sending_s,
        steps=world.loop.steps,
        commits=world.history.count,
        kills=world.kills,
        injected=world.injected,
        killed_at=Counter({str(point): n for point, n in world.killed_at.items()}),
        timeline=world.timeline,
        digest=world.loop.digest() if trace else "",
    )
