"""The clients of a simulated bank: told to come back, they do, with the same id. In: a world. Out: what they were told."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec

from genesis import AskError, GenesisError, Message, Node, Priority
from genesis.chaos.stores import Store
from genesis.chaos.world import World
from tests.simulation import bank
from tests.simulation.facts import Answer, Event

ASKS = 8
KINDS = {
    bank.Deposit: "deposit",
    bank.Hopeless: "hopeless",
    bank.Deadly: "deadly",
    bank.Statement: "statement",
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
