"""From the store to a running partition: what is known is read back, what was running is treated with care.

In: an engine that was claimed. Out: a pipeline ready to go on. Events that were running when the process died count one
attempt and run alone; one that kills the process each time ends as a `crashed` dead letter.
"""

from __future__ import annotations

import json
from typing import Any

from genesis.core.errors import StoreChangedError, StoreNewerError
from genesis.core.event import LANES, Delivery, Reason, lane_start
from genesis.core.message import fields_of, fingerprint
from genesis.core.ports import Engine
from genesis.layers.recovery.failure import Retry
from genesis.runtime.commit import unpack_digests
from genesis.runtime.component import Component
from genesis.runtime.loader import schedule_timer, tick_payload
from genesis.runtime.outcome import JOURNAL, tick_key
from genesis.runtime.pipeline import Pipeline

SCAN_ROWS = 512


async def restore(pipeline: Pipeline) -> list[Delivery]:
    """Read back what the machines must know. Returns the suspects: deliveries that were running at an unclean end.

    Raises:
        StoreChangedError: a state class changed without a new version, or lost a migration.
        StoreNewerError: a state was written by newer code.
    """
    await _check_states(pipeline)
    _windows(pipeline)
    await _remembered(pipeline)
    await _pending(pipeline)
    await _journals(pipeline)
    suspects = [] if pipeline.head.clean else await _suspects(pipeline)
    await _schedules(pipeline)
    if pipeline.group.rows or pipeline.head.clean:  # before anything runs, so that whatever kills the process is looked for
        await pipeline.commit()
    return suspects


def _windows(pipeline: Pipeline) -> None:
    for index, lane in enumerate(pipeline.lanes.lanes):
        start = lane_start(pipeline.partition, index)
        lane.last = start + pipeline.head.next_sequence[index] - 1
        lane.loaded = start if pipeline.head.waiting_by_lane[index] else lane.last


async def _scan(engine: Engine, partition: int, table: str) -> list[tuple[str, bytes]]:
    rows: list[tuple[str, bytes]] = []
    after = ""
    while page := await engine.scan(partition, table, after, SCAN_ROWS):
        rows += page
        after = page[-1][0]
    return rows


async def _remembered(pipeline: Pipeline) -> None:
    """The dedupe log and the answers that are kept."""
    for key, body in await _scan(pipeline.engine, pipeline.partition, "dedupe"):
        at, digests = unpack_digests(body)
        pipeline.horizon.restore(key, at, digests)
    pipeline.asks.restore(await _scan(pipeline.engine, pipeline.partition, "reply"))


async def _pending(pipeline: Pipeline) -> None:
    """Which keys have pending work. Bodies are not kept; what ran or stood at the front of its key comes up at once."""
    after = 0
    while page := await pipeline.engine.scan_pending(pipeline.partition, after, SCAN_ROWS):
        after = page[-1].delivery.id
        for row in page:
            pipeline.pending.add(row)
            delivery = row.delivery
            if row.reason in (Reason.SLOW, Reason.SUSPECT) and delivery.id not in pipeline.head.running:
                delivery.pending = str(row.reason)
                pipeline.lanes.offer(delivery)
    for address in pipeline.pending.addresses():
        rank = pipeline.pending.rank(address)
        if rank is not None:
            pipeline.lanes.hold(address, rank)
        if pipeline.pending.next_held(address) is not None:
            pipeline.promotions.add(address)


async def _journals(pipeline: Pipeline) -> None:
    """Journalled calls of deliveries that are done, which nobody has removed yet."""
    facts = await _scan(pipeline.engine, pipeline.partition, "fact")
    pipeline.journals += [key.removeprefix(JOURNAL) for key, _ in facts if key.startswith(JOURNAL)]


async def _suspects(pipeline: Pipeline) -> list[Delivery]:
    """Count an attempt for what was running; those with attempts left are returned, to run alone."""
    suspects: list[Delivery] = []
    for delivery_id in pipeline.head.running:
        delivery = await _find(pipeline, delivery_id)
        if delivery is None:
            continue
        attempts = delivery.attempt + 1
        route = pipeline.definition.routes.get(delivery.route)
        if attempts >= (route.retry if route is not None else Retry()).attempts:
            if route is not None and route.component.order == "park":
                pipeline.outcomes.pend(delivery, Reason.PARKED, None, attempts)
            else:
                pipeline.outcomes.dead(delivery, "crashed", f"the process died {attempts} times while it ran", attempts)
            continue
        pipeline.outcomes.pend(delivery, Reason.SUSPECT, None, attempts)
        delivery.attempt = attempts
        suspects.append(delivery)
    return suspects


