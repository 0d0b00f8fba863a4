"""Which state does the next delivery read? Committed bytes, under what is sealed, under what is open.

In: encoded states as attempts succeed, and the fate of each commit. Out: the newest bytes of an address. Committed
states live in a cache bounded in bytes; a missing one is read from the store. A failed commit drops the whole object: there
is no rollback of one event.

Source: the rule "local state is changed only by the commit; uncommitted changes live in an overlay" (Kafka KIP-892).
"""

from __future__ import annotations

from itertools import islice

from genesis.core.ports import StateRow

CACHE_BYTES = 64 << 20
"""Committed states kept in memory: a hundred thousand small ones."""
ROW_BYTES = 150
"""What a cached row weighs beside its body."""
TRIM_SHARE = 16
"""A full cache forgets a sixteenth at once: the search for what may go is paid once for many."""
ABSENT: StateRow = (0, b"")
"""An address without a stored state, remembered so that it is not looked up again."""


class Overlay:
    """The newest state per address, and which of them are not committed yet."""

    __slots__ = ("_bytes", "_newest", "_open", "_sealed", "cache_bytes", "get")

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.cache_bytes = cache_bytes
        self._newest: dict[str, StateRow] = {}
        self._sealed: dict[str, StateRow] = {}
        self._open: dict[str, StateRow] = {}
        self._bytes = 0
        """Of the bodies in `_newest`."""
        self.get = self._newest.get
        """The newest row of an address; `ABSENT` when there is none; None when the store must be asked."""

    def committed(self, address: str) -> StateRow | None:
        """The committed row; `ABSENT` when there is none; None when the store must be asked."""
        if address in self._open or address in self._sealed:
            return None
        return self._newest.get(address)

    def put(self, address: str, row: StateRow) -> None:
        """An attempt succeeded: its state belongs to the open group."""
        self._bytes += len(row[1]) - len(self._newest.get(address, ABSENT)[1])
        self._newest[address] = self._open[address] = row

    def seal(self) -> dict[str, StateRow]:
        """The open layer goes into the commit under way, which there is one of at most."""
        assert not self._sealed, "one commit under way per partition"
        self._sealed, self._open = self._open, {}
        return self._sealed

    def settle(self) -> None:
        """The sealed layer is committed."""
        self._sealed = {}
        self._trim()

    def cache(self, address: str, row: StateRow) -> None:
        """A committed row that was read from the store; a newer one stays."""
        if address not in self._newest:
            self._newest[address] = row
            self._bytes += len(row[1])
            self._trim()

    def _trim(self) -> None:
        """Forget what came first; what is not committed stays, and so does the youngest, which is about to be used."""
        newest = self._newest
        weight = self._bytes + ROW_BYTES * len(newest)
        if weight <= self.cache_bytes:
            return
        goal = self.cache_bytes - self.cache_bytes // TRIM_SHARE
        gone: list[str] = []
        kept: list[str] = []
        for address, row in islice(newest.items(), len(newest) - 1):
            if weight <= goal:
                break
            if address in self._open or address in self._sealed:
                kept.append(address)
            else:
                gone.append(address)
                self._bytes -= len(row[1])
                weight -= len(row[1]) + ROW_BYTES
        for address in gone:
            del newest[address]
        for address in kept:  # to the young end: the next search does not meet them first
            newest[address] = newest.pop(address)
