"""`/openapi.json` describes the door as it is: schemathesis makes right and wrong requests of it, and judges the answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from requests.structures import CaseInsensitiveDict
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi

from genesis.web.cloudevents import BATCH, STRUCTURED
from genesis.web.openapi import JSON
from tests.door.target import Target
from tests.unit.cli.support import Shop

SEED = int(os.environ.get("DOOR_SEED", "1"))
EXAMPLES = 300
"""Of an operation, right ones and wrong ones each."""
CHECKS: list[Any] = [
    checks.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Shop(tmp_path_factory.mktemp("described")) as shop:
        yield Target(shop)


def operations(target: Target) -> dict[str, Any]:
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/door", "ce-type": "shop.placed"}
RIGHT = GenerationMode.POSITIVE
WRONG = GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("label", "mode", "must"),
    [
        ("POST /events", RIGHT, {202}),
        ("POST /events", WRONG, {400, 415, 422}),
        ("POST /ask/shop.level", RIGHT, {200}),
        ("POST /ask/shop.level", WRONG, {400, 422}),
        ("POST /ask/shop.tasks", RIGHT, {200}),
        ("GET /livez", RIGHT, {200}),
        ("GET /readyz", RIGHT, {200}),
        ("GET /metrics", RIGHT, {200}),
    ],
)
def test_the_door_answers_as_it_is_described(target: Target, label: str, mode: GenerationMode, must: set[int]) -> None:
    operation = operations(target)[label]
    needed = BINARY if label == "POST /events" else {}
    statuses: set[int] = set()
    accepted: set[str | None] = set()

    @seed(SEED)
    @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode is RIGHT and case.media_type == JSON:  # what OpenAPI cannot say is said there in words
            case.headers = CaseInsensitiveDict({**needed, **(case.headers or {})})
        answer = case.call_and_validate(checks=CHECKS)
        statuses.add(answer.status_code)
        if answer.status_code == 202:
            accepted.add(case.media_type)

    ask()
    assert must <= statuses
    if must == {202}:
        assert accepted == {JSON, STRUCTURED, BATCH}, "events in every mode"
    assert target.complaints() == []
