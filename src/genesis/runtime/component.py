"""What the user writes: components and their handlers, checked when they are written.

In: classes decorated with `@app.component`, methods marked with `@on` and `@every`. Out: components, whose routes say
which method runs which event, with its key, codecs, and limits. No IO and no instances: those belong to a node.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

import msgspec

from genesis.core.errors import DefinitionError, InvalidEventError
from genesis.core.message import Message, MessageCodec, Request, State, StateCodec, answer_type_of, fields_of, type_of
from genesis.layers.recovery.failure import Retry
from genesis.runtime.resource import Need, needs_of_class

if TYPE_CHECKING:
    from genesis.runtime.operation import Operation
    from genesis.runtime.policy import Policy

F = TypeVar("F", bound=Callable[..., Any])
Order = Literal["hold", "skip", "park"]
TIMEOUT_S = 30.0
"""An attempt's time by default: a handler that hangs must not stop its key for ever."""
KEY_MAX_CHARS = 512
KEYS_KNOWN = 4096
"""Addresses that a handler's keys were met with of late: to look one up costs a third of checking a key again."""
KeyOf = str | Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class OnMark:
    """What `@on` wrote on a method."""

    message: type[Message]
    key: KeyOf | None
    timeout_s: float | None
    retry: Retry | None
    read_only: bool
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class EveryMark:
    """What `@every` wrote on a method."""

    seconds: float
    timeout_s: float | None


def on(
    message: type[Message],
    *,
    key: KeyOf | None = None,
    timeout: float | None = TIMEOUT_S,
    retry: Retry | None = None,
    read_only: bool = False,
    policy: Policy | None = None,
) -> Callable[[F], F]:
    """Mark a method as the handler of a message: ``(self, message, state, ctx)``, or ``(self, message, ctx)`` without state.

    Args:
        message: The message class.
        key: Field, or function of the message, that names the key; default: the component's.
        timeout: Seconds for one attempt; over it is a failed attempt. None: no limit.
        retry: How a failed delivery is tried again; default: the component's.
        read_only: Only for a `Request`: answers from committed state, without the key's lock and without a trace.
        policy: Of what the whole handler needs; default: the component's. See `App.component`.

    Raises:
        DefinitionError: an argument does not fit.
    """

    def mark(method: F) -> F:
        where = _where(method)
        if not (isinstance(message, type) and issubclass(message, Message)):
            raise DefinitionError(f"@on takes a message class, not {message!r}", where=where, fix="@on(OrderPlaced)")
        if timeout is not None and not timeout > 0:
            raise DefinitionError(f"timeout is {timeout!r}: seconds above 0, or None", where=where)
        if read_only and not issubclass(message, Request):
            raise DefinitionError(
                f"read_only is for requests; {message.__name__} is a plain message",
                where=where,
                fix=f'class {message.__name__}(Request[int], type="{type_of(message)}"):',
            )
        marks = getattr(method, "__genesis_on__", ())
        setattr(method, "__genesis_on__", (OnMark(message, key, timeout, retry, read_only, policy), *marks))
        return method

    return mark


def every(seconds: float, *, timeout: float | None = TIMEOUT_S) -> Callable[[F], F]:
    """Mark a method of a single or stateless component to run each so many seconds: ``(self, ctx)`` or ``(self, state, ctx)``.

    Durable: the schedule survives restarts, and missed ticks collapse to one.

    Raises:
        DefinitionError: `seconds` is not above 0.
    """

    def mark(method: F) -> F:
        if not seconds > 0:
            raise DefinitionError(f"@every({seconds!r}): seconds above 0", where=_where(method), fix="@every(60)")
        setattr(method, "__genesis_every__", EveryMark(seconds, timeout))
        return method

    return mark


@dataclass(slots=True)
class Route:
    """One handler of one component for one type."""

    name: str
    """``component:type``."""
    component: Component
    method: str
    codec: MessageCodec
    timeout_s: float | None
    retry: Retry
    is_async: bool
    read_only: bool
    answer: Any
    """Answer type of a request; None for a plain message."""
    every_s: float | None
    address_of: Callable[[Any], str]
    """Address of a message; raises InvalidEventError when its key is none."""
    state_version: int
    """Version of its component's state class; 0 without one."""
    operation: Operation | None = None
    """Of the policy that the handler runs under."""

    def method_of(self, instance: Any) -> Callable[..., Any]:
        """The method that serves it, protected if it runs under a policy."""
        method: Callable[..., Any] = getattr(instance, self.method)
        return method if self.operation is None else self.operation(method)

    @property
    def is_request(self) -> bool:
        """Whether somebody may wait for its answer."""
        return issubclass(self.codec.message, Request)


