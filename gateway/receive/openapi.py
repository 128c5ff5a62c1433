"""The served interface document, OpenAPI 3.1: made from the routes there are and what is said of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from gateway import __version__
from gateway.http.answers import JSON, Answer, encode_json
from gateway.http.operation import Operation, Words
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.http.shapes import ref
from gateway.receive.openapi_operations import OPERATIONS, PARAMETERS, PATH_PARTS
from gateway.receive.openapi_shapes import SHAPES, message_shapes

PATH = "/openapi.json"
REFUSALS_ALWAYS = (400, 429, 503)
REFUSALS_WITH_KEY = (401,)
REFUSALS_WITH_BODY = (413, 415)
REFUSALS_WITH_PATH_PART = (404,)
RETRIED = frozenset({429, 503})  # these say when to come back

SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The key of an agent, a gateway, an operator.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "adminKey": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
}

CORE = Words(OPERATIONS, SHAPES)

_PART = re.compile(r"\{([a-z_]+)\}")


class OpenApiDoor:
    def __init__(self, routes: Sequence[Route], words: Words) -> None:
        """`routes` are all others of the gateway."""
        self._body = encode_json(document([*routes, *self.routes()], words))

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.show)]

    async def show(self, _request: Request) -> Answer:
        return Answer(200, self._body, JSON)


def document(routes: Sequence[Route], words: Words) -> dict[str, Any]:
    """Everything a client generator wants to know of these routes, as far as they are described."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = words.operations.get((route.method, route.path))
        if operation is not None:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AMTP gateway",
            "version": __version__,
            "summary": "A mail server for agents: AMTP messages in, committed, delivered.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**words.shapes, **message_shapes()},
            "responses": {_named(status): _refusal(status) for status in HTTPStatus if status >= 400},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _operation(route: Route, operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": _id_of(route),
        "x-listeners": sorted(route.roles),
        "security": [{key: []} if key else {} for key in operation.keys],
        "parameters": [*_path_parts(route.path), *map(_parameter, operation.parameters)],
        "responses": {str(status): _answer(status, by) for status, by in operation.answers.items()},
    }
    for status in refusals_of(route, operation):
        found["responses"].setdefault(
            str(status), {"$ref": f"#/components/responses/{_named(HTTPStatus(status))}"}
        )
    if operation.body is not None:
        found["requestBody"] = {"required": operation.body_required, "content": _content(operation.body)}
    return found


def with_query(route: Route, words: Words) -> Route:
    """Returns the route with the parameters that its description names, which are all that it takes."""
    parameters = words.operations[route.method, route.path].parameters
    return replace(route, query=frozenset(PARAMETERS[key].name for key in parameters))


def refusals_of(route: Route, operation: Operation) -> list[int]:
    refusals = {*REFUSALS_ALWAYS, *operation.refusals}
    if operation.keys:
        refusals.update(REFUSALS_WITH_KEY)
    if operation.body is not None:
        refusals.update(REFUSALS_WITH_BODY)
    if "{" in route.path:
        refusals.update(REFUSALS_WITH_PATH_PART)
    return sorted(refusals)


def _id_of(route: Route) -> str:
    """`get_messages_id_status` for `GET /v1/messages/{id}/status`."""
    words = re.findall(r"[a-z]+", route.path.removeprefix("/v1"))
    return "_".join([route.method.lower(), *words])


def _path_parts(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARTS[name]}
        for name in _PART.findall(path)
    ]


def _parameter(key: str) -> dict[str, Any]:
    parameter = PARAMETERS[key]
    return {
        "name": parameter.name,
        "in": "query",
        "schema": parameter.schema,
        "description": parameter.description,
    }


def _answer(status: int, by: Mapping[str, str]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": _content(by)}


def _content(by: Mapping[str, str]) -> dict[str, Any]:
    return {media: {"schema": ref(name)} if name else {} for media, name in by.items()}


def _refusal(status: HTTPStatus) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": status.phrase,
        "content": {JSON: {"schema": ref("Error")}},
        "headers": {"X-Request-ID": {"required": True, "schema": {"type": "string"}}},
    }
    if status in RETRIED:
        found["headers"]["Retry-After"] = {"required": True, "schema": {"type": "string"}}
    return found


def _named(status: HTTPStatus) -> str:
    return status.name.title().replace("_", "")
