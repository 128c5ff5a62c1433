"""Requests that two servers could read in two ways: we read them in no way at all, and hang up.

Each attack carries a second request to /smuggled where the two readings differ. A handler must never see
it, whether the bytes come at once or one by one.
"""

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace

import pytest
import uvloop

from gateway.http.answers import Answer
from gateway.http.request import Request
from gateway.http.routing import Route
from tests.receive.doorway import DEADLINE_SECONDS, LIMITS, Diary, Doorway, doorway, replies_in

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
PLAIN = b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"


def message(*lines: bytes, body: bytes = b"", line: bytes = b"POST /plain HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: a", *lines, b"", b""]) + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    return message(b"Transfer-Encoding: chunked", *lines, body=body)


CHUNKED_SMUGGLER = b"0\r\n\r\n" + SMUGGLED
LENGTH = b"Content-Length: %d" % len(SMUGGLED)

REFUSED = {
    "both lengths": message(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=CHUNKED_SMUGGLER),
    "both lengths, other order": message(
        b"Transfer-Encoding: chunked", b"Content-Length: 4", body=CHUNKED_SMUGGLER
    ),
    "two lengths": message(b"Content-Length: 0", LENGTH, body=SMUGGLED),
    "two equal lengths": message(LENGTH, LENGTH, body=SMUGGLED),
    "list of lengths": message(b"Content-Length: 0, 5", body=SMUGGLED),
    "list of equal lengths": message(b"Content-Length: 5, 5", body=SMUGGLED),
    "length with plus": message(b"Content-Length: +0", body=SMUGGLED),
    "negative length": message(b"Content-Length: -1", body=SMUGGLED),
    "hexadecimal length": message(b"Content-Length: 0x5", body=SMUGGLED),
    "length with underscore": message(b"Content-Length: 1_0", body=SMUGGLED),
    "length with blank inside": message(b"Content-Length: 1 0", body=SMUGGLED),
    "length in words": message(b"Content-Length: ten", body=SMUGGLED),
    "empty length": message(b"Content-Length: ", body=SMUGGLED),
    "length beyond 64 bits": message(b"Content-Length: 18446744073709551616", body=SMUGGLED),
    "length in other digits": message("Content-Length: ٣".encode(), body=SMUGGLED),
    "coding twice": chunked(CHUNKED_SMUGGLER, b"Transfer-Encoding: chunked"),
    "coding and identity": chunked(CHUNKED_SMUGGLER, b"Transfer-Encoding: identity"),
    "chunked not last": message(b"Transfer-Encoding: chunked, identity", body=CHUNKED_SMUGGLER),
    "chunked over gzip": message(b"Transfer-Encoding: gzip, chunked", body=CHUNKED_SMUGGLER),
    "chunked twice in a list": message(b"Transfer-Encoding: chunked, chunked", body=CHUNKED_SMUGGLER),
    "unknown coding": message(b"Transfer-Encoding: xchunked", body=CHUNKED_SMUGGLER),
    "quoted coding": message(b'Transfer-Encoding: "chunked"', body=CHUNKED_SMUGGLER),
    "coding with parameter": message(b"Transfer-Encoding: chunked;q=1", body=CHUNKED_SMUGGLER),
    "coding identity": message(b"Transfer-Encoding: identity", body=SMUGGLED),
    "empty coding": message(b"Transfer-Encoding: ", body=SMUGGLED),
    "coding after vertical tab": message(b"Transfer-Encoding: \x0bchunked", body=CHUNKED_SMUGGLER),
    "coding after NUL": message(b"Transfer-Encoding: \x00chunked", body=CHUNKED_SMUGGLER),
    "coding on HTTP/1.0": message(
        b"Transfer-Encoding: chunked", body=CHUNKED_SMUGGLER, line=b"POST /plain HTTP/1.0"
    ),
    "kept alive HTTP/1.0 with coding": message(
        b"Connection: keep-alive",
        b"Transfer-Encoding: chunked",
        body=CHUNKED_SMUGGLER,
        line=b"POST /plain HTTP/1.0",
    ),
    "blank before colon": message(b"Transfer-Encoding : chunked", body=CHUNKED_SMUGGLER),
    "tab before colon": message(b"Content-Length\t: 0", body=SMUGGLED),
    "blank before name": message(b" Transfer-Encoding: chunked", body=CHUNKED_SMUGGLER),
    "folded value": message(b"Transfer-Encoding:\r\n chunked", body=CHUNKED_SMUGGLER),
    "folded name": message(b"X: y\r\n\tTransfer-Encoding: chunked", body=CHUNKED_SMUGGLER),
    "blank before the first header": b"GET /plain HTTP/1.1\r\n Host: a\r\n\r\n" + SMUGGLED,
    "bare LF in head": message(b"X: y\nTransfer-Encoding: chunked", body=CHUNKED_SMUGGLER),
    "bare LF everywhere": b"POST /plain HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + SMUGGLED,
    "bare LF ends the head": b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\n" + SMUGGLED,
    "bare CR in value": message(b"X: y\rTransfer-Encoding: chunked", body=CHUNKED_SMUGGLER),
    "bare CR in request line": b"GET /plain HTTP/1.1\rHost: a\r\n\r\n" + SMUGGLED,
    "NUL in value": message(b"X: \x00y", body=SMUGGLED),
    "NUL in name": message(b"X\x00: y", body=SMUGGLED),
    "no name": message(b": y", body=SMUGGLED),
    "no colon": message(b"Transfer-Encoding chunked", body=CHUNKED_SMUGGLER),
    "name with bracket": message(b"Transfer[Encoding: chunked", body=CHUNKED_SMUGGLER),
    "name with obs-text": message(b"Transfer\xe9Encoding: chunked", body=CHUNKED_SMUGGLER),
    "two hosts": message(b"Host: b", body=SMUGGLED, line=b"GET /plain HTTP/1.1"),
    "no host": b"GET /plain HTTP/1.1\r\nX: y\r\n\r\n" + SMUGGLED,
    "no version": b"GET /plain\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /plain HTTP/0.9\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/1.2": b"GET /plain HTTP/1.2\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/2.0": b"GET /plain HTTP/2.0\r\nHost: a\r\n\r\n" + SMUGGLED,
    "HTTP/1.10": b"GET /plain HTTP/1.10\r\nHost: a\r\n\r\n" + SMUGGLED,
    "http in small letters": b"GET /plain http/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "tab in request line": b"GET\t/plain HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "blank in target": b"GET /plain x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "fragment in target": b"GET /plain#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in target": b"GET /pl\xffain HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"SMUG /plain HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "method with small letters": b"get /plain HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "request inside a header that never ends": b"GET /plain HTTP/1.1\r\nHost: a\r\nX" + SMUGGLED,
    "no target": b"CONNECT \r\nHost: a\r\n\r\n" + SMUGGLED,
    "absolute form with a user": b"GET http://user@a/plain HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form that trips the parser": b"GET http://[::1]:8@ HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    "absolute form of another scheme": b"GET ftp://a/plain HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute form without a host": b"GET http:///plain HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunk size with sign": chunked(b"+0\r\n\r\n" + SMUGGLED),
    "chunk size with prefix": chunked(b"0x0\r\n\r\n" + SMUGGLED),
    "chunk size with blank before": chunked(b" 0\r\n\r\n" + SMUGGLED),
    "chunk size with blank after": chunked(b"0 \r\n\r\n" + SMUGGLED),
    "chunk size missing": chunked(b"\r\n\r\n" + SMUGGLED),
    "chunk size negative": chunked(b"-1\r\n\r\n" + SMUGGLED),
    "chunk size beyond 64 bits": chunked(b"10000000000000000\r\nab\r\n0\r\n\r\n" + SMUGGLED),
    "chunk size that ends in LF": chunked(b"0\n\r\n" + SMUGGLED),
    "chunk size that ends in CR": chunked(b"0\r\r\n" + SMUGGLED),
    "chunk longer than its size": chunked(b"1\r\nabc\r\n0\r\n\r\n" + SMUGGLED),
    "chunk that ends in LF": chunked(b"1\r\na\n0\r\n\r\n" + SMUGGLED),
    "chunk extension with LF": chunked(b"1;x\ny\r\na\r\n0\r\n\r\n" + SMUGGLED),
    "chunk extension with CR": chunked(b"1;x\ry\r\na\r\n0\r\n\r\n" + SMUGGLED),
    "trailer with LF": chunked(b"0\r\nX: y\n\r\n" + SMUGGLED),
    "end of chunks with LF": chunked(b"0\r\n\n" + SMUGGLED),
}

