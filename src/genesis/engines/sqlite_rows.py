"""What the rows of a SQLite store hold: a batch written into a transaction, and everything that is read.

Pure functions of a connection. They begin and end no transaction, and what SQLite raises passes through.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from genesis.core.event import LANES, SEQUENCE_BITS, Delivery, Pending, Reason, Timer, lane_start
from genesis.core.ports import TABLES, Batch, Head, StateRow

ROWS = 64
"""Rows of one statement. Its text is the key of the statement cache, so each number of rows is prepared once."""
RUN_MIN = 8
"""Neighbouring ids from which on a range is cheaper than a list."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_delivery = msgspec.msgpack.Decoder(Delivery).decode
_unpack_timer = msgspec.msgpack.Decoder(Timer).decode
_unpack_head = msgspec.msgpack.Decoder(Head).decode


# --- writing --------------------------------------------------------------------------------------------------------


class _Insert:
    """An INSERT of many rows, given as one flat list of their values."""

    def __init__(self, into: str, width: int, tail: str = "") -> None:
        row = f"({', '.join('?' * width)})"
        self._step = width * ROWS
        self._texts = [f"{into} VALUES {', '.join([row] * n)} {tail}" for n in range(ROWS + 1)]
        self._width = width

    def __call__(self, db: sqlite3.Connection, values: list[object]) -> None:
        for start in range(0, len(values), self._step):
            part = values[start : start + self._step]
            db.execute(self._texts[len(part) // self._width], part)


_insert_event = _Insert("INSERT INTO event", 3)
_replace_pending = _Insert("REPLACE INTO pending", 6)
_upsert_state = _Insert(
    "INSERT INTO state",
    4,
    "ON CONFLICT (partition, address) DO UPDATE SET version = excluded.version, body = excluded.body",
)
_upsert_timer = _Insert(
    "INSERT INTO timer",
    5,
    "ON CONFLICT (partition, address, name) DO UPDATE SET due = excluded.due, body = excluded.body",
)
_upsert = {
    table: _Insert(f"INSERT INTO {table}", 3, "ON CONFLICT (partition, key) DO UPDATE SET body = excluded.body")
    for table in TABLES
}
_LISTS = [f"({', '.join('?' * n)})" for n in range(ROWS + 1)]


class Sealed(NamedTuple):
    """A head as it was when its commit began."""

    epoch: int
    commit_id: int
    body: bytes


def seal(head: Head) -> Sealed:
    """Take a head down: its owner goes on counting in it while the commit is under way."""
    return Sealed(head.epoch, head.commit_id, _pack(head))


def write(db: sqlite3.Connection, partition: int, head: Sealed, batch: Batch) -> bool:
    """Run all statements of a commit. Returns False, and wrote nothing, if the epoch is stale."""
    if not write_head(db, partition, head):
        return False
    _append(db, batch.append)
    if batch.pend:
        _pend(db, batch.pend)
    _delete_ids(db, "event", batch.done)
    _delete_ids(db, "pending", batch.unpend)
    _put_states(db, partition, batch.state)
    if batch.timers:
        _put_timers(db, partition, batch.timers)
    for table, rows in batch.tables.items():
        _put_rows(db, partition, table, rows)
    return True


def write_head(db: sqlite3.Connection, partition: int, head: Sealed) -> bool:
    """Replace the head of a partition. Returns False if the epoch is stale."""
    sql = "UPDATE head SET commit_id = ?, body = ? WHERE partition = ? AND epoch = ?"
    return db.execute(sql, (head.commit_id, head.body, partition, head.epoch)).rowcount == 1


def count(batch: Batch) -> int:
    """Rows that a batch touches."""
    tables = sum(map(len, batch.tables.values()))
    lanes = len(batch.append) + len(batch.done) + 2 * len(batch.pend) + len(batch.unpend)
    return lanes + len(batch.state) + len(batch.timers) + tables


def claim(db: sqlite3.Connection, partition: int) -> Head:
    """Begin a new epoch of a partition, its first one if there is no head yet."""
    sql = "INSERT OR IGNORE INTO head VALUES (?, 0, 0, ?)"
    db.execute(sql, (partition, _pack(Head.fresh())))
    db.execute("UPDATE head SET epoch = epoch + 1 WHERE partition = ?", (partition,))
    head = read_head(db, partition)
    assert head is not None
    return head


def _append(db: sqlite3.Connection, deliveries: list[Delivery]) -> None:
    values: list[object] = []
    for delivery in deliveries:
        values += (delivery.id, delivery.expires_at, _pack(delivery.stored()))
    _insert_event(db, values)


def _pend(db: sqlite3.Connection, rows: list[Pending]) -> None:
    _delete_ids(db, "event", [row.delivery.id for row in rows])
    values: list[object] = []
    for row in rows:
        delivery = row.delivery
        values += (delivery.id, delivery.address, row.reason, row.due, delivery.attempt, _pack(delivery.stored()))
    _replace_pending(db, values)


def _delete_ids(db: sqlite3.Connection, table: str, ids: list[int]) -> None:
    single: list[int] = []
    for run in _runs(sorted(ids)):
        if len(run) < RUN_MIN:
            single += run
        else:
            db.execute(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", (run[0], run[-1]))
    for part in _parts(single):
        db.execute(f"DELETE FROM {table} WHERE id IN {_LISTS[len(part)]}", part)


def _runs(ids: list[int]) -> Iterator[list[int]]:
    """Split ascending ids where a number is missing."""
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or ids[at] != ids[at - 1] + 1:
            yield ids[start:at]
            start = at


def _put_states(db: sqlite3.Connection, partition: int, states: dict[str, StateRow]) -> None:
    values: list[object] = []
    for address in sorted(states):  # neighbours share pages
        values += (partition, address, *states[address])
    _upsert_state(db, values)


def _put_timers(db: sqlite3.Connection, partition: int, timers: dict[tuple[str, str], Timer | None]) -> None:
    values: list[object] = []
    for (address, name), timer in sorted(timers.items(), key=_by_key):
        if timer is None:
            sql = "DELETE FROM timer WHERE partition = ? AND address = ? AND name = ?"
            db.execute(sql, (partition, address, name))
        else:
            values += (partition, address, name, timer.due, _pack(timer))
    _upsert_timer(db, values)


def _put_rows(db: sqlite3.Connection, partition: int, table: str, rows: dict[str, bytes | None]) -> None:
    values: list[object] = []
    gone: list[str] = []
    for key, body in sorted(rows.items(), key=_by_key):
        if body is None:
            gone.append(key)
        else:
            values += (partition, key, body)
    _upsert[table](db, values)
    for part in _parts(gone):
        db.execute(f"DELETE FROM {table} WHERE partition = ? AND key IN {_LISTS[len(part)]}", (partition, *part))


def _by_key(item: tuple[Any, object]) -> Any:
    return item[0]


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), ROWS):
        yield values[start : start + ROWS]


# --- reading --------------------------------------------------------------------------------------------------------


def read_head(db: sqlite3.Connection, partition: int) -> Head | None:
    """The head as the last commit left it, under the current epoch; None when nobody ever owned the partition."""
    row = db.execute("SELECT epoch, commit_id, body FROM head WHERE partition = ?", (partition,)).fetchone()
    if row is None:
        return None
    head = _unpack_head(row[2])
    head.last_epoch, head.epoch, head.commit_id = head.epoch, row[0], row[1]
    return head


def read_lane(db: sqlite3.Connection, partition: int, lane: int, after: int, limit: int, wall: float) -> list[Delivery | int]:
    """Deliveries of a lane, in order; an expired one as its bare id."""
    sql = "SELECT id, CASE WHEN expires_at < ? THEN NULL ELSE body END FROM event WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
    first, end = max(after, lane_start(partition, lane)), lane_start(partition, lane + 1)
    return [id if body is None else _delivery(id, body) for id, body in db.execute(sql, (wall, first, end, limit))]


def _delivery(id: int, body: bytes) -> Delivery:
    delivery = _unpack_delivery(body)
    delivery.id = id
    return delivery


def count_lanes(db: sqlite3.Connection, partition: int) -> list[int]:
    """Rows of each lane, counted one by one."""
    counts = [0] * LANES
    sql = "SELECT id >> ?, count(*) FROM event WHERE id > ? AND id < ? GROUP BY 1"
    bounds = lane_start(partition, 0), lane_start(partition + 1, 0)
    for lane, count in db.execute(sql, (SEQUENCE_BITS, *bounds)):
        counts[lane - partition * LANES] = count
    return counts


_PENDING = "SELECT id, reason, due, attempt, body FROM pending WHERE id > ? AND id < ?"


def _pending(rows: Iterable[tuple[int, str, float | None, int, bytes]]) -> list[Pending]:
    found = []
    for id, reason, due, attempt, body in rows:
        delivery = _delivery(id, body)
        delivery.attempt, delivery.pending = attempt, reason
        found.append(Pending(delivery, Reason(reason), due))
    return found


def scan_pending(db: sqlite3.Connection, partition: int, after: int, limit: int) -> list[Pending]:
    """Pending deliveries, in id order."""
    first, end = max(after, lane_start(partition, 0)), lane_start(partition + 1, 0)
    return _pending(db.execute(f"{_PENDING} ORDER BY id LIMIT ?", (first, end, limit)))


def behind(db: sqlite3.Connection, partition: int, address: str) -> Pending | None:
    """The first held delivery of an address."""
    sql = f"{_PENDING} AND address = ? AND reason = 'held' ORDER BY id LIMIT 1"
    found = _pending(db.execute(sql, (lane_start(partition, 0), lane_start(partition + 1, 0), address)))
    return found[0] if found else None


def due_pending(db: sqlite3.Connection, partition: int, before: float, after: tuple[float, int], limit: int) -> list[Pending]:
    """Pending deliveries that are due, in order of (due, id)."""
    sql = f"{_PENDING} AND due <= ? AND (due, id) > (?, ?) ORDER BY due, id LIMIT ?"
    bounds = lane_start(partition, 0), lane_start(partition + 1, 0)
    return _pending(db.execute(sql, (*bounds, before, *after, limit)))


def due_timers(db: sqlite3.Connection, partition: int, before: float, limit: int) -> list[Timer]:
    """Timers that are due, in order of due time."""
    sql = "SELECT body FROM timer WHERE partition = ? AND due <= ? ORDER BY due, address, name LIMIT ?"
    return [_unpack_timer(body) for (body,) in db.execute(sql, (partition, before, limit))]


def load(db: sqlite3.Connection, partition: int, table: str, keys: Sequence[str]) -> dict[str, bytes]:
    """Rows of a named table."""
    assert table in TABLES
    found: dict[str, bytes] = {}
    for part in _parts(keys):
        sql = f"SELECT key, body FROM {table} WHERE partition = ? AND key IN {_LISTS[len(part)]}"
        found.update(db.execute(sql, (partition, *part)).fetchall())
    return found


def scan(db: sqlite3.Connection, partition: int, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
    """Rows of a named table, in key order."""
    assert table in TABLES
    sql = f"SELECT key, body FROM {table} WHERE partition = ? AND key > ? ORDER BY key LIMIT ?"
    return db.execute(sql, (partition, after, limit)).fetchall()


def count_rows(db: sqlite3.Connection, partition: int, table: str) -> int:
    """Rows of a named table; none when the store is older than the table."""
    assert table in TABLES
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone() is None:
        return 0
    rows: int = db.execute(f"SELECT count(*) FROM {table} WHERE partition = ?", (partition,)).fetchone()[0]
    return rows


def load_state(db: sqlite3.Connection, partition: int, addresses: Sequence[str]) -> dict[str, StateRow]:
    """Committed states."""
    found: dict[str, StateRow] = {}
    for part in _parts(addresses):
        sql = f"SELECT address, version, body FROM state WHERE partition = ? AND address IN {_LISTS[len(part)]}"
        found.update((address, (version, body)) for address, version, body in db.execute(sql, (partition, *part)))
    return found


def scan_state(db: sqlite3.Connection, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, StateRow]]:
    """States whose address starts with `prefix`, in address order."""
    # One lower bound, so that a page starts where the last one ended. No text holds a byte FF: the prefix followed by
    # one is above all that start with it and below all others.
    bound, first = (">", after) if after >= prefix else (">=", prefix)
    sql = (
        f"SELECT address, version, body FROM state WHERE partition = ? AND address {bound} ?"
        " AND address < CAST(? AS TEXT) ORDER BY address LIMIT ?"
    )
    rows = db.execute(sql, (partition, first, prefix.encode() + b"\xff", limit))
    return [(address, (version, body)) for address, version, body in rows]
