"""The HTTP door from outside: what is asked, what is answered, what is refused, and how it closes."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import ip_network

import pytest
import trustme

from gateway.http.answers import Answer, Stream, answer_json
from gateway.http.limits import Manners
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.protocol.errors import AMTPError, Code
from tests.receive.doorway import LIMITS, MANNERS, Doorway, doorway, get, head, post, replies_in, until

BODY_MAX = 1000


async def echo(request: Request) -> Answer:
    return Answer(202, await request.body(BODY_MAX), "application/octet-stream")


async def take_json(request: Request) -> Answer:
    return Answer(202, await request.json_body(BODY_MAX))


async def describe(request: Request) -> Answer:
    return answer_json(
        {
            "path": request.path,
            "params": dict(request.params),
            "query": dict(request.query),
            "client": request.client,
            "request_id": request.request_id,
            "secure": request.secure,
            "via": request.header_values("Via"),
            "host": request.header("Host"),
        }
    )


async def stumble(request: Request) -> Answer:
    raise KeyError("a secret of the house")


async def refuse(request: Request) -> Answer:
    raise AMTPError(Code.RATE_LIMIT_EXCEEDED, "Slowly.", retry_after=7)


async def challenge(request: Request) -> Answer:
    raise AMTPError(Code.AUTHENTICATION_FAILED, "Who are you?")


ROUTES = [
    Route("POST", "/echo", echo),
    Route("POST", "/json", take_json),
    Route("POST", "/ignore", describe),
    Route("GET", "/v1/describe/{address}", describe),
    Route("GET", "/describe", describe),
    Route("GET", "/stumble", stumble),
    Route("GET", "/refuse", refuse),
    Route("GET", "/challenge", challenge),
    Route("GET", "/admin", describe, frozenset({Role.ADMIN})),
]


async def test_an_answer_carries_the_bytes_of_the_handler_and_the_heads_of_the_house() -> None:
    async with doorway(ROUTES) as opened:
        reply = await opened.ask(post("/echo", b"\x00\xff", content_type="x/y"))
        assert (reply.status, reply.body) == (202, b"\x00\xff")
        assert reply.headers["server"] == "AMTP/1.0 (amtp-gateway)"
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["date"].endswith("GMT")
        assert "strict-transport-security" not in reply.headers
        assert "connection" not in reply.headers
        assert opened.diary.answered == [("POST", "/echo", 202)]


async def test_a_handler_sees_the_request_as_it_was_meant() -> None:
    async with doorway(ROUTES) as opened:
        raw = get(
            "/v1/describe/a+t%40b.test?since=2026-01-01T00:00:00+01:00&limit=5&empty", "Via: a", "Via: b"
        )
        seen = (await opened.ask(raw)).json
        assert seen["params"] == {"address": "a+t@b.test"}
        assert seen["query"] == {"since": "2026-01-01T00:00:00+01:00", "limit": "5", "empty": ""}
        assert (seen["client"], seen["secure"]) == ("127.0.0.1", False)
        assert (seen["via"], seen["host"]) == (["a", "b"], "gateway.test")


async def test_requests_on_one_connection_are_answered_in_order_also_when_they_come_at_once() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        await wire.send(b"".join(post("/echo", b"%d" % number) for number in range(100)))
        for number in range(100):
            assert (await wire.reply()).body == b"%d" % number


async def test_the_absolute_form_of_a_target_is_read_like_the_other() -> None:
    async with doorway(ROUTES) as opened:
        assert (await opened.ask(get("http://elsewhere.test/describe?a=b"))).json["query"] == {"a": "b"}
        assert (await opened.ask(get("HTTP://elsewhere.test?a=b"))).code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (get("/nowhere"), 404, Code.NOT_FOUND),
        (head("DELETE", "/describe"), 405, Code.METHOD_NOT_ALLOWED),
        (head("OPTIONS", "/nowhere"), 404, Code.NOT_FOUND),
        (get("/v1/describe/a", "X-AMTP-Version: 2.0"), 400, Code.UNSUPPORTED_VERSION),
        (get("/v1/nowhere", "X-AMTP-Version: 2.0"), 400, Code.UNSUPPORTED_VERSION),
        (get("/describe?a=1&a=2"), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe?a=%ff"), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe?a=%00"), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe?a=%0d%0aX-Evil:1"), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe", "Via: \xff\xfe"), 400, Code.INVALID_MESSAGE_FORMAT),
        (post("/json", b"{}", content_type="text/plain"), 415, Code.UNSUPPORTED_MEDIA_TYPE),
        (
            post("/json", b"{}", content_type="application/json; charset=latin-1"),
            415,
            Code.UNSUPPORTED_MEDIA_TYPE,
        ),
        (head("POST", "/json", "Content-Length: 2") + b"{}", 415, Code.UNSUPPORTED_MEDIA_TYPE),
        (post("/echo", b"{}", "Content-Encoding: gzip"), 415, Code.UNSUPPORTED_MEDIA_TYPE),
        (post("/echo", b"{}", "Content-Encoding: identity"), 415, Code.UNSUPPORTED_MEDIA_TYPE),
        (post("/echo", b"x" * (BODY_MAX + 1)), 413, Code.MESSAGE_TOO_LARGE),
        (get("/refuse"), 429, Code.RATE_LIMIT_EXCEEDED),
        (get("/challenge"), 401, Code.AUTHENTICATION_FAILED),
        (get("/" + "x" * 9000), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe", "X-Long: " + "x" * 9000), 400, Code.INVALID_MESSAGE_FORMAT),
        (get("/describe", *[f"X-{n}: y" for n in range(200)]), 400, Code.INVALID_MESSAGE_FORMAT),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, Code.INVALID_MESSAGE_FORMAT),
    ],
)
async def test_every_refusal_carries_the_envelope(raw: bytes, status: int, code: Code) -> None:
    async with doorway(ROUTES) as opened:
        reply = await opened.ask(raw)
        assert (reply.status, reply.code) == (status, code)
        assert opened.diary.answered[-1][2] == status


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [("/refuse", "retry-after", "7"), ("/challenge", "www-authenticate", "Bearer")],
)
async def test_an_error_brings_the_header_http_asks_for(path: str, name: str, value: str) -> None:
    async with doorway(ROUTES) as opened:
        assert (await opened.ask(get(path))).headers[name] == value


async def test_options_and_a_wrong_method_name_the_right_ones() -> None:
    async with doorway(ROUTES) as opened:
        options = await opened.ask(head("OPTIONS", "/describe"))
        assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert "content-length" not in options.headers
        assert (await opened.ask(head("OPTIONS", "*"))).headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert (await opened.ask(head("PUT", "/echo"))).headers["allow"] == "OPTIONS, POST"


async def test_head_is_the_answer_of_get_without_its_body() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        await wire.send(head("HEAD", "/describe"))
        bare = await wire.reply(bodiless=True)
        full = await wire.ask(get("/describe"))
        assert bare.status == 200
        assert bare.headers.keys() == full.headers.keys()
        assert int(bare.headers["content-length"]) == len(full.body)


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"']
)
async def test_json_is_recognised_as_clients_write_it(content_type: str) -> None:
    async with doorway(ROUTES) as opened:
        assert (await opened.ask(post("/json", b"{}", content_type=content_type))).status == 202


async def test_a_body_may_come_in_chunks_and_is_then_the_last_of_its_connection() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        reply = await wire.ask(
            head("POST", "/echo", "Transfer-Encoding: chunked") + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"
        )
        assert (reply.body, reply.headers["connection"]) == (b"abc", "close")
        assert await wire.rest() == b""


async def test_a_body_may_come_in_many_pieces_and_keeps_its_connection() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/echo", "Content-Length: 5"))
        for byte in b"hello":
            await wire.send(bytes([byte]))
        assert (await wire.reply()).body == b"hello"
        assert (await wire.ask(get("/describe"))).status == 200


async def test_a_chunked_body_that_grows_too_large_is_refused() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/echo", "Transfer-Encoding: chunked") + b"ffff\r\n" + b"x" * BODY_MAX)
        await wire.send(b"x")
        reply = await wire.reply()
        assert (reply.status, reply.code, reply.headers["connection"]) == (413, "MESSAGE_TOO_LARGE", "close")
        assert await wire.rest() == b""


async def test_a_client_that_asks_first_is_invited_or_refused_before_it_sends() -> None:
    async with doorway(ROUTES) as opened:
        invited = await opened.wire()
        await invited.send(head("POST", "/echo", "Expect: 100-continue", "Content-Length: 2"))
        assert (await invited.reply()).status == 100
        assert (await invited.ask(b"ab")).body == b"ab"
        refused = await opened.ask(head("POST", "/echo", "Expect: 100-continue", "Content-Length: 9999"))
        assert (refused.status, refused.headers["connection"]) == (413, "close")


async def test_a_large_refused_body_does_not_destroy_the_answer() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        wire.writer.write(head("POST", "/echo", "Content-Length: 8000000") + b"x" * 4_000_000)
        assert (await wire.reply()).code == "MESSAGE_TOO_LARGE"


async def test_a_body_nobody_read_ends_the_connection() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        reply = await wire.ask(head("POST", "/ignore", "Content-Length: 5"))
        assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_bodies_in_flight_are_bounded_and_counted_back() -> None:
    limits = replace(LIMITS, bodies_in_flight_bytes=10)
    async with doorway(ROUTES, limits=limits) as opened:
        holder = await opened.wire()
        await holder.send(head("POST", "/echo", "Content-Length: 8") + b"x" * 7)
        await until(lambda: opened.door.load.bodies.taken == 7)
        late = await opened.wire()
        await late.send(head("POST", "/echo", "Content-Length: 5"))
        full = await late.ask(b"y" * 4)
        assert (full.status, full.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert int(full.headers["retry-after"]) >= 1
        assert (await holder.ask(b"x")).status == 202
        assert (
            await opened.ask(post("/echo", b"y" * 10))
        ).status == 202  # it came whole and is waited for by nobody
        assert opened.door.load.bodies.taken == 0


async def test_a_bug_is_told_the_operator_and_not_the_client() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        reply = await wire.ask(get("/stumble", "X-Request-ID: my.id-1"))
        assert (reply.status, reply.code) == (500, "TEMPORARY_FAILURE")
        assert b"secret" not in reply.body
        [(request_id, path, error)] = opened.diary.failed
        assert (request_id, path, type(error)) == ("my.id-1", "/stumble", KeyError)
        assert (await wire.ask(get("/describe"))).status == 200


async def test_a_listener_answers_what_its_roles_name() -> None:
    async with doorway(ROUTES, roles=frozenset({Role.PUBLIC})) as opened:
        assert (await opened.ask(get("/admin"))).code == "NOT_FOUND"
    async with doorway(ROUTES, roles=frozenset({Role.ADMIN})) as opened:
        assert (await opened.ask(get("/admin"))).status == 200


async def test_the_clients_address_is_taken_from_a_proxy_only_where_it_is_trusted() -> None:
    raw = get("/describe", "X-Forwarded-For: 192.0.2.66, 203.0.113.9", "X-Forwarded-For: 10.0.0.1")
    async with doorway(ROUTES) as opened:
        assert (await opened.ask(raw)).json["client"] == "127.0.0.1"
    trusted = [ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")]
    async with doorway(ROUTES, trusted=trusted) as opened:
        assert (await opened.ask(raw)).json["client"] == "203.0.113.9"


async def test_a_changed_configuration_counts_from_the_next_connection() -> None:
    async with doorway(ROUTES) as opened:
        opened.door.adopt(replace(LIMITS, connections=0), [])
        assert (await opened.ask(b"")).code == "QUEUE_FULL"


async def test_tls_listeners_promise_to_stay_with_tls() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("gateway.test").configure_cert(context)
    async with doorway(ROUTES, tls=context) as opened:
        reply = await opened.ask(get("/describe"))
        assert reply.headers["strict-transport-security"].startswith("max-age=")
        assert reply.json["secure"] is True
        wire = await opened.wire()
        wire.writer.write(head("POST", "/echo", "Content-Length: 8000000") + b"x" * 1_000_000)
        assert (await wire.reply()).code == "MESSAGE_TOO_LARGE"


class Ticker:
    """Serves a stream that is fed by hand."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def serve(self, request: Request) -> Stream:
        return Stream(self._items())

    async def _items(self) -> AsyncGenerator[bytes, None]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()

    @property
    def routes(self) -> list[Route]:
        return [Route("GET", "/events", self.serve), *ROUTES]


