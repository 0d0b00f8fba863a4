"""The fewest faults that still make a run fail.

Source: delta debugging, algorithm ddmin (Zeller and Hildebrandt, IEEE Transactions on Software Engineering, 2002).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 200
"""Runs that a search may cost: a schedule of thirty faults is down to a few in about a hundred."""


async def shrink(members: list[T], fails: Callable[[list[T]], Awaitable[bool]], tries: int = TRIES) -> list[T]:
    """The smallest list found, in the order given, of which `fails` is still true.

    Args:
        members: A list of which it is true.
        fails: Says whether a shorter list fails in the same way. Called `tries` times at most.
        tries: See there.
    """
    left = tries

    async def still(part: list[T]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and await fails(part)

    if members and await still([]):
        return []
    parts = 2
    while len(members) > 1 and left > 0:
        size = -(-len(members) // parts)
        chunks = [members[at : at + size] for at in range(0, len(members), size)]
        for index in range(len(chunks)):
            rest = [member for other, chunk in enumerate(chunks) if other != index for member in chunk]
            if await still(rest):
                members, parts = rest, max(2, parts - 1)
                break
        else:
            if parts >= len(members):
                break
            parts = min(len(members), 2 * parts)
    return members
