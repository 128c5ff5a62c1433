"""Which route serves a request."""

import pytest

from gateway.http.answers import Answer
from gateway.http.request import Request
from gateway.http.roles import EVERYWHERE, Role, roles_of
from gateway.http.routing import Route, Router
from gateway.protocol.errors import AMTPError, Code


async def serve(request: Request) -> Answer:
    raise NotImplementedError


ROUTES = [
    Route("POST", "/v1/messages", serve),
    Route("GET", "/v1/messages", serve),
    Route("GET", "/v1/messages/{id}", serve),
    Route("GET", "/v1/messages/{id}/status", serve),
    Route("GET", "/v1/inbox/{address}", serve),
    Route("POST", "/v1/inbox/{address}/ack", serve),
    Route("DELETE", "/v1/inbox/{address}/{id}", serve),
    Route("GET", "/v1/admin/agents/{local}", serve, frozenset({Role.ADMIN})),
]
ROUTER = Router(ROUTES, EVERYWHERE)


def refusal(method: str, path: str, router: Router = ROUTER) -> AMTPError:
    with pytest.raises(AMTPError) as caught:
        router.match(method, path)
    return caught.value


@pytest.mark.parametrize(
    ("method", "path", "template", "params"),
    [
        ("POST", "/v1/messages", "/v1/messages", {}),
        ("GET", "/v1/messages/a.B_c:d-9", "/v1/messages/{id}", {"id": "a.B_c:d-9"}),
        ("GET", "/v1/messages/x/status", "/v1/messages/{id}/status", {"id": "x"}),
        ("GET", "/v1/inbox/a@b.test", "/v1/inbox/{address}", {"address": "a@b.test"}),
        ("GET", "/v1/inbox/a%2Bt%40b.test", "/v1/inbox/{address}", {"address": "a+t@b.test"}),
        ("GET", "/v1/inbox/a+t@b.test", "/v1/inbox/{address}", {"address": "a+t@b.test"}),
        ("GET", "/v1/inbox/a%2fb", "/v1/inbox/{address}", {"address": "a/b"}),
        ("GET", "/v1/inbox/%C3%A9@b.test", "/v1/inbox/{address}", {"address": "é@b.test"}),
        ("POST", "/v1/inbox/a@b.test/ack", "/v1/inbox/{address}/ack", {"address": "a@b.test"}),
        (
            "DELETE",
            "/v1/inbox/a@b.test/ack",
            "/v1/inbox/{address}/{id}",
            {"address": "a@b.test", "id": "ack"},
        ),
        ("HEAD", "/v1/messages", "/v1/messages", {}),
        ("HEAD", "/v1/inbox/a", "/v1/inbox/{address}", {"address": "a"}),
    ],
)
def test_a_path_finds_its_route_and_its_parameters_decoded(
    method: str, path: str, template: str, params: dict[str, str]
) -> None:
    route, found = ROUTER.match(method, path)
    assert (route.path, found) == (template, params)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "*",
        "/v1",
        "/v1/messages/",
        "//v1/messages",
        "/v1//messages",
        "/v1/./messages",
        "/v1/x/../messages",
        "/V1/messages",
        "/v1/%6dessages",
        "/v1/inbox/",
        "/v1/inbox//ack",
        "/v1/inbox/%00",
        "/v1/inbox/a%0d%0ab",
        "/v1/inbox/%7f",
        "/v1/inbox/%ff",
        "/v1/messages/a b",
        "/v1/messages/a%20b",
        "/v1/messages/a%2fb",
        "/v1/messages/" + "a" * 129,
    ],
)
def test_what_is_not_written_like_a_template_is_not_found(path: str) -> None:
    assert refusal("GET", path).code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/messages", ["GET", "HEAD", "OPTIONS", "POST"]),
        ("GET", "/v1/inbox/a/ack", ["DELETE", "OPTIONS", "POST"]),
        ("HEAD", "/v1/inbox/a/ack", ["DELETE", "OPTIONS", "POST"]),
    ],
)
def test_a_method_the_path_does_not_take_is_answered_with_those_it_takes(
    method: str, path: str, allow: list[str]
) -> None:
    error = refusal(method, path)
    assert (error.code, error.status, error.details) == (Code.METHOD_NOT_ALLOWED, 405, {"allow": allow})


def test_options_names_the_methods_of_a_path_and_those_of_the_listener() -> None:
    assert ROUTER.methods_at("/v1/messages/x") == ["GET", "HEAD", "OPTIONS"]
    assert ROUTER.methods_at("*") == ["DELETE", "GET", "HEAD", "OPTIONS", "POST"]
    with pytest.raises(AMTPError):
        ROUTER.methods_at("/nowhere")


def test_a_route_is_not_there_on_a_listener_of_another_role() -> None:
    public = Router(ROUTES, {Role.PUBLIC})
    assert refusal("GET", "/v1/admin/agents/a", public).code is Code.NOT_FOUND
    assert refusal("PUT", "/v1/admin/agents/a", public).code is Code.NOT_FOUND
    assert Router(ROUTES, {Role.ADMIN}).match("GET", "/v1/admin/agents/a")


def test_the_configuration_names_roles_one_by_one_or_all() -> None:
    assert roles_of(["public", "admin"]) == {Role.PUBLIC, Role.ADMIN}
    assert roles_of(["all"]) == EVERYWHERE


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/{id}"])
def test_two_handlers_for_one_method_and_path_are_a_mistake_found_at_start(path: str) -> None:
    with pytest.raises(ValueError, match="two routes"):
        Router([*ROUTES, Route("GET", path, serve)], EVERYWHERE)