async def listening(opened: Doorway) -> asyncio.StreamReader:
    wire = await opened.wire()
    reply = await wire.ask(get("/events"))
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    assert reply.headers["connection"] == "close"
    return wire.reader


async def test_a_stream_sends_each_item_when_it_comes_and_ends_with_its_connection() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes) as opened:
        reader = await listening(opened)
        for item in (b"data: 1\n\n", b"data: 2\n\n"):
            ticker.items.put_nowait(item)
            assert await reader.readuntil(b"\n\n") == item
        ticker.items.put_nowait(None)
        assert await reader.read() == b""


async def test_a_silent_stream_says_that_it_lives() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes, manners=Manners(quiet_seconds=0.01)) as opened:
        reader = await listening(opened)
        assert await reader.readuntil(b"\n\n") == b": still here\n\n"


async def test_a_stream_whose_client_went_away_is_closed() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes) as opened:
        await listening(opened)
        opened.wires[0].close()
        await asyncio.wait_for(ticker.closed.wait(), 5)


async def test_a_stream_is_told_to_end_when_the_door_closes() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes) as opened:
        reader = await listening(opened)
        await opened.door.close(grace_seconds=5)
        assert ticker.closed.is_set()
        assert await reader.read() == b""


async def test_a_stream_that_fails_is_cut_and_told_the_operator() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes) as opened:
        reader = await listening(opened)
        ticker.items.put_nowait(KeyError("bug"))
        assert await reader.read() == b""
        assert [type(error) for _, _, error in opened.diary.failed] == [KeyError]