# The first request is beyond doubt and may be answered; nothing behind it is.
LAST = {
    "behind Connection: close": message(b"Connection: close", line=b"GET /plain HTTP/1.1") + SMUGGLED,
    "behind HTTP/1.0": b"GET /plain HTTP/1.0\r\n\r\n" + SMUGGLED,
    "behind a chunked body": chunked(CHUNKED_SMUGGLER),
    "behind a chunked body with trailers": chunked(b"0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n" + SMUGGLED),
    "behind an upgrade to websocket": message(
        b"Connection: upgrade", b"Upgrade: websocket", line=b"GET /plain HTTP/1.1"
    )
    + SMUGGLED,
    "behind an upgrade to h2c": message(b"Connection: upgrade", b"Upgrade: h2c", line=b"GET /plain HTTP/1.1")
    + SMUGGLED,
    "behind CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + SMUGGLED,
    "behind a body that nobody reads": message(LENGTH, line=b"GET /plain HTTP/1.1") + SMUGGLED[:-1],
    "garbage": PLAIN + b"\x00\x01garbage\r\n\r\n" + SMUGGLED,
    "behind a body that is too long": message(b"Content-Length: 1", body=b"ab") + SMUGGLED,
}

# What is a body stays a body.
INSIDE = {
    "a request in a body": (message(LENGTH, body=SMUGGLED), SMUGGLED),
    "a request in a chunk": (chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)), SMUGGLED),
    "chunks under a length": (message(b"Content-Length: 5", body=b"0\r\n\r\n"), b"0\r\n\r\n"),
    "a request behind an invitation": (message(b"Expect: 100-continue", LENGTH, body=SMUGGLED), SMUGGLED),
    "a request after an override": (
        message(b"X-HTTP-Method-Override: GET", LENGTH, body=SMUGGLED),
        SMUGGLED,
    ),
    "a coding in disguise": (message(b"Transfer_Encoding: chunked", LENGTH, body=SMUGGLED), SMUGGLED),
    "coding in capitals": (chunked(b"0\r\n\r\n").replace(b"chunked", b"CHUNKED"), b""),
}


