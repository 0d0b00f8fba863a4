"""`POST /ask/TYPE`: the answer leaves after the commit that holds it."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.web.support import JSON, opened


async def test_a_question_is_answered() -> None:
    async with opened() as (client, _, _):
        level = await client.ask("level", {"sku": "tea"})
        assert (level.status, level.json, level.headers["content-type"]) == (200, 100, JSON)
        taken = await client.ask("take", {"sku": "tea"}, prefer="respond-async, wait=2")
        assert (taken.status, taken.json, taken.headers["preference-applied"]) == (200, 99, "wait=2")
        assert (await client.request("POST", "/ask/level", {}, b'{"sku": "tea"}')).json == 99


async def test_the_answer_comes_after_the_commit() -> None:
    async with opened(delay=lambda: 1.0) as (client, _, _):
        begin = asyncio.get_running_loop().time()
        assert (await client.ask("take", {"sku": "tea"})).status == 200
        assert asyncio.get_running_loop().time() - begin >= 2.0, "one commit for the question, one for its answer"


async def test_a_key_gives_the_same_answer_again() -> None:
    async with opened() as (client, _, _):
        answers = [await client.ask("take", {"sku": "tea"}, idempotency_key=key) for key in ('"k1"', "k1", "k2")]
        assert [answer.json for answer in answers] == [99, 99, 98]


@pytest.mark.parametrize(
    ("kind", "fields", "headers", "status", "problem"),
    [
        ("nope", {}, {}, 422, "unknown-type"),
        ("", {}, {}, 422, "unknown-type"),
        ("lev%65l", {"sku": "tea"}, {}, 422, "unknown-type"),
        ("placed", {"sku": "tea"}, {}, 422, "no-request"),
        ("level", {"sku": 7}, {}, 422, "invalid-event"),
        ("take", {"sku": "bad"}, {}, 422, "ask-rejected"),
        ("level", {"sku": "broken"}, {}, 500, "ask-failed"),
        ("take", {"sku": "tea", "slow_s": 5.0}, {"prefer": "wait=0.5"}, 504, "deadline-exceeded"),
        ("level", {"sku": "tea"}, {"prefer": "wait=soon"}, 400, "malformed-header"),
        ("level", {"sku": "tea"}, {"prefer": "wait=0"}, 400, "malformed-header"),
        ("level", {"sku": "tea"}, {"prefer": "wait=301"}, 400, "malformed-header"),
        ("level", {"sku": "tea"}, {"prefer": "wait=" + "9" * 400}, 400, "malformed-header"),
        ("level", {"sku": "tea"}, {"idempotency_key": '""'}, 400, "malformed-header"),
        ("level", {"sku": "tea"}, {"content_type": "text/plain"}, 415, "wrong-content-type"),
    ],
)
async def test_questions_without_an_answer(
    kind: str, fields: dict[str, object], headers: dict[str, str], status: int, problem: str
) -> None:
    async with opened() as (client, _, _):
        reply = await client.ask(kind, fields, **headers)
        assert (reply.status, reply.kind) == (status, problem)


async def test_a_type_that_is_too_long_is_not_told_in_full() -> None:
    async with opened() as (client, _, _):
        reply = await client.ask("x" * 60_000, {})
        assert (reply.status, reply.kind) == (422, "unknown-type")
        assert len(reply.body) < 1000


async def test_another_question_with_the_same_key_is_refused() -> None:
    async with opened() as (client, _, _):
        await client.event(ce_source="http-ask", ce_id="k")
        reply = await client.ask("take", {"sku": "tea"}, idempotency_key="k", prefer="wait=1")
        assert reply.status in (422, 504)


async def test_what_is_not_json_is_refused() -> None:
    async with opened() as (client, _, _):
        reply = await client.request("POST", "/ask/level", {"content-type": JSON}, b"{")
        assert (reply.status, reply.kind) == (400, "malformed-json")
