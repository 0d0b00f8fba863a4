"""A scenario for an app that has none: messages of every type that it handles, made from the fields of their classes.

Values come from small pools, so that keys collide. Nothing is asked and no answer is checked: the promises of the world are
what is looked at. Handlers may refuse what makes no sense to them; that is a dead letter, and no failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from msgspec import inspect as i

from genesis.chaos.loop import OutsideWorldError
from genesis.chaos.simulation import Simulation
from genesis.core.errors import GenesisError, InvalidEventError
from genesis.core.message import Message
from genesis.runtime.component import Route
from genesis.runtime.definition import Definition

BATCHES, BATCH, PAUSE_S = 12, 8, 0.5
"""How often how many messages are sent side by side (one of each type at least), and the longest time until the next."""
POOL, DEPTH, TRIES = 4, 4, 50
"""Values that a field may have; structs within structs before what is optional is left out; draws until a message fits."""
TEXTS: dict[type, str] = {
    i.DateTimeType: "2001-09-09T0{}:46:40Z",
    i.DateType: "2001-09-0{}",
    i.TimeType: "0{}:46:40Z",
    i.TimeDeltaType: "PT{}S",
    i.DecimalType: "{}.25",
    i.UUIDType: "{:032x}",
}


class NoExampleError(GenesisError):
    """No message can be made up. Says of which class, and why."""

    code = "no-example"


def traffic(definition: Definition) -> Callable[[Simulation], Awaitable[None]]:
    """The scenario for an app. Raises NoExampleError."""
    routes = {kind: found for kind, found in definition.by_type.items() if not found[0].is_request}
    if not routes:
        raise NoExampleError(f"{definition.name} handles no messages that could be sent")
    for kind in routes:
        example(routes[kind], Random(0))

    async def scenario(sim: Simulation) -> None:
        rng, sent = sim.world.rng("traffic"), 0
        for _ in range(BATCHES):
            chosen = [*routes, *rng.choices(list(routes), k=max(0, BATCH - len(routes)))]
            sent += len(await sim.send_all([example(routes[kind], rng) for kind in chosen]))
            await sim.advance(rng.uniform(0, PAUSE_S))
        known = sim.ledger.accepted
        assert known >= sent, f"{sent} events were accepted, and the ledger knows of {known}"
        for _, error in sim.failures:
            if isinstance(error, OutsideWorldError):  # nothing behind it was ever run: no mistake can be found there
                raise error

    return scenario


def example(routes: list[Route], rng: Random) -> Message:
    """A message for these routes, which share its class. Raises NoExampleError: none that fits was found."""
    codec, why = routes[0].codec, ""
    for _ in range(TRIES):
        try:
            message = codec.from_builtins(_value(rng, i.type_info(codec.message), "", 0))
            for route in routes:
                route.address_of(message)
            return message
        except (NoExampleError, InvalidEventError) as error:
            why = str(error)
    raise NoExampleError(f"no {codec.message.__name__} ({codec.type}) can be made up: {why}")


def _value(rng: Random, kind: Any, where: str, depth: int) -> Any:
    """A plain value for a type, as msgspec describes it."""
    found: Any = None
    digit = 1 + rng.randrange(POOL)
    match kind:
        case i.AnyType() | i.NoneType():
            pass
        case i.BoolType():
            found = digit % 2 == 0
        case i.IntType() | i.FloatType():
            found = _number(rng, kind)
        case i.StrType(pattern=None) | i.BytesType():
            letters = " abcd"[digit] * max(kind.min_length or 0, kind.max_length != 0)
            found = letters if isinstance(kind, i.StrType) else letters.encode()
        case i.LiteralType() | i.EnumType():
            found = rng.choice(kind.values if isinstance(kind, i.LiteralType) else [member.value for member in kind.cls])
        case i.UnionType():
            none = [part for part in kind.types if isinstance(part, i.NoneType)]
            found = _value(rng, none[0] if none and depth >= DEPTH else rng.choice(kind.types), where, depth)
        case i.CollectionType() | i.DictType() | i.TupleType():
            found = _several(rng, kind, f"{where}[]", depth)
        case i.StructType() | i.TypedDictType() | i.DataclassType() | i.NamedTupleType():
            found = _fields(rng, kind, where, depth + 1)
        case i.Metadata():
            found = _value(rng, kind.type, where, depth)
        case _ if type(kind) in TEXTS:
            found = TEXTS[type(kind)].format(digit).removesuffix("Z" if getattr(kind, "tz", None) is False else "")
        case _:
            what = f"the pattern {kind.pattern!r}" if isinstance(kind, i.StrType) else f"the type {type(kind).__name__}"
            raise NoExampleError(f"nobody can know a value for {where}, which has {what}")
    return found


def _number(rng: Random, kind: Any) -> Any:
    """One of the first in steps from the lowest that is allowed."""
    inside = 1 if isinstance(kind, i.IntType) else 0.25
    step = kind.multiple_of or inside
    low, high = (kind.ge if kind.gt is None else kind.gt + inside), (kind.le if kind.lt is None else kind.lt - inside)
    if low is None:
        low = 0 if high is None or high >= 0 else high - POOL * step
    steps = [-(-low // step) * step + step * at for at in range(POOL)]
    limits = [limit for limit in (kind.gt, kind.ge, kind.lt, kind.le) if limit is not None]
    return rng.choice([at for at in steps if high is None or at <= high] or [sum(limits) / len(limits)])


def _several(rng: Random, kind: Any, where: str, depth: int) -> Any:
    if isinstance(kind, i.TupleType):
        return [_value(rng, part, where, depth) for part in kind.item_types]
    low = kind.min_length or 0
    size = rng.randint(low, min(low + (2 if depth < DEPTH else 0), low + 2 if kind.max_length is None else kind.max_length))
    if isinstance(kind, i.DictType):
        return {_value(rng, kind.key_type, where, depth): _value(rng, kind.value_type, where, depth) for _ in range(size)}
    return [_value(rng, kind.item_type, where, depth) for _ in range(size)]


def _fields(rng: Random, kind: Any, where: str, depth: int) -> Any:
    if depth > 2 * DEPTH:
        raise NoExampleError(f"{where} is in itself without end")
    tag = {kind.tag_field: kind.tag} if getattr(kind, "tag_field", None) else {}
    listed = isinstance(kind, i.NamedTupleType) or getattr(kind, "array_like", False)
    given = {
        field.encode_name: _value(rng, field.type, f"{where}.{field.name}".lstrip("."), depth)
        for field in kind.fields
        if field.required or listed or (depth <= DEPTH and rng.random() < 0.7)
    }
    return [*tag.values(), *given.values()] if listed else tag | given