@dataclass(slots=True)
class Component:
    """A component as defined."""

    name: str
    cls: type
    where: str
    key: KeyOf | None
    state: type[State] | None
    single: bool
    essential: bool
    retry: Retry
    order: Order
    policy: Policy | None = None
    """Of what all its handlers need."""
    needs: tuple[Need, ...] = ()
    """What its `__init__` is given, by type."""
    routes: list[Route] = field(default_factory=list)
    state_codec: StateCodec | None = None

    def address(self, key: object = None) -> str:
        """Address of a key: what state and order are kept by. Empty for a stateless component."""
        if self.single:
            return f"{self.name}/"
        if self.key is None:
            return ""
        return f"{self.name}/{key_text(key)}"


class Tick(Message, type="genesis.tick"):
    """The event that a schedule sends to its method."""


def define_component(
    cls: type,
    *,
    where: str,
    names: Mapping[str, Any],
    name: str | None,
    key: KeyOf | None,
    state: type[State] | None,
    single: bool,
    essential: bool,
    retry: Retry | None,
    order: Order,
    policy: Policy | None,
) -> Component:
    """Check a class and build its component; `names` are the local ones around it, which its annotations may use.

    Raises:
        DefinitionError: with the place and the line to write.
    """
    _check_options(cls, where, key, state, single, order)
    component = Component(
        name=name or _kebab(cls.__name__),
        cls=cls,
        where=where,
        key=key,
        state=state,
        single=single,
        essential=essential,
        retry=retry or Retry(),
        order=order,
        policy=policy,
        needs=needs_of_class(cls, where, names),
        state_codec=StateCodec(state) if state else None,
    )
    if not component.name or any(c in component.name for c in ":/ \n\0"):
        raise DefinitionError(f"{component.name!r} is no component name: letters, digits and dashes", where=where)
    for attribute, method in list(vars(cls).items()):
        for mark in getattr(method, "__genesis_on__", ()):
            component.routes.append(_message_route(component, attribute, method, mark))
        if hasattr(method, "__genesis_every__"):
            component.routes.append(_tick_route(component, attribute, method, method.__genesis_every__))
    if not component.routes:
        raise DefinitionError(f"{cls.__name__} handles nothing", where=where, fix="@on(OrderPlaced) above a method")
    seen: dict[str, str] = {}
    for route in component.routes:
        if route.name in seen:
            raise DefinitionError(
                f"{cls.__name__} handles {route.codec.type} twice: in {seen[route.name]} and {route.method}",
                where=where,
            )
        seen[route.name] = route.method
    return component


def _check_options(cls: type, where: str, key: KeyOf | None, state: type[State] | None, single: bool, order: str) -> None:
    title = cls.__name__
    if single and key is not None:
        raise DefinitionError(f"{title} is single and has a key: it is one or the other", where=where, fix="single=True")
    if state is not None and not single and key is None:
        raise DefinitionError(
            f"{title} has a state and no key: whose state is it?",
            where=where,
            fix=f'@app.component(key="...", state={state.__name__})',
        )
    if state is not None:
        _check_state(state, where)
    if order not in ("hold", "skip", "park"):
        raise DefinitionError(f"order is {order!r}: hold, skip or park", where=where, fix='order="hold"')


def _message_route(component: Component, attribute: str, method: Any, mark: OnMark) -> Route:
    where = _where(method)
    _check_parameters(component, method, ["self", "message", *(["state"] if component.state else []), "ctx"], where)
    key = mark.key if mark.key is not None else component.key
    if mark.key is not None and component.key is None:
        raise DefinitionError(f"{component.cls.__name__} has no key to override", where=where)
    if isinstance(key, str) and key not in fields_of(mark.message):
        names = list(fields_of(mark.message))
        close = difflib.get_close_matches(key, names, 1)
        raise DefinitionError(
            f"{mark.message.__name__} has no field {key!r} to be its key; it has {', '.join(names)}",
            where=where,
            fix=f'@on({mark.message.__name__}, key="{close[0] if close else names[0] if names else "..."}")',
        )
    name = f"{component.name}:{type_of(mark.message)}"
    return Route(
        name=name,
        component=component,
        method=attribute,
        codec=MessageCodec(mark.message),
        timeout_s=mark.timeout_s,
        retry=mark.retry or component.retry,
        is_async=inspect.iscoroutinefunction(method),
        read_only=mark.read_only,
        answer=answer_type_of(mark.message) if issubclass(mark.message, Request) else None,
        every_s=None,
        address_of=_address_function(component, key),
        state_version=component.state_codec.version if component.state_codec else 0,
        operation=_operation(mark.policy or component.policy, name),
    )


