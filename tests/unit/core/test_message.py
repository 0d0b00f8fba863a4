from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import new_class
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from genesis.core.errors import DefinitionError, InvalidEventError, StoreChangedError, StoreNewerError
from genesis.core.event import Priority
from genesis.core.message import (
    Message,
    MessageCodec,
    Request,
    State,
    StateCodec,
    answer_type_of,
    encode,
    expires_after_of,
    fields_of,
    fingerprint,
    migrate,
    priority_of,
    type_of,
)

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Line(Struct):
    sku: str
    count: int = 1


class Order(Message, type="shop.order", priority=Priority.HIGH, expires_after=1.5):
    id: str
    lines: tuple[Line, ...] = ()
    at: datetime | None = None
    extra: Any = None


class Plain(Message, type="plain"):
    pass


class GetLevel(Request[int], type="shop.level"):
    sku: str


def message_class(**arguments: Any) -> type[Message]:
    return new_class("OrderPlaced", (Message,), arguments)


def refusal(define: Callable[[], object]) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        define()
    return caught.value


# --- a message class ------------------------------------------------------------------------------------------------


def test_a_message_class_knows_its_type_priority_and_life() -> None:
    assert (type_of(Order), priority_of(Order), expires_after_of(Order)) == ("shop.order", Priority.HIGH, 1.5)
    assert (type_of(Plain), priority_of(Plain), expires_after_of(Plain)) == ("plain", Priority.NORMAL, None)


def test_a_message_without_a_type_is_told_the_line_to_write() -> None:
    error = refusal(message_class)
    assert error.where == "class OrderPlaced"
    assert error.what == "a message needs the type of its event"
    assert error.fix == 'class OrderPlaced(Message, type="order.placed"):'
    assert str(error) == f"class OrderPlaced: {error.what}\n    write: {error.fix}"
    assert error.code == "definition"


@pytest.mark.parametrize("type", ["", "a:b", "a/b", "a b", "a\nb", "a\0b"])
def test_a_type_is_made_of_letters_digits_and_dots(type: str) -> None:
    error = refusal(lambda: message_class(type=type))
    assert error.what == f"{type!r} is no event type: use letters, digits and dots"
    assert error.where == "class OrderPlaced"


@pytest.mark.parametrize("priority", [1, "high", None])
def test_a_priority_is_one_of_the_five(priority: object) -> None:
    error = refusal(lambda: message_class(type="a", priority=priority))
    assert error.what == f"priority is {priority!r}"
    assert error.fix == "priority=Priority.HIGH"


@pytest.mark.parametrize("life", [0, -1.0, float("nan")])
def test_a_life_is_longer_than_nothing(life: float) -> None:
    error = refusal(lambda: message_class(type="a", expires_after=life))
    assert error.what == f"expires_after is {life!r}: seconds above 0"


WRONG_ARGUMENTS = [{"type": 5}, {"type": "a", "expires_after": "5"}]


@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS)
def test_a_class_argument_of_another_kind_is_told_apart(arguments: dict[str, Any]) -> None:
    assert refusal(lambda: message_class(**arguments)).where == "class OrderPlaced"


def test_a_message_is_frozen() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Order("1").id = "2"


# --- a request ------------------------------------------------------------------------------------------------------


def test_a_request_knows_the_type_of_its_answer() -> None:
    class GetLevelAgain(GetLevel, type="shop.level.again"):
        pass

    class GetLines(Request[dict[str, list[Line]]], type="shop.lines"):
        pass

    assert answer_type_of(GetLevel) is int
    assert answer_type_of(GetLevelAgain) is int
    assert answer_type_of(GetLines) == dict[str, list[Line]]


def test_a_request_without_an_answer_is_told_the_line_to_write() -> None:
    class GetLost(Request, type="lost"):  # type: ignore[type-arg]
        pass

    error = refusal(lambda: answer_type_of(GetLost))
    assert error.what == "a request needs the type of its answer"
    assert error.where == "class GetLost"
    assert error.fix == 'class GetLost(Request[int], type="lost"):'


def test_the_line_to_write_for_a_request_keeps_its_answer() -> None:
    def define() -> None:
        class GetPrice(Request[int]):
            sku: str

    assert refusal(define).fix == 'class GetPrice(Request[int], type="get.price"):'


# --- the gate -------------------------------------------------------------------------------------------------------

order_codec = MessageCodec(Order)
orders = st.builds(
    Order,
    id=st.text(),
    lines=st.lists(st.builds(Line, sku=st.text(), count=st.integers(-(2**63), 2**64 - 1))).map(tuple),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    extra=st.none() | st.booleans() | st.floats(allow_nan=False) | st.binary() | st.lists(st.integers(0, 9)),
)


@given(orders)
def test_a_handler_sees_what_was_sent(order: Order) -> None:
    payload, seen = order_codec.checked(order)
    assert seen == order == order_codec.decode(payload)
    assert seen is not order
    assert payload == encode(order)


def test_a_codec_knows_what_its_class_says() -> None:
    assert (order_codec.message, order_codec.type) == (Order, "shop.order")
    assert (order_codec.priority, order_codec.expires_after_s) == (Priority.HIGH, 1.5)


