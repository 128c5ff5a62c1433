"""Line breaks and other breakouts in whatever reaches a header of an answer or a line of the log."""

import pytest

from gateway.http.answers import Answer
from gateway.http.request import Request
from gateway.http.routing import Route
from tests.receive.doorway import doorway, get, head

EVIL = "x\r\nX-Evil: 1\r\n\r\n<html>"


async def fine(request: Request) -> Answer:
    return Answer(200, b"{}")


async def careless_value(request: Request) -> Answer:
    return Answer(200, b"{}", headers=(("Location", EVIL),))


async def careless_name(request: Request) -> Answer:
    return Answer(200, b"{}", headers=((EVIL, "y"),))


async def careless_type(request: Request) -> Answer:
    return Answer(200, b"{}", EVIL)


async def beyond_ascii(request: Request) -> Answer:
    return Answer(200, b"{}", headers=(("Location", "caf\u00e9\u2028"),))


ROUTES = [
    Route("GET", "/fine", fine),
    Route("GET", "/things/{name}", fine),
    Route("GET", "/value", careless_value),
    Route("GET", "/name", careless_name),
    Route("GET", "/type", careless_type),
    Route("GET", "/ascii", beyond_ascii),
]


@pytest.mark.parametrize("path", ["/value", "/name", "/type", "/ascii"])
async def test_no_handler_can_break_out_of_a_header_line(path: str) -> None:
    async with doorway(ROUTES) as opened:
        reply = await opened.ask(get(path))
        assert (reply.status, reply.code) == (500, "TEMPORARY_FAILURE")
        assert "x-evil" not in reply.headers
        assert [type(error) for _, _, error in opened.diary.failed] == [ValueError]


@pytest.mark.parametrize(
    "given", ["", "a b", "a\tb", "a;b", "a,b", 'a"b', "<script>", "a%0d%0ab", "\xe9", "\x1b[31m", "a" * 129]
)
async def test_a_request_id_that_could_break_a_log_line_is_replaced(given: str) -> None:
    async with doorway(ROUTES) as opened:
        reply = await opened.ask(get("/fine", f"X-Request-ID: {given}"))
        assert reply.headers["x-request-id"] != given
        assert reply.headers["x-request-id"].isalnum()


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "a" * 128])
async def test_a_good_request_id_is_kept(given: str) -> None:
    async with doorway(ROUTES) as opened:
        assert (await opened.ask(get("/fine", f"X-Request-ID: {given}"))).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /<evil>\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"EVIL / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nev il<: 1\r\n\r\n",
        b"GET /" + b"evil" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        get("/evil"),
        get("/evil%0d%0aX-Evil:%201"),
        head("OPTIONS", "/evil"),
        get("/fine?evil=1&evil=2"),
        get("/things/evil%00"),
    ],
)
async def test_what_is_refused_is_not_echoed(raw: bytes) -> None:
    async with doorway(ROUTES) as opened:
        reply = await opened.ask(raw)
        assert b"evil" not in reply.body.lower()
        assert "x-evil" not in reply.headers
        assert "text/html" not in reply.headers["content-type"]
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_the_watch_is_told_templates_and_never_what_a_client_wrote() -> None:
    async with doorway(ROUTES) as opened:
        await opened.ask(get("/things/a%20b?evil=1"))
        await opened.ask(get("/evil"))
        await opened.ask(b"EVIL / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert opened.diary.answered == [("GET", "/things/{name}", 200), ("GET", "-", 404), ("-", "-", 400)]
