from typing import Any

import pytest

from genesis.cli.letters import find_letter, keys_of, letters_of
from genesis.cli.talk import Failure
from genesis.core.event import DeadLetter, Delivery, Pending, Priority, Reason
from genesis.core.message import encode


def delivery(id: int) -> Delivery:
    return Delivery("inventory:shop.placed", "inventory/tea", f"e{id}", "shop", encode({"n": id}), float(id), priority=1, id=id)


class Store:
    """As much of a store as letters need."""

    def __init__(self, dead: dict[int, float], pending: dict[int, Reason]) -> None:
        self._dead = sorted(
            (f"{id:016x}", encode(DeadLetter(delivery(id), "failed", "why", 3, died_at))) for id, died_at in dead.items()
        )
        self._pending = [Pending(delivery(id), reason) for id, reason in sorted(pending.items())]

    def scan(self, table: str, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        assert table == "dead"
        return [row for row in self._dead if row[0] > after][:limit]

    def scan_pending(self, after: int = 0, limit: int = 1000) -> list[Pending]:
        return [row for row in self._pending if row.delivery.id > after][:limit]


def store(dead: dict[int, float], pending: dict[int, Reason] | None = None) -> Any:
    return Store(dead, pending or {})


def test_the_newest_come_last_whatever_their_keys() -> None:
    found = store({1: 30.0, 2: 10.0, 3: 40.0}, {20: Reason.PARKED, 21: Reason.HELD})
    total, page = letters_of(found, 10)
    assert total == 4
    assert [(letter.key, letter.state) for letter in page] == [
        (f"{2:016x}", "dead"),
        (f"{20:016x}", "parked"),
        (f"{1:016x}", "dead"),
        (f"{3:016x}", "dead"),
    ]
    assert page[0].priority == Priority.HIGH.name
    assert page[0].payload == {"n": 2}


def test_pages_go_back_in_time_and_cover_all() -> None:
    found = store({id: float(id) for id in range(1, 1202)})
    pages = [letters_of(found, 500, skip) for skip in (0, 500, 1000, 1500)]
    assert [(total, len(page)) for total, page in pages] == [(1201, 500), (1201, 500), (1201, 201), (1201, 0)]
    assert [letter.delivery.id for _, page in reversed(pages) for letter in page] == list(range(1, 1202))


def test_all_keys_are_in_the_order_of_acceptance() -> None:
    assert keys_of(store({5: 1.0, 4: 2.0}, {3: Reason.PARKED})) == [f"{id:016x}" for id in (3, 4, 5)]


@pytest.mark.parametrize("key", ["1f", "000000000000001f", "1F"])
def test_a_key_may_be_short(key: str) -> None:
    assert find_letter(store({31: 1.0}), key).key == "000000000000001f"
    assert find_letter(store({}, {31: Reason.PARKED}), key).state == "parked"


@pytest.mark.parametrize("key", ["20", "zz", "", "-1", "0", "f" * 16, "f" * 40])
def test_a_key_that_is_not_there_is_said(key: str) -> None:
    with pytest.raises(Failure) as caught:
        find_letter(store({31: 1.0}, {33: Reason.HELD}), key)
    assert caught.value.code == 1
    assert "genesis dlq list" in caught.value.message
