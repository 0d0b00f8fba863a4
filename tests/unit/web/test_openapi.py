"""`GET /openapi.json`: the door, described from the messages of the application behind it."""

from __future__ import annotations

import json
from typing import Any

from genesis.web.ingest import Door
from genesis.web.problems import KINDS
from tests.unit.web.support import Client, opened


async def description(client: Client, **scope: Any) -> Any:
    reply = await client.request("GET", scope.get("root_path", "") + "/openapi.json", **scope)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return reply.json


async def test_it_names_the_types_with_their_fields() -> None:
    async with opened() as (client, _, _):
        found = await description(client)
    assert (found["openapi"], found["info"]["title"]) == ("3.1.0", "shop")
    events = found["paths"]["/events"]["post"]
    assert {one["name"] for one in events["parameters"]} >= {"ce-id", "ce-source", "ce-type", "ce-specversion"}
    types = next(one["schema"]["enum"] for one in events["parameters"] if one["name"] == "ce-type")
    assert types == ["odd", "ping", "placed", "take"], "what is read-only is asked, not sent"
    content = events["requestBody"]["content"]
    envelopes = content["application/cloudevents+json"]["schema"]["oneOf"]
    placed = next(one for one in envelopes if one["properties"]["type"] == {"const": "placed"})
    assert placed["properties"]["data"] == {"$ref": "#/components/schemas/Placed"}
    assert content["application/cloudevents-batch+json"]["schema"]["items"]["oneOf"] == envelopes
    fields = found["components"]["schemas"]["Placed"]
    assert (fields["required"], fields["properties"]["qty"]) == (["sku"], {"type": "integer", "default": 1})
    assert [one["title"] for one in envelopes if "anyOf" not in one] == ["odd", "ping"], (
        "these have no fields that must be given"
    )


async def test_each_request_has_a_path_and_its_answer() -> None:
    async with opened() as (client, _, _):
        paths = (await description(client))["paths"]
    assert [path for path in paths if path.startswith("/ask/")] == ["/ask/level", "/ask/take"]
    answer = paths["/ask/take"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"type": "integer"}


async def test_every_problem_that_an_operation_may_have_is_named() -> None:
    async with opened() as (client, _, _):
        told = json.dumps(await description(client))
    for kind in KINDS.keys() - {"not-found", "wrong-method", "no-request", "unavailable"}:  # of what is no operation
        assert told.count(f'"/problems/{kind}"') >= 2, kind


async def test_it_says_where_the_door_is_mounted() -> None:
    async with opened() as (client, _, _):
        assert (await description(client))["servers"] == [{"url": "/"}]
        assert (await description(client, root_path="/genesis"))["servers"] == [{"url": "/genesis"}]


async def test_without_a_node_there_is_nothing_to_describe_yet() -> None:
    reply = await Client(Door()).request("GET", "/openapi.json")
    assert (reply.status, reply.kind) == (503, "intake-full")
