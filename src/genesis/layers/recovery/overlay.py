"""Which state does the next delivery read? Committed bytes, under what is sealed, under what is open.

In: encoded states as attempts succeed, and the fate of each commit. Out: the newest bytes of an address. Committed
states live in a cache bounded in bytes; a missing one is read from the store. A failed commit drops the two upper layers
as a whole: there is no rollback of one event.

Source: the rule "local state is changed only by the commit; uncommitted changes live in an overlay" (Kafka KIP-892).
"""

from __future__ import annotations

from genesis.core.ports import StateRow

CACHE_BYTES = 64 << 20
"""Committed states kept in memory: a hundred thousand small ones."""
ROW_BYTES = 150
"""What a cached row weighs beside its body."""
ABSENT: StateRow = (0, b"")
"""An address without a stored state, remembered so that it is not looked up again."""


class Overlay:
    """Three layers of state per address."""

    __slots__ = ("_bytes", "_committed", "_open", "_sealed", "cache_bytes")

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.cache_bytes = cache_bytes
        self._committed: dict[str, StateRow] = {}
        self._sealed: dict[str, StateRow] = {}
        self._open: dict[str, StateRow] = {}
        self._bytes = 0

    def get(self, address: str) -> StateRow | None:
        """The newest row; `ABSENT` when there is none; None when the store must be asked."""
        row = self._open.get(address)
        if row is None:
            row = self._sealed.get(address)
            if row is None:
                row = self._committed.get(address)
        return row

    def committed(self, address: str) -> StateRow | None:
        """The committed row; `ABSENT` when there is none; None when the store must be asked."""
        return self._committed.get(address)

    def known(self, address: str) -> bool:
        """Whether `get` needs no store."""
        return address in self._committed or address in self._sealed or address in self._open

    def put(self, address: str, row: StateRow) -> None:
        """An attempt succeeded: its state belongs to the open group."""
        self._open[address] = row

    def seal(self) -> dict[str, StateRow]:
        """The open layer goes into the commit under way, which there is one of at most."""
        assert not self._sealed, "one commit under way per partition"
        self._sealed, self._open = self._open, {}
        return self._sealed

    def settle(self) -> None:
        """The sealed layer is committed."""
        committed, added = self._committed, 0
        for address, row in self._sealed.items():
            old = committed.pop(address, None)
            committed[address] = row
            added += len(row[1]) - len(old[1]) if old is not None else len(row[1]) + ROW_BYTES
        self._sealed = {}
        self._bytes += added
        self._trim()

    def drop(self) -> None:
        """The commit failed: only what the store holds counts, and that is read anew."""
        self._committed, self._sealed, self._open, self._bytes = {}, {}, {}, 0

    def cache(self, address: str, row: StateRow) -> None:
        """A committed row, to the young end of the cache; the oldest make room."""
        committed = self._committed
        old = committed.pop(address, None)
        if old is not None:
            self._bytes -= len(old[1]) + ROW_BYTES
        committed[address] = row
        self._bytes += len(row[1]) + ROW_BYTES
        self._trim()

    def _trim(self) -> None:
        committed = self._committed
        while self._bytes > self.cache_bytes and len(committed) > 1:
            oldest = next(iter(committed))
            self._bytes -= len(committed.pop(oldest)[1]) + ROW_BYTES
