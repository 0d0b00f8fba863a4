"""Where a store stands, read from outside, whether or not a process runs it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from genesis.cli import moment
from genesis.cli.talk import iso, unpacked
from genesis.core.event import Priority
from genesis.core.ports import Head, Ledger
from genesis.engines.outside import Outside

PAGE = 1000
TRIES = 5
"""Times that rows are counted when a commit comes between: a store this busy is not counted."""
PENDING_MAX = 100_000
"""Pending deliveries that are looked at one by one; of more, only their number is told."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows, counted one by one while no commit came between."""

    lanes: list[int]
    pending: int | None
    """None: too many to look at."""
    out: int = 0
    """Of the outbox."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a person wants to know first."""

    path: Path
    owner: tuple[int, str, bool] | None
    head: Head | None
    written_at: float
    """Last change of the files."""
    counted: Counted | None
    """None: it is too busy, or nobody ever ran it."""
    reasons: dict[str, int]
    """Pending deliveries by reason."""
    dead: int
    sources: dict[str, Any]
    """Committed positions."""
    told: dict[str, Any]
    """What the last process said of itself, newer than anything else it stored by a second at most."""

    @property
    def ledger(self) -> Ledger:
        """The counters."""
        return self.head.ledger if self.head is not None else Ledger()

    @property
    def alive(self) -> bool:
        """Whether a process runs it."""
        return self.owner is not None and self.owner[2]

    @property
    def state(self) -> str:
        """``running``, ``stopped``, ``died``, or ``new``."""
        if self.alive:
            return "running"
        if self.head is None:
            return "new"
        return "stopped" if self.head.clean else "died"

    @property
    def fresh(self) -> bool:
        """Whether what was told is of the process that runs now."""
        return self.alive and self.owner is not None and self.told.get("pid") == self.owner[0]

    @property
    def imbalance(self) -> str:
        """What does not add up, by the counters and against the rows; empty when all does."""
        wrong = [self.ledger.imbalance()]
        if self.head is not None and self.counted is not None:
            if self.counted.lanes != self.head.waiting_by_lane:
                wrong.append(f"rows in lanes {self.counted.lanes} != counted {self.head.waiting_by_lane}")
            if self.counted.pending not in (None, self.ledger.in_pending):
                wrong.append(f"pending rows {self.counted.pending} != in_pending {self.ledger.in_pending}")
            if not self.counted.out == self.ledger.in_outbox == sum(self.head.outgoing.values()):
                wrong.append(f"outbox rows {self.counted.out} != in_outbox {self.ledger.in_outbox} != {self.head.outgoing}")
        return "; ".join(filter(None, wrong))

    @property
    def well(self) -> bool:
        """Whether nobody needs to look."""
        return not self.imbalance and self.state != "died"


def examine(outside: Outside) -> Health:
    """Read everything."""
    head, counted, reasons = _counted(outside)
    facts = dict(outside.scan("fact"))
    told = msgspec.msgpack.decode(facts["status"]) if "status" in facts else {}
    return Health(
        path=outside.path,
        owner=outside.owner(),
        head=head,
        written_at=_written_at(outside.path),
        counted=counted,
        reasons=reasons,
        dead=sum(1 for _ in _rows(outside, "dead")),
        sources={name: unpacked(body) for name, body in _rows(outside, "source")},
        told=told,
    )


def _counted(outside: Outside) -> tuple[Head | None, Counted | None, dict[str, int]]:
    reasons: dict[str, int] = {}
    head = outside.head()
    for _ in range(TRIES if head is not None else 0):
        lanes = outside.count_lanes()
        (reasons, whole), out = _reasons(outside), outside.count("out")
        now = outside.head()
        if now is not None and head is not None and now.commit_id == head.commit_id:
            return now, Counted(lanes, sum(reasons.values()) if whole else None, out), reasons
        head = now
    return head, None, reasons


def _reasons(outside: Outside) -> tuple[dict[str, int], bool]:
    counts: Counter[str] = Counter()
    after = 0
    while page := outside.scan_pending(after, PAGE):
        after = page[-1].delivery.id
        counts.update(str(row.reason) for row in page)
        if counts.total() >= PENDING_MAX:
            return dict(counts), False
    return dict(counts), True


def _rows(outside: Outside, name: str) -> list[tuple[str, bytes]]:
    rows: list[tuple[str, bytes]] = []
    after = ""
    while page := outside.scan(name, after, PAGE):
        after = page[-1][0]
        rows += page
    return rows


def _written_at(path: Path) -> float:
    files = (path, path.with_name(f"{path.name}-wal"))
    return max(file.stat().st_mtime for file in files if file.exists())


def for_programs(health: Health) -> dict[str, Any]:
    """The same for programs."""
    head, ledger, owner, told = health.head, health.ledger, health.owner, health.told
    names = [priority.name for priority in Priority]
    by_lane = head.waiting_by_lane if head is not None else [0] * (2 * len(names))
    return {
        "store": str(health.path),
        "app": told.get("app"),
        "state": health.state,
        "well": health.well,
        "owner": {"pid": owner[0], "host": owner[1], "alive": owner[2]} if owner is not None else None,
        "epoch": head.epoch if head is not None else 0,
        "commit": head.commit_id if head is not None else 0,
        "written_at": iso(health.written_at),
        "written_ago_s": round(max(0.0, moment.wall() - health.written_at), 3),
        "ledger": {
            **dict(zip(Ledger.__struct_fields__, msgspec.structs.astuple(ledger), strict=True)),
            "born": ledger.born,
            "waiting": ledger.waiting,
            "adds_up": not health.imbalance,
            "imbalance": health.imbalance,
            "rows_counted": health.counted is not None,
        },
        "waiting": {name: by_lane[2 * i] + by_lane[2 * i + 1] for i, name in enumerate(names)},
        "pending": {"total": ledger.in_pending, "reasons": health.reasons},
        "dead_letters": health.dead,
        "sources": _sources(health),
        "sinks": _sinks(health),
        "paused_s": told.get("paused", {}) if health.fresh else {},
        "circuits": {name: {"state": state, "why": why} for name, (state, why) in told.get("circuits", {}).items()}
        if health.fresh
        else {},
        "running": told.get("running", 0) if health.fresh else 0,
        "stuck": told.get("stuck", 0) if health.fresh else 0,
        "latency_s": told.get("latency_s", {}) if health.fresh else None,
        "told_at": iso(told.get("at")),
    }


def _sources(health: Health) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, str]] = health.told.get("sources", {})
    return {
        name: {
            "position": health.sources.get(name),
            "state": told.get(name, {}).get("state") if health.fresh else None,
            "error": told.get(name, {}).get("error") or None,
        }
        for name in sorted({*health.sources, *told})
    }


def _sinks(health: Health) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = health.told.get("sinks", {}) if health.fresh else {}
    waiting = health.head.outgoing if health.head is not None else {}
    return {
        name: {
            "waiting": waiting.get(name, 0),
            "state": told.get(name, {}).get("state"),
            "error": told.get(name, {}).get("error") or None,
            "since": iso(told.get(name, {}).get("since")),
            "next_at": iso(told.get(name, {}).get("next_at")),
        }
        for name in sorted({*waiting, *told})
    }