def endless() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    "order",
    [
        Order(5),  # type: ignore[arg-type]
        Order("1", lines=(5,)),  # type: ignore[arg-type]
        Order("1", extra=object()),
        Order("1", extra=1 << 70),
        Order("\udcff"),
        Order("1", extra=endless()),
    ],
    ids=["wrong type", "wrong item", "no bytes for it", "a huge number", "half a character", "without an end"],
)
def test_a_message_that_does_not_fit_its_class_is_refused_at_the_gate(order: Order) -> None:
    with pytest.raises(InvalidEventError, match=r"^Order \(shop.order\): "):
        order_codec.checked(order)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(("id", "lines", "sku", "at")), inner),
)


@given(JSON)
def test_plain_fields_become_a_message_or_are_refused(fields: Any) -> None:
    try:
        made = str(type(order_codec.from_builtins(fields)))
    except InvalidEventError as error:
        made = str(error)
    assert made == str(Order) or made.startswith("Order (shop.order): ")


def test_a_field_that_came_later_takes_its_default() -> None:
    assert order_codec.decode(encode({"id": "1", "gone": 5})) == Order("1")


# --- a state class --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None])
def test_a_version_is_a_number_from_one(version: Any) -> None:
    def define() -> None:
        class Stock(State, version=version):
            left: int = 0

    error = refusal(define)
    assert (error.where, error.what) == ("class Stock", f"version is {version!r}: an integer from 1")


def test_a_migration_to_a_version_that_does_not_exist_is_told_the_line_to_write() -> None:
    def define() -> None:
        class Stock(State, version=2):
            @staticmethod
            @migrate(from_version=2)
            def from_2(old: dict[str, Any]) -> dict[str, Any]:
                return old

    error = refusal(define)
    assert error.what == "migrates from version 2, but the class is version 2"
    assert error.fix == "class Stock(State, version=3):"


def with_steps(*versions: Any) -> None:
    steps = {f"step_{i}": migrate(from_version=version)(lambda old: old) for i, version in enumerate(versions)}
    new_class("Stock", (State,), {"version": 3}, lambda body: body.update(steps))


@pytest.mark.parametrize("versions", [(0,), ("1",), (1, 1)], ids=["from 0", "no number", "twice the same"])
def test_a_migration_that_cannot_run_is_told(versions: tuple[Any, ...]) -> None:
    assert refusal(lambda: with_steps(*versions)).where == "class Stock"


class Stock(State, version=3):
    left: int = 100
    place: str = "here"

    @staticmethod
    @migrate(from_version=1)
    def from_1(old: dict[str, Any]) -> dict[str, Any]:
        return {"left": old["count"]}

    @staticmethod
    @migrate(from_version=2)
    def from_2(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "place": "there" if old["left"] else "nowhere"}


stock_codec = StateCodec(Stock)


def plain_step(old: dict[str, Any]) -> dict[str, Any]:
    return {"left": old["left"] + 1}


class Counter(State):
    left: int = 0


def migrated_with(step: Any) -> State:
    count = new_class("Count", (Counter,), {"version": 2}, lambda body: body.update(step=step))
    return StateCodec(count).decode(1, encode({"left": 5}))


@pytest.mark.parametrize("wrap", [lambda step: step, staticmethod], ids=["plain", "static"])
def test_a_step_is_a_static_method_or_written_like_one(wrap: Callable[[Any], Any]) -> None:
    step = wrap(migrate(from_version=1)(lambda old: plain_step(old)))
    assert msgspec.to_builtins(migrated_with(step)) == {"left": 6}


def test_the_mark_of_a_step_may_be_above_staticmethod() -> None:
    assert msgspec.to_builtins(migrated_with(migrate(from_version=1)(staticmethod(plain_step)))) == {"left": 6}


def test_a_state_is_mutable_and_its_steps_are_plain_functions() -> None:
    stock = Stock()
    stock.left -= 1
    assert stock == Stock(left=99)
    assert stock.from_1({"count": 7}) == {"left": 7}


@given(st.integers(0, 1000), st.text())
def test_a_state_comes_back_as_it_was_stored(left: int, place: str) -> None:
    assert stock_codec.decode(3, encode(Stock(left, place))) == Stock(left, place)


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        (1, {"count": 7}, Stock(7, "there")),
        (1, {"count": 0}, Stock(0, "nowhere")),
        (2, {"left": 5}, Stock(5, "there")),
        (3, {"left": 5}, Stock(5, "here")),
    ],
)
def test_an_old_state_is_brought_up_step_by_step(version: int, fields: dict[str, Any], expected: Stock) -> None:
    assert stock_codec.decode(version, encode(fields)) == expected


def test_a_state_of_newer_code_is_left_alone() -> None:
    with pytest.raises(StoreNewerError, match="a stored Stock has version 4, this code knows 3: run the newer code"):
        stock_codec.decode(4, encode({}))