class Sight:
    """What the handlers saw."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []

    async def look(self, request: Request) -> Answer:
        body = await request.body(10_000) if request.method == "POST" else b""
        self.requests.append((request.path, body))
        return Answer(
            200, b"{}", headers=(("X-Forwarded", ",".join(request.header_values("X-Forwarded-For"))),)
        )

    @property
    def routes(self) -> list[Route]:
        paths = ("/plain", "/smuggled")
        return [Route(method, path, self.look) for method in ("GET", "POST") for path in paths]


Exchange = tuple[list[int], Sight, Diary]


def exchange(loop: str, raw: bytes, *, at_once: bool) -> Exchange:
    """Send these bytes on a connection of their own; the statuses answered until the door hangs up."""

    async def run() -> Exchange:
        sight = Sight()
        async with doorway(sight.routes, limits=replace(LIMITS, keep_alive_seconds=0.1)) as opened:
            statuses = await talk(opened, raw, at_once=at_once)
            return statuses, sight, opened.diary

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(run())


async def talk(opened: Doorway, raw: bytes, *, at_once: bool) -> list[int]:
    heard = await converse(opened.port, [raw] if at_once else [raw[i : i + 1] for i in range(len(raw))])
    replies = await replies_in(heard)
    for reply in replies:
        if reply.status >= 400:
            assert reply.code
            assert b"smuggled" not in reply.body
    return [reply.status for reply in replies if reply.status != 100]


async def converse(port: int, pieces: list[bytes]) -> bytes:
    """Send and hear at once: a reset for what we send too much would take the answers we have not read."""
    loop = asyncio.get_running_loop()
    heard = bytearray()

    async def hear() -> None:
        with suppress(ConnectionError):
            while data := await loop.sock_recv(wire, 65_536):
                heard.extend(data)

    async with asyncio.timeout(DEADLINE_SECONDS):
        with socket.socket() as wire:
            wire.setblocking(False)
            await loop.sock_connect(wire, ("127.0.0.1", port))
            hearing = asyncio.create_task(hear())
            with suppress(ConnectionError):
                for piece in pieces:
                    await loop.sock_sendall(wire, piece)
                    await asyncio.sleep(0)
            await hearing
    return bytes(heard)


loops = pytest.mark.parametrize("loop", LOOPS)
ways = pytest.mark.parametrize("at_once", [True, False], ids=["at once", "byte by byte"])


@loops
@ways
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_in_doubt_is_refused_and_hung_up_on(loop: str, at_once: bool, name: str) -> None:
    statuses, sight, _ = exchange(loop, REFUSED[name], at_once=at_once)
    assert statuses == [400]
    assert sight.requests == []


@loops
@ways
@pytest.mark.parametrize("name", LAST)
def test_nothing_is_read_behind_the_last_request(loop: str, at_once: bool, name: str) -> None:
    statuses, sight, _ = exchange(loop, LAST[name], at_once=at_once)
    assert statuses
    assert {path for path, _ in sight.requests} <= {"/plain"}
    assert len(sight.requests) <= 1


@loops
@ways
@pytest.mark.parametrize("name", INSIDE)
def test_what_is_a_body_stays_a_body(loop: str, at_once: bool, name: str) -> None:
    raw, body = INSIDE[name]
    statuses, sight, _ = exchange(loop, raw, at_once=at_once)
    assert statuses == [200]
    assert sight.requests == [("/plain", body)]


@loops
@ways
def test_the_oracle_sees_a_second_request_where_there_is_one(loop: str, at_once: bool) -> None:
    statuses, sight, diary = exchange(loop, PLAIN + SMUGGLED, at_once=at_once)
    assert statuses == [200, 200]
    assert [path for path, _ in sight.requests] == ["/plain", "/smuggled"]
    assert [path for _, path, _ in diary.answered] == ["/plain", "/smuggled"]


@loops
def test_trailers_of_one_request_are_no_headers_of_the_next(loop: str) -> None:
    """A proxy that reuses its connections would hand somebody else's request the sender's headers."""

    async def run() -> None:
        sight = Sight()
        async with doorway(sight.routes) as opened:
            wire = await opened.wire()
            await wire.send(chunked(b"0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"))
            first = await wire.reply()
            assert (first.status, first.headers["connection"]) == (200, "close")
            with suppress(ConnectionError):
                await wire.send(PLAIN)
            assert await wire.rest() == b""
        assert sight.requests == [("/plain", b"")]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(run())


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(REFUSED) + len(LAST) + len(INSIDE) >= 40
