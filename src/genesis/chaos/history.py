"""Which commits took effect in a world, one after the other, whoever got to know of it.

In: what stores and owners say. Out: what was emitted in each commit that counts, and complaints: two owners at a time, a
number left out, a commit that is gone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from genesis.core.message import Message
from genesis.core.ports import Head


class History:
    """The commits of one partition."""

    def __init__(self, wrong: Callable[[str], None], emitted: Callable[[list[Message]], None]) -> None:
        """Begin with an empty store.

        Args:
            wrong: Told what must not be.
            emitted: Told the messages of each commit when it takes effect.
        """
        self._wrong, self._emitted = wrong, emitted
        self.count = 0
        self._last = (0, 0)
        """Epoch and number of the last commit."""
        self._tried: dict[tuple[int, int], list[Message]] = {}
        """By epoch and number: commits of which nobody knows yet whether they took effect, and what was emitted in them."""

    def tried(self, head: Head, emitted: list[Message]) -> None:
        """The store works on a commit."""
        self._tried[head.epoch, head.commit_id] = emitted

    def applied(self, head: Head) -> None:
        """A commit took effect: the owner of the newest epoch gives them numbers, one after the other."""
        epoch, number = self._last
        if head.epoch < epoch or head.commit_id != number + 1:
            self._wrong(f"commit {head.commit_id} of epoch {head.epoch} took effect after commit {number} of epoch {epoch}")
        self._last = (head.epoch, head.commit_id)
        self.count += 1
        self._emitted(self._tried.pop(self._last, []))

    def claimed(self, head: Head) -> None:
        """A new owner found this: maybe a commit in whose middle the power was lost, and all that ever took effect."""
        found = msgspec.structs.replace(head, epoch=head.last_epoch)
        if (found.epoch, found.commit_id) in self._tried:
            self.applied(found)
        self._tried.clear()
        if found.commit_id != self._last[1]:
            self._wrong(f"commit {self._last[1]} took effect, and {found.commit_id} is the last in the store")