@pytest.mark.parametrize(("version", "fields"), [(0, {}), (1, {"left": 7}), (2, {"left": "many"})])
def test_a_migration_that_is_missing_fails_or_gives_other_fields_is_said(version: int, fields: dict[str, Any]) -> None:
    with pytest.raises(StoreChangedError, match=f"Stock: migration from version {version} to 3 failed: "):
        stock_codec.decode(version, encode(fields))


class Rich(State, version=2):
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    money: Decimal = Decimal("1.10")
    id: UUID = UUID(int=5)
    raw: bytes = b"\0\1"
    colours: frozenset[Colour] = frozenset({Colour.RED})
    lines: dict[str, list[Line]] = msgspec.field(default_factory=lambda: {"a": [Line("x"), Line("y", 2)]})
    pair: tuple[int, str] = (1, "a")

    @staticmethod
    @migrate(from_version=1)
    def from_1(old: dict[str, Any]) -> dict[str, Any]:
        return old


def test_a_migration_keeps_every_kind_of_field() -> None:
    assert StateCodec(Rich).decode(1, encode(Rich())) == Rich()


# --- the fingerprint ------------------------------------------------------------------------------------------------


def struct(name: str = "S", /, module: str = "shop", **fields: Any) -> type[Struct]:
    """A struct class with these fields, all with a default."""
    kinds = {field: kind for field, kind in fields.items() if field != "rename"}
    options = {"rename": fields["rename"]} if "rename" in fields else {}
    return msgspec.defstruct(name, [(field, kind, None) for field, kind in kinds.items()], module=module, **options)


def test_fields_are_shown_as_they_were_written() -> None:
    assert fields_of(struct(a=int, b=list[str], c=int | None, d=Any)) == {
        "a": "int",
        "b": "list[str]",
        "c": "int | None",
        "d": "Any",
    }


def line(**fields: Any) -> type[Struct]:
    return struct("Line", **fields)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (struct(a=int), struct(a=str)),
        (struct(a=int), struct(b=int)),
        (struct(a=int), struct(a=int, b=int)),
        (struct(a=list[int]), struct(a=list[str])),
        (struct(a=int), struct(a=int | None)),
        (struct(a=int), struct(a=Annotated[int, Meta(ge=0)])),
        (struct(a=line(x=int)), struct(a=line(x=str))),
        (struct(a=list[line(x=int)]), struct(a=list[line(x=str)])),  # type: ignore[misc]
    ],
    ids=["type", "name", "added", "item", "optional", "bound", "nested", "nested item"],
)
def test_a_change_of_fields_or_types_changes_the_fingerprint(one: type[Struct], other: type[Struct]) -> None:
    assert fingerprint(one) != fingerprint(other)


def deep(wrap: Callable[[Any], Any]) -> tuple[type[Struct], type[Struct]]:
    return struct(a=wrap(line(x=int))), struct(a=wrap(line(x=str)))


class Box(Struct, Generic[T]):
    item: T | None = None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        deep(lambda inner: dict[str, list[inner]]),  # type: ignore[valid-type]
        deep(lambda inner: list[inner] | None),  # type: ignore[valid-type]
        deep(lambda inner: tuple[int, dict[str, inner]]),  # type: ignore[valid-type]
        deep(lambda inner: list[Annotated[inner, Meta(description="a line")]]),  # type: ignore[valid-type]
        (struct(a_b=int), struct(a_b=int, rename="camel")),
        (struct(a=line(x=int), b=struct("Line", "else", x=int)), struct(a=line(x=str), b=struct("Line", "else", x=int))),
    ],
    ids=["in a list in a dict", "in an optional list", "in a dict in a tuple", "annotated", "renamed", "of one name"],
)
def test_a_change_deep_inside_changes_the_fingerprint(one: type[Struct], other: type[Struct]) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_a_generic_struct_inside_counts_with_its_argument() -> None:
    assert fingerprint(struct(a=Box[int])) != fingerprint(struct(a=Box[str]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (struct(a=int, b=str), struct(b=str, a=int)),
        (struct(a=line(x=int), b=line(x=int)), struct(b=line(x=int), a=line(x=int))),
        (struct(a=line(x=int, y=str)), struct(a=line(y=str, x=int))),
    ],
    ids=["order", "order of structs", "order inside"],
)
def test_what_is_stored_alike_has_one_fingerprint(one: type[Struct], other: type[Struct]) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (struct("Stock", a=int), struct("Inventory", a=int)),
        (struct(a=list[struct("Line", "shop", x=int)]), struct(a=list[struct("Line", "__main__", x=int)])),  # type: ignore[misc]
    ],
    ids=["renamed class", "moved class"],
)
def test_where_a_class_lives_and_what_it_is_called_is_no_change(one: type[Struct], other: type[Struct]) -> None:
    assert fingerprint(one) == fingerprint(other)


def test_a_struct_that_holds_itself_has_a_fingerprint() -> None:
    assert fingerprint(Tree) == fingerprint(Tree)
    assert len(fingerprint(Tree)) == 16


class Tree(Struct):
    left: Tree | None = None
    right: tuple[Tree, ...] = ()
