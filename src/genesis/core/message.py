"""The user's values: messages, requests and states, as msgspec structs that know their names and versions.

The only file of `core` that may import msgspec's machinery beyond plain structs. Payloads and states travel as msgpack maps
(field names stay with the values, so that fields can be added with a default).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, dataclass_transform, get_args, get_origin

import msgspec
from msgspec import Struct, StructMeta

from genesis.core.errors import (
    DefinitionError,
    InvalidEventError,
    MalformedEventError,
    StoreChangedError,
    StoreNewerError,
)
from genesis.core.event import Priority

A = TypeVar("A")
M = TypeVar("M", bound=Callable[[dict[str, Any]], dict[str, Any]])
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
UNFIT = (msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError)
"""What encoding, and decoding again, raises for a message that does not fit its class."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class MessageMeta(StructMeta):
    """Takes `type`, `priority` and `expires_after` as class arguments and checks them."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,
        priority: Priority = Priority.NORMAL,
        expires_after: float | None = None,
        **options: Any,
    ) -> MessageMeta:
        """Build the class; a frozen struct."""
        options.setdefault("gc", False)  # frozen values make no cycles: the collector need not look
        cls = super().__new__(mcls, name, bases, namespace, frozen=True, **options)
        where = f"class {name}"
        if namespace.get("__module__") != __name__ and get_origin(cls) is None and type is None:
            raise DefinitionError(
                "a message needs the type of its event",
                where=where,
                fix=f'class {name}({_type_name(namespace.get("__orig_bases__", bases)[0])}, type="{_suggested_type(name)}"):',
            )
        if type is not None and (not isinstance(type, str) or not type or any(c in type for c in ":/ \n\0")):
            raise DefinitionError(f"{type!r} is no event type: use letters, digits and dots", where=where)
        if not isinstance(priority, Priority):
            raise DefinitionError(f"priority is {priority!r}", where=where, fix="priority=Priority.HIGH")
        if expires_after is not None and not (isinstance(expires_after, int | float) and expires_after > 0):
            raise DefinitionError(f"expires_after is {expires_after!r}: seconds above 0", where=where)
        setattr(cls, "__event_type__", type or "")
        setattr(cls, "__priority__", priority)
        setattr(cls, "__expires_after_s__", expires_after)
        return cls


class Message(Struct, metaclass=MessageMeta):
    """An event, as the user writes it: ``class OrderPlaced(Message, type="shop.order.placed", priority=Priority.HIGH)``.

    Frozen. `priority` is the default of its events; `expires_after` (seconds, off by default) ends an event that was
    not begun in that time as expired.
    """

    if TYPE_CHECKING:  # what checkers know of class arguments; the metaclass takes them

        def __init_subclass__(
            cls, *, type: str = "", priority: Priority = Priority.NORMAL, expires_after: float | None = None
        ) -> None: ...


class Request(Message, Generic[A]):
    """A question with an answer of type `A`: ``class GetLevel(Request[int], type="shop.stock.level")``."""


@dataclass_transform(field_specifiers=(msgspec.field,))
class StateMeta(StructMeta):
    """Takes `version` as class argument, checks it, and collects the migrations."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, version: int = 1, **options: Any
    ) -> StateMeta:
        """Build the class; a mutable struct."""
        if not isinstance(version, int) or version < 1:
            raise DefinitionError(f"version is {version!r}: an integer from 1", where=f"class {name}")
        steps: dict[int, Any] = {}
        plain = dict(namespace)
        for attribute, value in namespace.items():
            step = value.__func__ if isinstance(value, staticmethod) else value
            number = getattr(value, "__from_version__", getattr(step, "__from_version__", None))
            if number is not None:  # marked above or below @staticmethod, or without it
                _check_step(name, version, number, steps)
                steps[number] = step
                plain[attribute] = staticmethod(step)
        cls = super().__new__(mcls, name, bases, plain, **options)
        setattr(cls, "__state_version__", version)
        setattr(cls, "__migrations__", steps)
        return cls


def _check_step(name: str, version: int, from_version: Any, steps: dict[int, Any]) -> None:
    where = f"class {name}"
    if not isinstance(from_version, int) or from_version < 1:
        raise DefinitionError(f"migrates from version {from_version!r}: an integer from 1", where=where)
    if from_version >= version:
        raise DefinitionError(
            f"migrates from version {from_version}, but the class is version {version}",
            where=where,
            fix=f"class {name}(State, version={from_version + 1}):",
        )
    if from_version in steps:
        raise DefinitionError(f"migrates from version {from_version} twice", where=where)


class State(Struct, metaclass=StateMeta):
    """The state of one key: ``class Stock(State, version=1): left: int = 100``. Every field needs a default."""

    if TYPE_CHECKING:  # what checkers know of class arguments; the metaclass takes them

        def __init_subclass__(cls, *, version: int = 1) -> None: ...


def migrate(*, from_version: int) -> Callable[[M], M]:
    """Mark a static method of a State class as the step from `from_version` to the next: plain fields in, plain fields out."""

    def mark(step: M) -> M:
        setattr(step, "__from_version__", from_version)
        return step

    return mark


def type_of(message: type[Message]) -> str:
    """Type of its events."""
    return str(getattr(message, "__event_type__"))


def priority_of(message: type[Message]) -> Priority:
    """Default priority of its events."""
    priority: Priority = getattr(message, "__priority__")
    return priority


