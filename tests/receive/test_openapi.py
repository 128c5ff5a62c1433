"""The interface document tells of every route and of no other, in the words that OpenAPI has for it."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from schemathesis.schemas import BaseSchema

from gateway import __version__
from gateway.receive.openapi import OpenApiDoor, document
from gateway.receive.openapi_operations import PARAMETERS, PATH_PARTS
from gateway.receive.openapi_shapes import message_shapes
from tests.receive.doorway import doorway, get
from tests.receive.every_route import WORDS, every_route

MESSAGE: dict[str, Any] = {"sender": "a@acme.test", "recipients": ["b@acme.test"]}


def document_of_all() -> dict[str, Any]:
    served: dict[str, Any] = json.loads(json.dumps(document(every_route(), WORDS)))
    return served


def operations_in(served: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, operations in served["paths"].items()
        for method, operation in operations.items()
    }


def test_every_route_is_described_and_nothing_else_is() -> None:
    routes = {(route.method, route.path) for route in every_route()}
    assert len(routes) > 20
    assert routes == set(WORDS.operations)
    assert routes == set(operations_in(document_of_all()))


def test_what_is_described_and_not_there_is_not_shown() -> None:
    some = [route for route in every_route() if route.path == "/health"]
    assert set(operations_in(document(some, WORDS))) == {("GET", "/health")}


def test_the_document_is_what_openapi_3_1_says_one_is() -> None:
    schema: BaseSchema = schemathesis.openapi.from_dict(document_of_all())
    schema.validate()


def references(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        for value in found.values():
            yield from references(value)
    elif isinstance(found, list):
        for value in found:
            yield from references(value)


def test_every_reference_leads_somewhere() -> None:
    served = document_of_all()
    for reference in set(references(served)):
        _, *steps = reference.split("/")
        place = served
        for step in steps:
            place = place[step]


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in operations_in(document_of_all()).values()]
    assert len(names) == len(set(names))


def test_whatever_is_named_in_a_table_is_used() -> None:
    used = {name for operation in WORDS.operations.values() for name in operation.parameters}
    assert used == set(PARAMETERS)
    parts = {part for _, path in WORDS.operations for part in path.split("/") if part.startswith("{")}
    assert {part.strip("{}") for part in parts} == set(PATH_PARTS)
    assert used_shapes() == set({**WORDS.shapes, **message_shapes()})


def used_shapes() -> set[str]:
    served = document_of_all()
    return {name.rpartition("/")[2] for name in references(served) if "/schemas/" in name}


def test_every_answer_that_is_no_success_is_the_envelope() -> None:
    served = document_of_all()
    for (method, path), operation in operations_in(served).items():
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                whole = served["components"]["responses"][answer["$ref"].rpartition("/")[2]]
                shape = whole["content"]["application/json"]["schema"]
                assert shape == {"$ref": "#/components/schemas/Error"}, (method, path)


def test_admin_routes_say_that_they_take_an_admin_key() -> None:
    for (_, path), operation in operations_in(document_of_all()).items():
        if path.startswith("/v1/admin/"):
            assert operation["x-listeners"] == ["admin"]
            assert {"adminKey": []} in operation["security"]


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"payload": [1], "headers": {"priority": "low"}}, True),
        ({"sender": "nobody"}, False),
        ({"recipients": []}, False),
        ({"headers": {"priority": "loud"}}, False),
        ({"signature": {"algorithm": "ES256"}}, False),
    ],
)
def test_the_shape_of_a_message_is_its_own_schema(change: dict[str, Any], good: bool) -> None:
    served = document_of_all()
    validator = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Message", **served})
    assert validator.is_valid(MESSAGE | change) == good


async def test_the_document_is_served_to_whoever_asks() -> None:
    door = OpenApiDoor([route for route in every_route() if route.path != "/openapi.json"], WORDS)
    async with doorway(door.routes()) as entrance:
        reply = await entrance.ask(get("/openapi.json"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == document_of_all()
    assert reply.json["info"]["version"] == __version__
