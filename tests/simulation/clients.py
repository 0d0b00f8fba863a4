"""The clients of a simulated bank: told to come back, they do, with the same id. In: a world. Out: what they were told."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import Any

import msgspec

from genesis import AskError, DrainingError, GenesisError, IntakeFullError, Message, Node, Priority
from genesis.chaos.stores import Store
from genesis.chaos.world import World
from genesis.core.event import Reason
from tests.simulation import bank
from tests.simulation.facts import Answer, Bulk, Event

ASKS = 8
BULKS = 6
KINDS = {
    bank.Deposit: "deposit",
    bank.Hopeless: "hopeless",
    bank.Deadly: "deadly",
    bank.Statement: "statement",
    bank.Sealed: "sealed",
    bank.Fleeting: "fleeting",
    bank.Lasting: "lasting",
    bank.Fragile: "fragile",
}


class Clients:
    """All of them, and what they were told."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._seed = world, seed
        self.accepted: list[Event] = []
        self.answers: list[Answer] = []
        self.bulks: list[Bulk] = []
        self.opened: set[int] = set()
        """Sealed ones, by number, that somebody saw and dealt with."""
        self.calls = 0
        self.lives: dict[int, float] = {}
        """By number, the earliest time of a wall clock at which a fleeting offer may be over."""

    # --- those who send ---------------------------------------------------------------------------------------------

    async def produce(self, number: int, share: int) -> None:
        """Send one event after the other, each until it is accepted."""
        rng = Random(f"{self._seed}/producer-{number}")
        for sent in bank.events(rng, share, number):
            await self.accept(rng, sent, producer=number, kind=KINDS[type(sent[1])])
            if rng.random() < 0.1:
                await asyncio.sleep(rng.uniform(0, 0.5))

    async def accept(self, rng: Random, sent: bank.Sent, *, producer: int, kind: str) -> None:
        """As a client of the real world does: again with the same id, until there is a yes."""
        event_id, message, priority, headers = sent
        tries, told = 0, []
        while True:
            tries += 1
            try:
                receipt = await self._call(self._sending(event_id, message, priority, headers))
            except GenesisError:
                await asyncio.sleep(rng.uniform(0.01, 0.3))
                continue
            told.append((tries, receipt.duplicate))
            if rng.random() >= 0.02:  # else its yes was lost on the way
                break
        event = {"id": event_id, "producer": producer, "priority": int(priority), "headers": headers, "told": told}
        fields = msgspec.to_builtins(message)
        self.accepted.append({**event, "kind": kind, "body": fields, **fields})

    def _sending(self, event_id: str, message: Message, priority: Priority, headers: dict[str, str] | None) -> Any:
        async def send(node: Node) -> Any:
            if isinstance(message, bank.Fleeting):
                over = node._ready().clock.wall() + bank.SHORT_S
                self.lives[message.n] = min(over, self.lives.get(message.n, over))  # the clock may be set back meanwhile
            return await node.send(message, id=event_id, priority=priority, headers=headers)

        return send

    async def _call(self, work: Any) -> Any:
        self.calls += 1
        return await self._world.call(work, patience_s=5.0)

    async def send_in_bulk(self) -> None:
        """Send several in one go, now and then."""
        rng = Random(f"{self._seed}/bulk")
        for number in range(BULKS):
            first = 500_000 + 100 * number
            lines = [bank.Line(f"d{rng.randrange(3)}", first + i) for i in range(rng.randint(2, 12))]
            bulk: Bulk = {"lines": [(line.key, line.n) for line in lines], "told": None}
            self.bulks.append(bulk)
            await self._accept_all(rng, lines, bulk)
            await asyncio.sleep(rng.uniform(0.1, 2))

    async def _accept_all(self, rng: Random, lines: list[bank.Line], bulk: Bulk) -> None:
        """Refused, they are sent again. When nobody knows what became of them they are not: they have no ids."""

        async def send(node: Node) -> list[bool]:
            return [receipt.duplicate for receipt in await node.send_many(lines)]

        while True:
            self.calls += len(lines) - 1
            try:
                bulk["told"] = await self._call(send)
            except (DrainingError, IntakeFullError):
                await asyncio.sleep(rng.uniform(0.01, 0.3))
                continue
            except GenesisError:
                pass
            return

    # --- whoever looks after the safes ------------------------------------------------------------------------------

    async def open_safes(self) -> None:
        """Deal with what is parked, for ever: bring it back, or throw it away."""
        rng = Random(f"{self._seed}/safes")
        while True:
            await asyncio.sleep(rng.uniform(0.5, 2))
            for number, key, sealed in self.parked():
                self.opened.add(number)
                try:
                    await self._world.call(partial(_open, key=key, drop=sealed.dropped), patience_s=5.0)
                except GenesisError:
                    break  # look again

    def parked(self) -> list[tuple[int, str, bank.Sealed]]:
        """What waits for somebody, by the store: its number, the name of its row, and what it is."""
        rows = [row.delivery for row in self.store.pending() if row.reason is Reason.PARKED]
        found = [(f"{row.id:016x}", msgspec.msgpack.decode(row.payload, type=bank.Sealed)) for row in rows]
        return [(sealed.n, key, sealed) for key, sealed in found]

    # --- those who ask ----------------------------------------------------------------------------------------------

    async def ask_now_and_then(self) -> None:
        """Ask for balances, in turn as events and read-only."""
        rng = Random(f"{self._seed}/asker")
        for number in range(ASKS):
            await self.ask(rng, f"ask-{number}", read_only=number % 2 == 1)
            await asyncio.sleep(rng.uniform(0.1, 2))

    async def ask(self, rng: Random, ask_id: str, *, read_only: bool) -> None:
        """The same question again until it is answered."""
        key = f"a{rng.randrange(bank.KEYS)}"

        async def ask(node: Node) -> tuple[int, int]:
            if read_only:
                return await node.ask(bank.Peek(key), deadline=2.0)
            return await node.ask(bank.Balance(key), id=ask_id, deadline=2.0)

        before = self._committed(key)
        while True:
            try:
                total, count = await self._call(ask)
                break
            except (GenesisError, AskError):
                await asyncio.sleep(rng.uniform(0.05, 0.5))
                before = self._committed(key) if read_only else before
        answer = {"key": key, "total": total, "count": count, "read_only": read_only}
        self.answers.append({**answer, "before": before, "after": self._committed(key)})

    def _committed(self, key: str) -> int:
        """How many deposits of a key the store holds."""
        row = self.store.states().get(f"accounts/{key}")
        return len(msgspec.msgpack.decode(row[1], type=bank.Account).seen) if row else 0

    @property
    def store(self) -> Store:
        """What is stored."""
        return self._world.store


async def _open(node: Node, *, key: str, drop: bool) -> bool:
    operator = node.operator
    return await (operator.drop(key) if drop else operator.replay(key))