async def test_head_of_a_stream_opens_none() -> None:
    ticker = Ticker()
    async with doorway(ticker.routes) as opened:
        wire = await opened.wire()
        await wire.send(head("HEAD", "/events"))
        assert (await wire.reply(bodiless=True)).status == 200
        assert await wire.rest() == b""


class Gate:
    """A handler that works until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.gone: bool | None = None

    async def serve(self, request: Request) -> Answer:
        self.entered.set()
        await self.open.wait()
        self.gone = request.gone
        return Answer(200, b"{}")

    async def wait(self, request: Request) -> Answer:
        self.entered.set()
        await request.ending.wait()
        self.gone = request.gone
        self.open.set()
        return Answer(200, b"{}")

    @property
    def routes(self) -> list[Route]:
        return [Route("GET", "/work", self.serve), Route("GET", "/wait", self.wait), *ROUTES]


async def test_closing_answers_what_was_taken_and_hangs_up_on_the_idle() -> None:
    gate = Gate()
    async with doorway(gate.routes) as opened:
        idle, working = await opened.wire(), await opened.wire()
        assert (await idle.ask(get("/describe"))).status == 200
        await working.send(get("/work") + get("/describe"))
        await gate.entered.wait()
        closing = asyncio.create_task(opened.door.close(grace_seconds=5))
        assert await idle.rest() == b""
        assert not closing.done()
        gate.open.set()
        [reply] = await replies_in(await working.rest())
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        await closing
        with pytest.raises(ConnectionError):
            await opened.wire()


async def test_a_body_on_its_way_when_the_door_closes_is_still_answered() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/echo", "Content-Length: 4") + b"ab")
        await until(lambda: opened.door.load.bodies.taken == 2)
        closing = asyncio.create_task(opened.door.close(grace_seconds=5))
        await until(lambda: opened.door.load.closing)
        assert (await wire.ask(b"cd")).body == b"abcd"
        await closing


async def test_what_outlasts_the_grace_is_cut_off() -> None:
    gate = Gate()
    async with doorway(gate.routes) as opened:
        wire = await opened.wire()
        await wire.send(get("/work"))
        await gate.entered.wait()
        await opened.door.close(grace_seconds=0.05)
        assert await wire.rest() == b""


async def test_closing_under_load_answers_every_request_that_was_taken() -> None:
    taken: list[str] = []

    async def take(request: Request) -> Answer:
        await request.body(BODY_MAX)
        taken.append(request.request_id)
        await asyncio.sleep(0)
        return Answer(202, b"{}")

    answered: list[str] = []

    async def load(opened: Doorway, name: int) -> None:
        wire = await opened.wire()
        for number in range(100_000):
            try:
                reply = await wire.ask(post("/take", b"{}", f"X-Request-ID: {name}.{number}"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            answered.append(reply.headers["x-request-id"])
            if "connection" in reply.headers:
                return

    async with doorway([Route("POST", "/take", take)]) as opened:
        async with asyncio.TaskGroup() as group:
            for name in range(20):
                group.create_task(load(opened, name))
            await until(lambda: len(answered) > 200)
            await opened.door.close(grace_seconds=5)
        assert sorted(answered) == sorted(taken)
        assert opened.door.load.connections == 0


@pytest.mark.parametrize("hang_up", [True, False])
async def test_a_handler_that_waits_is_told_when_it_is_pointless(hang_up: bool) -> None:
    gate = Gate()
    async with doorway(gate.routes) as opened:
        wire = await opened.wire()
        await wire.send(get("/wait"))
        await gate.entered.wait()
        if hang_up:
            wire.close()
            await asyncio.wait_for(gate.open.wait(), 5)
        else:
            await opened.door.close(grace_seconds=5)
            assert (await wire.reply()).status == 200
        assert gate.gone is hang_up


async def test_a_request_whose_client_went_away_is_finished_and_counted_until_then() -> None:
    gate = Gate()
    async with doorway(gate.routes) as opened:
        wire = await opened.wire()
        await wire.send(get("/work"))
        await gate.entered.wait()
        wire.close()
        other = await opened.wire()
        assert (await other.ask(get("/describe"))).status == 200
        assert opened.door.load.connections == 2
        gate.open.set()
        await until(lambda: opened.door.load.connections == 1)
        assert gate.gone is True


async def test_a_body_whose_client_went_away_is_dropped() -> None:
    async with doorway(ROUTES, manners=MANNERS) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/echo", "Content-Length: 4") + b"ab")
        await until(lambda: opened.door.load.bodies.taken == 2)
        wire.close()
        await until(lambda: opened.door.load.connections == 0)
        assert opened.door.load.bodies.taken == 0
        assert opened.diary.failed == []
