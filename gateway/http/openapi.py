"""The served OpenAPI 3.1 document, made from the routes and their operations."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from gateway.http.answers import JSON, Answer, encode_json
from gateway.http.operation import NO_KEY, Operation, Parameter, Words
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.http.shapes import ref

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

SHOW = Operation("watch", "This document.", {200: {JSON: ""}}, keys=NO_KEY)

_PART = re.compile(r"\{([a-z_]+)\}")


class OpenApiDoor:
    def __init__(self, info: Mapping[str, Any], routes: Sequence[Route], words: Words) -> None:
        """`routes` are all others of the gateway."""
        self._body = encode_json(document(info, [*routes, *self.routes()], words))

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.show, operation=SHOW)]

    async def show(self, _request: Request) -> Answer:
        return Answer(200, self._body, JSON)


def document(info: Mapping[str, Any], routes: Sequence[Route], words: Words) -> dict[str, Any]:
    """Returns the OpenAPI document of these routes; raises ValueError for one without an operation."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.operation is None:
            raise ValueError(f"{route.method} {route.path} has no operation: give its Route one")
        described = _operation(route, route.operation, words.parts)
        paths.setdefault(route.path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": words.shapes,
            "responses": {_named(status): _refusal(status) for status in HTTPStatus if status >= 400},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _operation(route: Route, operation: Operation, parts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": _id_of(route),
        "x-listeners": sorted(route.roles),
        "security": [{key: []} if key else {} for key in operation.keys],
        "parameters": [*_path_parts(route.path, parts), *map(_parameter, operation.parameters)],
        "responses": {str(status): _answer(status, by) for status, by in operation.answers.items()},
    }
    for status in refusals_of(route, operation):
        found["responses"].setdefault(
            str(status), {"$ref": f"#/components/responses/{_named(HTTPStatus(status))}"}
        )
    if operation.body is not None:
        found["requestBody"] = {"required": operation.body_required, "content": _content(operation.body)}
    return found


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
    """Returns `get_messages_id_status` for `GET /v1/messages/{id}/status`."""
    words = re.findall(r"[a-z]+", route.path.removeprefix("/v1"))
    return "_".join([route.method.lower(), *words])


def _path_parts(path: str, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": parts[name]} for name in _PART.findall(path)
    ]


def _parameter(parameter: Parameter) -> dict[str, Any]:
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
