"""How a handler's coroutine is driven by hand: a first step, and the rest if it did not end there."""

from __future__ import annotations

import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

ENDED = object()
"""Instead of what a handler waits for: it has returned."""


def stepped(handler: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
    """The first step of a handler whose result matters. `next` would lose it, and is 0.2 us faster for all the others."""
    try:
        return handler.send(None), None
    except StopIteration as stop:
        return ENDED, stop.value


@types.coroutine
def resumed(handler: Coroutine[Any, Any, Any], waiting_for: Any, variables: contextvars.Context) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was stepped once, inside the same task, with its own context variables."""
    while True:
        step: Callable[[Any], Any] = handler.send
        try:
            argument = yield waiting_for
        except BaseException as error:
            step, argument = handler.throw, error
        try:
            waiting_for = variables.run(step, argument)
        except StopIteration as stop:
            return stop.value
