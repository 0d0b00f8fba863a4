import asyncio
import contextvars
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from genesis import App, Context, Message, Request, on
from genesis.runtime.log import JsonLines, trace_id
from tests.unit.runtime.support import inside

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
app = App("shop")
left: list[asyncio.Task[None]] = []
users = logging.getLogger("shop.code")


class Waits(Message, type="waits"): ...


class Passes(Message, type="passes"): ...


class Threaded(Message, type="threaded"): ...


class Fans(Message, type="fans"): ...


class Leaves(Message, type="leaves"): ...


class Fails(Message, type="fails"): ...


class Causes(Message, type="causes"): ...


class Level(Request[int], type="level"): ...


class Look(Request[int], type="look"): ...


@app.component
class Desk:
    @on(Passes)
    async def passes(self, message: Passes, ctx: Context) -> None:
        users.info("passes")

    @on(Waits)
    async def waits(self, message: Waits, ctx: Context) -> None:
        users.info("before")
        await asyncio.sleep(1)
        users.info("after")

    @on(Threaded)
    def threaded(self, message: Threaded, ctx: Context) -> None:
        users.info("in a thread")

    @on(Fans)
    async def fans(self, message: Fans, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.part())
        await asyncio.to_thread(users.info, "to a thread")

    async def part(self) -> None:
        await asyncio.sleep(0)
        users.info("part")

    @on(Leaves)
    async def leaves(self, message: Leaves, ctx: Context) -> None:
        left.append(asyncio.get_running_loop().create_task(self.part()))

    @on(Fails)
    async def fails(self, message: Fails, ctx: Context) -> None:
        if ctx.attempt == 1:
            try:
                raise KeyError("sku")
            except KeyError:
                users.exception("first")
            raise ValueError
        users.info("second", extra={"component": "mine", "shelf": 7})

    @on(Causes)
    async def causes(self, message: Causes, ctx: Context) -> None:
        ctx.emit(Passes())
        ctx.after(5, Waits())
        await ctx.ask(Level())
        await ctx.ask(Look())
        users.info("asked")


@app.component
class Shelf:
    @on(Level)
    async def level(self, message: Level, ctx: Context) -> int:
        users.info("level")
        return 1

    @on(Look, read_only=True)
    async def look(self, message: Look, ctx: Context) -> int:
        users.info("look")
        return 1


class Lines:
    """What was logged, as JSON."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonLines())

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def of(self, message: str) -> dict[str, Any]:
        (found,) = [line for line in self.all() if line["message"] == message]
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    found, before = Lines(), users.level
    users.addHandler(found.handler)
    users.setLevel("INFO")
    yield found
    users.removeHandler(found.handler)
    users.setLevel(before)


# --- whose line it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Passes(), ["passes"]),
        (Waits(), ["before", "after"]),
        (Threaded(), ["in a thread"]),
        (Fans(), ["part", "to a thread"]),
    ],
)
async def test_what_a_handler_logs_says_whose_it_is(message: Message, said: list[str], lines: Lines) -> None:
    async with app.simulate() as sim:
        headers = {"traceparent": PARENT}
        await inside(sim, lambda node: node.send(message, id="e1", source="till", headers=headers))
        await sim.settle()
    users.info("outside")
    known = {"component": "desk", "event_id": "e1", "source": "till", "attempt": 1, "trace_id": TRACE}
    assert [line["message"] for line in lines.all()] == [*said, "outside"]
    for line in lines.all()[:-1]:
        assert {name: line.get(name) for name in known} == known
        assert (line["level"], line["logger"]) == ("INFO", "shop.code")
    assert set(lines.of("outside")) == {"time", "level", "logger", "message"}


async def test_one_that_waits_and_those_that_pass_it_are_told_apart(lines: Lines) -> None:
    async with app.simulate() as sim:
        await sim.send(Waits(), id="slow")
        for number in range(3):
            await sim.send(Passes(), id=f"quick-{number}")
        await sim.settle()
    assert lines.of("before")["event_id"] == lines.of("after")["event_id"] == "slow"
    assert [line["event_id"] for line in lines.all() if line["message"] == "passes"] == ["quick-0", "quick-1", "quick-2"]


async def test_a_task_that_was_left_behind_is_not_taken_for_a_later_attempt(lines: Lines) -> None:
    async with app.simulate() as sim:
        await sim.send(Leaves(), id="gone")
        await sim.send(Passes(), id="later")
        await sim.settle()
    assert lines.of("part").get("event_id") in (None, "gone")
    assert lines.of("passes")["event_id"] == "later"
    left.clear()


async def test_an_attempt_is_numbered_and_its_fields_cannot_be_overwritten(lines: Lines) -> None:
    async with app.simulate(errors="record") as sim:
        await sim.send(Fails(), id="e1")
        await sim.settle()
    first, second = lines.of("first"), lines.of("second")
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["exception"].endswith("KeyError: 'sku'")
    assert (second["component"], second["shelf"]) == ("desk", 7)


async def test_a_trace_goes_on_to_all_that_an_event_causes(lines: Lines) -> None:
    async with app.simulate() as sim:
        await inside(sim, lambda node: node.send(Causes(), headers={"traceparent": PARENT, "secret": "x"}))
        await sim.settle()
        await sim.advance(10)
    for message in ("passes", "before", "after", "level", "asked"):
        assert lines.of(message)["trace_id"] == TRACE
    assert [lines.of(message)["component"] for message in ("level", "look", "asked")] == ["shelf", "shelf", "desk"]


async def test_no_trace_is_invented(lines: Lines) -> None:
    async with app.simulate() as sim:
        await sim.send(Passes())
        await sim.settle()
    assert "trace_id" not in lines.of("passes")


@pytest.mark.parametrize(
    "text", ["", "00", f"00-{TRACE}", f"00-{TRACE.upper()}-a-01", f"00-{'0' * 32}-a-01", "00-xyz-a-01", f"00-{TRACE}0-a-01"]
)
def test_a_traceparent_that_is_none_has_no_trace_id(text: str) -> None:
    assert trace_id({"traceparent": text}) == ""
    assert trace_id(None) == ""


# --- lines ----------------------------------------------------------------------------------------------------------


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value", [Odd(), endless(), {(1, 2): 3}, "\ud800", float("nan"), {1, 2}, b"\xff", object, 1 << 80, None]
)
def test_no_value_keeps_a_line_from_being_written(value: Any) -> None:
    for record in (
        logging.makeLogRecord({"msg": value, "levelname": "INFO", "name": "x"}),
        logging.makeLogRecord({"msg": "%d", "args": (value, value), "levelname": "INFO", "name": "x"}),
        logging.makeLogRecord({"msg": "m", "thing": value, "levelname": "INFO", "name": "x"}),
    ):
        line = JsonLines().format(record)
        assert "\n" not in line
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_a_time_is_utc_and_a_traceback_is_one_field() -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "created": 1_800_000_000.25, "exc_text": "Traceback\nX"})
    assert json.loads(JsonLines().format(record)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": record.levelname,
        "logger": record.name,
        "message": "a\nb",
        "exception": "Traceback\nX",
    }


async def test_variables_that_a_handler_in_a_thread_sets_are_not_seen_by_the_next() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []
    local = App("shop")

    @local.component
    class Sets:
        @on(Threaded)
        def threaded(self, message: Threaded, ctx: Context) -> None:
            seen.append(who.get())
            who.set(ctx.event_id)

    async with local.simulate() as sim:
        for _ in range(3):
            await sim.send(Threaded())
        await sim.settle()
    assert seen == ["nobody"] * 3
