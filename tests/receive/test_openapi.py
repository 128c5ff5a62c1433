"""The interface document tells of every route and of no other, in the words that OpenAPI has for it."""

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jsonschema
import pytest
import schemathesis
from schemathesis.schemas import BaseSchema

import gateway.features
from gateway import __version__
from gateway.http.answers import Answer
from gateway.http.openapi import OpenApiDoor, document
from gateway.http.operation import Operation, Parameter
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.receive.openapi import CORE, INFO
from tests.receive.doorway import doorway, get
from tests.receive.every_route import (
    FEATURES,
    ROOMS_OF_THE_CORE,
    WORDS,
    every_route,
    modules_in,
    routes_in,
)

MESSAGE: dict[str, Any] = {"sender": "a@acme.test", "recipients": ["b@acme.test"]}


def document_of_all() -> dict[str, Any]:
    served: dict[str, Any] = json.loads(json.dumps(document(INFO, every_route(), WORDS)))
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
    assert routes == set(operations_in(document_of_all()))


def test_a_gateway_with_a_route_that_is_not_described_does_not_start() -> None:
    async def serve(_request: Request) -> Answer:
        return Answer()

    with pytest.raises(ValueError, match="GET /thing has no operation"):
        OpenApiDoor(INFO, [Route("GET", "/thing", serve)], WORDS)


@pytest.mark.parametrize("feature", [None, *FEATURES])
def test_the_core_and_each_feature_have_all_their_words(feature: str | None) -> None:
    routes, words = routes_in(*ROOMS_OF_THE_CORE), CORE
    if feature is not None:
        routes += routes_in(import_module(f"gateway.features.{feature}"))
        words |= FEATURES[feature]
    check_references(json.loads(json.dumps(document(INFO, routes, words))))


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
    check_references(document_of_all())


def check_references(served: Any) -> None:
    for reference in set(references(served)):
        _, *steps = reference.split("/")
        place = served
        for step in steps:
            place = place[step]


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in operations_in(document_of_all()).values()]
    assert len(names) == len(set(names))


def test_whatever_has_a_name_is_used() -> None:
    operations = [route.operation for route in every_route() if route.operation is not None]
    parameters = [parameter for operation in operations for parameter in operation.parameters]
    assert named(Operation) == [operation for operation in named(Operation) if operation in operations]
    assert named(Parameter) == [parameter for parameter in named(Parameter) if parameter in parameters]
    parts = {part for route in every_route() for part in route.path.split("/") if part.startswith("{")}
    assert {part.strip("{}") for part in parts} == set(WORDS.parts)
    assert used_shapes() == set(WORDS.shapes)


def named(kind: type[Any]) -> list[Any]:
    rooms = (*ROOMS_OF_THE_CORE, gateway.features)
    return [value for module in modules_in(*rooms) for value in vars(module).values() if type(value) is kind]


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
    door = OpenApiDoor(INFO, [route for route in every_route() if route.path != "/openapi.json"], WORDS)
    async with doorway(door.routes()) as entrance:
        reply = await entrance.ask(get("/openapi.json"))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == document_of_all()
    assert reply.json["info"]["version"] == __version__
