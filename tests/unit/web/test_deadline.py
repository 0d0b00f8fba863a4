"""`grpc-timeout`: read strictly, written so that nobody gets more time than there is, and kept by the door."""

from __future__ import annotations

import asyncio
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis.web.deadline import PER_UNIT_NS, VALUE_MAX, parsed, written
from genesis.web.problems import Problem
from tests.unit.web.support import JSON, opened


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0n", 0.0),
        (b"1n", 1e-9),
        (b"250u", 250e-6),
        (b"1500m", 1.5),
        (b"00000002S", 2.0),
        (b"3M", 180.0),
        (b"1H", 3600.0),
        (b"99999999H", 99_999_999 * 3600.0),
    ],
)
def test_a_time_is_a_number_and_a_unit(value: bytes, seconds: float) -> None:
    assert parsed(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"",
            b"S",
            b"1",
            b"1s",
            b"1h",
            b"-1S",
            b"+1S",
            b"1.5S",
            b"1 S",
            b" 1S",
            b"1S ",
            b"1S\n",
            b"1SS",
            b"100000000n",
            b"1e3S",
        ),
        *("\u0661S".encode(), "1\u00b5".encode("latin-1"), b"\xff1S", b"9" * 100_000 + b"S"),
    ],
)
def test_what_grpc_would_not_write_is_refused(value: bytes) -> None:
    with pytest.raises(Problem, match="malformed-header: grpc-timeout: ") as found:
        parsed(value)
    assert (found.value.status, len(found.value.detail) < 200) == (400, True)


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        *((0.0, "0n"), (-3.0, "0n"), (-inf, "0n"), (1e-12, "0n"), (1e-6, "1000n"), (0.05, "50000000n"), (0.1, "100000u")),
        *((1.5, "1500000u"), (100.0, "100000m"), (3e5, "300000S"), (1e300, "99999999H"), (inf, "99999999H")),
    ],
)
def test_it_is_written_in_the_finest_unit_that_holds_it(seconds: float, value: str) -> None:
    assert written(seconds) == value


def test_nan_is_no_time() -> None:
    with pytest.raises(ValueError, match="NaN"):
        written(nan)


@given(st.integers(0, VALUE_MAX), st.sampled_from(sorted(PER_UNIT_NS)))
def test_what_is_read_and_written_means_the_same(number: int, unit: str) -> None:
    seconds = parsed(f"{number}{unit}".encode())
    assert parsed(written(seconds).encode()) == seconds


@given(st.floats(0, VALUE_MAX * 3600.0))
def test_who_is_told_gets_no_more_than_there_is_and_hardly_less(seconds: float) -> None:
    told = parsed(written(seconds).encode())
    assert told <= seconds
    assert told >= seconds * (1 - 1e-5) - 1e-9


# --- the door -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "took_s"),
    [
        ({"grpc-timeout": "500m"}, 0.5),
        ({"grpc-timeout": "500m", "prefer": "wait=2"}, 0.5),
        ({"grpc-timeout": "2S", "prefer": "wait=0.5"}, 0.5),
        ({"grpc-timeout": "40S"}, 40.0),
        ({}, 30.0),
    ],
)
async def test_a_question_waits_until_the_nearest_deadline(headers: dict[str, str], took_s: float) -> None:
    async with opened() as (client, _, _):
        began = asyncio.get_running_loop().time()
        body = b'{"sku": "tea", "slow_s": 1000}'
        reply = await client.request("POST", "/ask/take", {"content-type": JSON, **headers}, body)
        assert (reply.status, reply.kind) == (504, "deadline-exceeded")
        assert asyncio.get_running_loop().time() - began == pytest.approx(took_s, abs=0.01)


async def test_a_deadline_in_years_is_no_reason_to_refuse() -> None:
    async with opened() as (client, _, _):
        assert (await client.ask("level", {"sku": "tea"}, grpc_timeout="99999999H")).status == 200


async def test_a_preference_that_did_not_count_is_not_called_applied() -> None:
    async with opened() as (client, _, _):
        nearer = await client.ask("level", {"sku": "tea"}, grpc_timeout="1S", prefer="wait=2")
        assert (nearer.status, "preference-applied" in nearer.headers) == (200, False)
        farther = await client.ask("level", {"sku": "tea"}, grpc_timeout="3S", prefer="wait=2")
        assert farther.headers["preference-applied"] == "wait=2"


async def test_a_question_whose_deadline_is_over_is_not_asked() -> None:
    async with opened() as (client, _, _):
        reply = await client.ask("take", {"sku": "tea"}, grpc_timeout="0n")
        assert (reply.status, reply.kind) == (504, "deadline-exceeded")
        assert (await client.ask("level", {"sku": "tea"})).json == 100


async def test_a_header_that_is_malformed_or_there_twice_is_refused() -> None:
    async with opened() as (client, _, _):
        reply = await client.ask("level", {"sku": "tea"}, grpc_timeout="soon")
        assert (reply.status, reply.kind) == (400, "malformed-header")
        twice = [(b"content-type", JSON.encode()), (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")]
        reply = await client.request("POST", "/ask/level", twice, b'{"sku": "tea"}')
        assert (reply.status, reply.kind) == (400, "malformed-header")