async def _find(pipeline: Pipeline, delivery_id: int) -> Delivery | None:
    engine, partition = pipeline.engine, pipeline.partition
    lane = (delivery_id >> 48) % LANES
    for row in await engine.read(partition, lane, delivery_id - 1, 1, 0.0):
        if isinstance(row, Delivery) and row.id == delivery_id:
            row.attempt, row.pending = 0, ""
            return row
    for pending in await engine.scan_pending(partition, delivery_id - 1, 1):
        if pending.delivery.id == delivery_id:
            pending.delivery.pending = str(pending.reason)
            return pending.delivery
    return None


async def _schedules(pipeline: Pipeline) -> None:
    """Arm the schedules that are new, or have another period than the store knows; know which ticks have not ended."""
    routes = [route for route in pipeline.definition.routes.values() if route.every_s is not None]
    keys = [f"every:{route.name}" for route in routes]
    known = await pipeline.engine.load(pipeline.partition, "fact", keys)
    waiting = await pipeline.engine.load(pipeline.partition, "fact", [tick_key(route.name) for route in routes])
    pipeline.ticks.update(route.name for route in routes if tick_key(route.name) in waiting)
    for route, key in zip(routes, keys, strict=True):
        period = json.dumps(route.every_s).encode()
        if known.get(key) == period or route.every_s is None:
            continue
        address = route.component.address() or route.component.name
        pipeline.timers.set(
            schedule_timer(route.name, route.method, address, route.every_s, pipeline.clock.wall(), tick_payload())
        )
        pipeline.group.batch.put("fact", key, period)
        pipeline.group.rows += 1


async def _check_states(pipeline: Pipeline) -> None:
    """Compare each state class with what the store was written with, and note what is new."""
    stateful = [c for c in pipeline.definition.components.values() if c.state_codec is not None]
    known = await pipeline.engine.load(pipeline.partition, "fact", [f"state:{c.name}" for c in stateful])
    for component in stateful:
        key = f"state:{component.name}"
        now = _described(component)
        row = known.get(key)
        if row is not None:
            _compare(component, json.loads(row), now)
        if row is None or json.loads(row) != now:
            pipeline.group.batch.put("fact", key, json.dumps(now).encode())
            pipeline.group.rows += 1


def _described(component: Component) -> dict[str, Any]:
    codec = component.state_codec
    assert codec is not None
    return {
        "state": codec.state.__name__,
        "version": codec.version,
        "fingerprint": fingerprint(codec.state),
        "fields": fields_of(codec.state),
    }


def _compare(component: Component, stored: dict[str, Any], now: dict[str, Any]) -> None:
    name, version, before = now["state"], now["version"], stored["version"]
    here = f"{component.where}: {name} of {component.name}"
    if before > version:
        raise StoreNewerError(f"{here} is version {version}, the store holds version {before}: run the newer code")
    missing = [step for step in range(before, version) if step not in getattr(component.state, "__migrations__")]
    if missing:
        raise StoreChangedError(
            f"{here} is version {version}, the store holds version {before}\n    write: {_migration(missing[0])}"
        )
    if before == version and stored["fingerprint"] != now["fingerprint"]:
        raise StoreChangedError(
            f"{here} changed and is still version {version}; nothing was touched\n"
            f"{_difference(stored['fields'], now['fields'])}"
            f"    write: class {name}(State, version={version + 1}):\n           {_migration(version)}"
        )


def _migration(version: int) -> str:
    lines = (
        "@staticmethod",
        f"@migrate(from_version={version})",
        f"def from_{version}(old: dict[str, Any]) -> dict[str, Any]: ...",
    )
    return "\n           ".join(lines)


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    lines = [f"    - {field}: {kind}\n" for field, kind in before.items() if now.get(field) != kind]
    lines += [f"    + {field}: {kind}\n" for field, kind in now.items() if before.get(field) != kind]
    return "".join(lines) or "    (a nested struct changed)\n"
