from typing import Any

import pytest

from genesis.cli.why import Obstacle, obstacles_of, told
from genesis.core.event import Delivery, Outgoing, Pending, Reason
from genesis.core.message import encode
from tests.unit.cli.test_health import head, health

NOW = 1_800_000_100.0


def delivery(id: int, born_at: float = NOW) -> Delivery:
    return Delivery("inventory:shop.placed", f"inventory/{id}", f"e{id}", "shop", b"", born_at, priority=1, id=id)


class Store:
    """As much of a store as this needs."""

    def __init__(self, pending: list[Pending], lanes: dict[int, Delivery]) -> None:
        self._pending, self._lanes = pending, lanes

    def scan(self, table: str, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        rows = [Outgoing("crm:shop.placed", "", "e9", "shop", b"", NOW - 60, number=9)] if table == "out" else []
        return [(row.key, encode(row)) for row in rows if row.key > after]

    def scan_pending(self, after: int = 0, limit: int = 1000) -> list[Pending]:
        return [row for row in self._pending if row.delivery.id > after][:limit]

    def read_lane(self, lane: int, after: int = 0, limit: int = 1000) -> list[Delivery]:
        return [self._lanes[lane]] if lane in self._lanes else []


def why(pending: list[Pending] | None = None, lanes: dict[int, Delivery] | None = None, **given: Any) -> list[Obstacle]:
    store: Any = Store(pending or [], lanes or {})
    return list(obstacles_of(health(**given), store, NOW))


def test_all_is_well() -> None:
    assert why() == []
    assert told([]) == ["nothing stands in the way"]


def test_a_circuit_that_is_not_closed_is_named_with_its_reason() -> None:
    (found,) = why(told={"pid": 7, "at": NOW, "circuits": {"pricing": ("OPEN", "5 failures in a row")}})
    assert (found.what, found.text) == ("circuit", "the circuit of pricing is OPEN: 5 failures in a row")


def test_the_oldest_of_each_priority_is_named_when_it_is_late() -> None:
    rows = [Pending(delivery(5, NOW - 90), Reason.HELD), Pending(delivery(6, NOW - 95), Reason.RETRY, NOW + 3)]
    (retry, waiting) = why(rows, {3: delivery(7, NOW - 5), 2: delivery(8, NOW - 50)})
    assert (retry.what, retry.count, retry.until) == ("retry", 1, NOW + 3)
    assert waiting.text == "the oldest HIGH waits for 1 min 35 s, pending (retry): inventory:shop.placed key inventory/6 id e6"
    assert why(lanes={3: delivery(7, NOW - 5)}) == []


def test_what_waits_for_a_sink_is_named_when_it_is_late() -> None:
    waiting = head(external=1, in_outbox=1)
    waiting.outgoing = {"crm": 1}
    (found,) = why(head=waiting, counted=None)
    assert found.text == "the oldest NORMAL waits for 1 min 0 s, in the outbox: crm:shop.placed id e9"


def test_suspects_run_at_the_next_start() -> None:
    rows = [Pending(delivery(id), Reason.SUSPECT) for id in range(1, 6)]
    (_, found) = why(rows, owner=(7, "vm", False), head=head(clean=False))
    assert found.text.endswith("inventory:shop.placed id e3 and 2 more")
    assert found.next == "start it: genesis run MODULE:APP --store shop.db"
    assert why(rows)[0].next == "each runs again alone, now"


@pytest.mark.parametrize(
    ("told", "what", "text"),
    [
        ({"stuck": 2}, "stuck", "2 handlers ignore their timeout"),
        ({"sources": {"till": {"state": "waits", "error": "OSError: x"}}}, "source", "source till is waits: OSError: x"),
        (
            {"sinks": {"crm": {"waiting": 9, "error": "OSError: x", "since": NOW - 60, "next_at": NOW + 1}}},
            "sink",
            "sink crm fails since ",
        ),
        ({"refuses": "9 deliveries wait"}, "intake", "intake is full: 9 deliveries wait"),
    ],
)
def test_what_the_process_says_of_itself(told: dict[str, Any], what: str, text: str) -> None:
    (found,) = why(told={"pid": 7, "at": NOW, **told})
    assert found.what == what
    assert found.text.startswith(text)
    assert why(told={"pid": 6, "at": NOW, **told}) == []


def test_what_does_not_add_up_comes_first() -> None:
    first = why(head=head(external=1))[0]
    assert first.what == "imbalance"
    assert first.next.endswith("genesis doctor --store shop.db")


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    assert told([Obstacle("dead", "\x1b[31m", "x")])[0] == "- \\x1b[31m"