def expires_after_of(message: type[Message]) -> float | None:
    """Life of its events from acceptance, seconds; None: they do not expire."""
    life: float | None = getattr(message, "__expires_after_s__")
    return life


def answer_type_of(request: type[Request[Any]]) -> Any:
    """The `A` of a `Request[A]`."""
    for base in getattr(request, "__orig_bases__", ()):
        if get_origin(base) is Request:
            return get_args(base)[0]
    raise DefinitionError(
        "a request needs the type of its answer",
        where=f"class {request.__name__}",
        fix=f'class {request.__name__}(Request[int], type="{type_of(request)}"):',
    )


class MessageCodec:
    """Encodes and decodes one message class."""

    __slots__ = ("_decode_json", "decode", "expires_after_s", "message", "priority", "type")

    def __init__(self, message: type[Message]) -> None:
        self.message = message
        self.type = type_of(message)
        self.priority = int(priority_of(message))
        self.expires_after_s = expires_after_of(message)
        self.decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(message).decode
        self._decode_json: Callable[[bytes], Message] = msgspec.json.Decoder(message).decode

    def checked(self, message: Message) -> tuple[bytes, Message]:
        """The payload of a message, and the message as a handler will see it.

        Raises:
            InvalidEventError: a field has a type that its class does not allow, or cannot be encoded.
        """
        try:
            payload = encode(message)
            return payload, self.decode(payload)
        except UNFIT as error:
            raise InvalidEventError(f"{type(message).__name__} ({self.type}): {error}") from error

    def from_builtins(self, fields: Any) -> Message:
        """The message made of plain JSON values.

        Raises:
            InvalidEventError: the fields do not fit the class.
        """
        try:
            return msgspec.convert(fields, self.message)
        except msgspec.ValidationError as error:
            raise InvalidEventError(f"{self.message.__name__} ({self.type}): {error}") from error

    def from_json(self, body: bytes) -> Message:
        """The message made of JSON.

        Raises:
            MalformedEventError: it is no JSON.
            InvalidEventError: the fields do not fit the class.
        """
        try:
            return self._decode_json(body)
        except msgspec.ValidationError as error:
            raise InvalidEventError(f"{self.message.__name__} ({self.type}): {error}") from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise MalformedEventError(f"the data is not JSON: {error}") from error


class StateCodec:
    """Encodes, decodes and migrates one state class."""

    __slots__ = ("current", "state", "version")

    def __init__(self, state: type[State]) -> None:
        self.state = state
        self.version: int = getattr(state, "__state_version__")
        self.current: Callable[[bytes], State] = msgspec.msgpack.Decoder(state).decode
        """Decodes a state of this class's version."""

    def decode(self, version: int, body: bytes) -> State:
        """The state, brought to this class's version by its migrations.

        Raises:
            StoreNewerError: it was written by a newer version of the class.
            StoreChangedError: a migration step is missing, failed, or gave fields that do not fit.
        """
        if version == self.version:
            return self.current(body)
        name = self.state.__name__
        if version > self.version:
            raise StoreNewerError(f"a stored {name} has version {version}, this code knows {self.version}: run the newer code")
        fields: dict[str, Any] = msgspec.msgpack.decode(body)
        steps = getattr(self.state, "__migrations__")
        try:
            for step in range(version, self.version):
                fields = steps[step](fields)
            return msgspec.convert(fields, self.state)
        except Exception as error:
            raise StoreChangedError(f"{name}: migration from version {version} to {self.version} failed: {error!r}") from error


def fields_of(struct: type[Struct]) -> dict[str, str]:
    """Field names and types, as text: what a schema fingerprint is made of."""
    return {field.name: _type_name(field.type) for field in msgspec.structs.fields(struct)}


def fingerprint(struct: type[Struct]) -> str:
    """A short hash of the fields and types of a struct, nested structs included."""
    return hashlib.sha256(repr(sorted(_flat(struct, "", ()).items())).encode()).hexdigest()[:16]


def _flat(struct: type[Struct], path: str, around: tuple[type, ...]) -> dict[str, str]:
    """Types of the fields of a struct, and of those nested in it, by dotted name in the store; `around`: what it is in."""
    flat = {}
    around = (*around, struct)
    for field in msgspec.structs.fields(struct):
        name = f"{path}{field.encode_name}"
        flat[name] = _type_name(field.type)
        for inner in _structs_in(field.type):
            if inner not in around:
                flat.update(_flat(inner, f"{name}.{inner.__name__}.", around))
    return flat


def _structs_in(kind: Any) -> Iterator[type[Struct]]:
    """The structs that a type is made of."""
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Struct):
        yield origin
    for inner in get_args(kind):
        yield from _structs_in(inner)


def _type_name(kind: Any) -> str:
    """A type as the user wrote it, without the names of modules: a class may move."""
    origin, inner = get_origin(kind), [_type_name(arg) for arg in get_args(kind)]
    if origin in (Union, UnionType):
        return " | ".join(inner)
    if inner:
        return f"{_type_name(origin)}[{', '.join(inner)}]"
    if kind in (None, NoneType, ...):
        return "..." if kind is ... else "None"
    return kind.__name__ if isinstance(kind, type) else repr(kind).replace("typing.", "")


def _suggested_type(name: str) -> str:
    """``OrderPlaced`` -> ``order.placed``."""
    return "".join(f".{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


__all__ = [
    "Message",
    "MessageCodec",
    "Request",
    "State",
    "StateCodec",
    "answer_type_of",
    "encode",
    "fields_of",
    "fingerprint",
    "migrate",
    "type_of",
]