def _tick_route(component: Component, attribute: str, method: Any, mark: EveryMark) -> Route:
    where = _where(method)
    if component.key is not None:
        raise DefinitionError(
            "@every is for single or stateless components: a keyed one has no key at a tick",
            where=where,
            fix="ctx.after(60, ...)",
        )
    _check_parameters(component, method, ["self", *(["state"] if component.state else []), "ctx"], where)
    name = f"{component.name}:genesis.tick.{attribute}"
    return Route(
        name=name,
        component=component,
        method=attribute,
        codec=MessageCodec(Tick),
        timeout_s=mark.timeout_s,
        retry=component.retry,
        is_async=inspect.iscoroutinefunction(method),
        read_only=False,
        answer=None,
        every_s=mark.seconds,
        address_of=_address_function(component, None),
        state_version=component.state_codec.version if component.state_codec else 0,
        operation=_operation(component.policy, name),
    )


def _operation(policy: Policy | None, name: str) -> Operation | None:
    """A handler as one attempt: its timeout stays its own, and its retry outside."""
    return policy.protect(name=name, timeout=inf, attempts=1) if policy is not None else None


def _address_function(component: Component, key: KeyOf | None) -> Callable[[Any], str]:
    if key is None:
        address = component.address()
        return lambda message: address
    get = attrgetter(key) if isinstance(key, str) else key
    prefix = f"{component.name}/"
    known: dict[str, str] = {}
    known_address = known.get

    def address_of(message: Any) -> str:
        found = get(message)
        return (known_address(found) if type(found) is str else None) or checked(found)

    def checked(found: Any) -> str:
        address = prefix + key_text(found)
        if type(found) is str:
            if len(known) >= KEYS_KNOWN:
                known.clear()
            known[found] = address
        return address

    return address_of


def key_text(key: object) -> str:
    """A key as text: keys are compared as text, so 7 and "7" are one key.

    Raises:
        InvalidEventError: it is empty, longer than 512 characters, holds a NUL, or is no simple value.
    """
    simple = isinstance(key, (str, int, UUID)) and not isinstance(key, bool)
    if not simple:
        raise InvalidEventError(f"a key is text, a whole number or a UUID, not {key!r}")
    text = str(key)
    if not text or len(text) > KEY_MAX_CHARS or "\0" in text:
        raise InvalidEventError(f"a key has 1 to {KEY_MAX_CHARS} characters and no NUL, not {text[:40]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEventError(f"a key is of characters that UTF-8 has, not {text[:40]!r}") from None
    return text


def _check_state(state: type[State], where: str) -> None:
    if not (isinstance(state, type) and issubclass(state, State)):
        raise DefinitionError(
            f"state is {state!r}: a class that extends State", where=where, fix="class Stock(State): left: int = 0"
        )
    try:
        msgspec.msgpack.Decoder(state).decode(msgspec.msgpack.encode(state()))
    except TypeError as error:
        missing = next((f.name for f in msgspec.structs.fields(state) if f.required), "...")
        fix = f"{missing}: {fields_of(state).get(missing, 'int')} = ..."
        raise DefinitionError(f"{state.__name__} cannot begin empty: {error}", where=where, fix=fix) from error
    except msgspec.ValidationError as error:
        raise DefinitionError(f"a default of {state.__name__} does not fit its type: {error}", where=where) from error


def _check_parameters(component: Component, method: Any, wanted: list[str], where: str) -> None:
    taken = [
        p.name for p in inspect.signature(method).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(taken) != len(wanted):
        begin = "async def" if inspect.iscoroutinefunction(method) else "def"
        raise DefinitionError(
            f"{component.cls.__name__}.{method.__name__} takes ({', '.join(taken)})",
            where=where,
            fix=f"{begin} {method.__name__}({', '.join(wanted)})",
        )


def _kebab(name: str) -> str:
    """``RebookingLedger`` -> ``rebooking-ledger``."""
    return "".join(
        f"-{c.lower()}" if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    )


def _where(method: Any) -> str:
    code = getattr(method, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""
