"""Thousands of malformed requests at a real process: none of them is its fault, and it goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.door.kinds import KINDS
from tests.door.talk import OddAnswerError, Reply, accepted, talk
from tests.door.target import Target
from tests.unit.cli.support import Shop

EACH, EACH_SLOW = 36, 20
"""Requests of a kind."""
AT_ONCE = 40
SHOWN = 40
GROWTH_BYTES = 64 << 20
"""Memory that it may hold more than before: some bodies, a page cache, and what Python keeps for the next time."""
SEED = int(os.environ.get("DOOR_SEED", "1"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Shop(tmp_path_factory.mktemp("door")) as shop:
        yield Target(shop)


def rng_of(name: str, number: int) -> Random:
    return Random(f"{SEED} {name} {number}")


async def storm(place: tuple[str, int], names: list[str]) -> tuple[list[str], list[Reply]]:
    """Send the named kinds, many at once. Returns what was wrong, and all answers."""
    wrong: list[str] = []
    answers: list[Reply] = []
    quick, slow = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(10_000)

    async def send(name: str, number: int) -> None:
        kind = KINDS[name]
        case = kind.case(rng_of(name, number))
        async with slow if kind.slow else quick:
            try:
                found = await talk(place, case)
                told = [reply.told() for reply in found]
            except (OddAnswerError, TimeoutError) as error:
                wrong.append(f"{name} {number}: {error!r} of {case}"[:600])
                return
        answers.extend(found)
        if not kind.fits(told):
            wrong.append(f"{name} {number}: {told} of {case}"[:600])

    counted = Counter[str]()
    async with asyncio.TaskGroup() as group:
        for name in names:
            counted[name] += 1
            group.create_task(send(name, counted[name]))
    return wrong, answers


@pytest.mark.timeout(240)
def test_thousands_of_malformed_requests_are_told_what_is_wrong_and_leave_nothing(target: Target) -> None:
    names = [name for name, kind in KINDS.items() for _ in range(EACH_SLOW if kind.slow else EACH)]
    Random(SEED).shuffle(names)
    assert len(names) >= 2000
    assert len(KINDS) >= 30
    assert target.accepts("before")
    files = target.files()
    warm, _ = asyncio.run(storm(target.place, [name for name in KINDS if not KINDS[name].slow]))
    before = target.ledger()["accepted"]
    tasks, resident = target.tasks(), target.resident_bytes()

    wrong, answers = asyncio.run(storm(target.place, names))

    assert not warm + wrong, f"DOOR_SEED={SEED}, {len(wrong)} of {len(names)}:\n" + "\n".join(sorted(warm + wrong)[:SHOWN])
    assert target.complaints() == []
    assert target.accepts("after")
    target.calm(files, tasks)
    assert target.resident_bytes() - resident < GROWTH_BYTES
    assert target.metric("genesis_http_requests_under_way") == 0
    ledger = target.ledger()
    assert ledger["adds_up"]
    assert ledger["accepted"] - before == sum(map(accepted, answers)) + 1


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.sampled_from([name for name, kind in KINDS.items() if not kind.slow]), st.randoms(use_true_random=False))
def test_hypothesis_finds_no_malformed_request_that_is_answered_otherwise(target: Target, name: str, rng: Random) -> None:
    case = KINDS[name].case(rng)
    told = [reply.told() for reply in asyncio.run(talk(target.place, case))]
    assert KINDS[name].fits(told), f"{name}: {told} of {case}"
    assert target.complaints() == []
