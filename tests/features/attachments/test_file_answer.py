"""Files through the door: in pieces, in and out, and never whole when they are not."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from gateway.features.attachments.blocks import BLOCK_BYTES, proven
from gateway.features.attachments.file_answer import answer_file
from gateway.http.answers import Answer, Stream, answer_json
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.net.pace import Pace
from gateway.protocol.errors import AMTPError, Code
from tests.receive.doorway import LIMITS, MANNERS, Doorway, Wire, doorway, get, head, post, until

MOMENT_SECONDS = 0.1
PACE = Pace(60.0, 1)
CONTENT = bytes(range(256)) * (3 * BLOCK_BYTES // 256) + b"end"


@dataclass
class Shop:
    """Serves one file, as good or bad as a test wants it, and takes others."""

    blocks: list[bytes] = field(default_factory=list)
    promised: bytes = CONTENT
    filename: str = "a.bin"
    closed: int = 0
    taken: list[int] = field(default_factory=list)
    failure: Exception | None = None
    pace: Pace = PACE
    pause: Callable[[], Awaitable[object]] | None = None

    def routes(self) -> list[Route]:
        return [Route("GET", "/file", self.give), Route("POST", "/file", self.take)]

    async def give(self, request: Request) -> Answer | Stream:
        return await answer_file(
            proven(self._read(), len(self.promised), hashlib.sha256(self.promised).digest()),
            filename=self.filename,
            content_type="text/html",
            size=len(self.promised),
        )

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            for block in self.blocks:
                yield block
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed += 1

    async def take(self, request: Request) -> Answer:
        self.taken = []
        async for piece in request.pieces(1_000_000, self.pace):
            self.taken.append(len(piece))
            if self.pause is not None:
                await self.pause()
        return answer_json({"size": sum(self.taken)})


def cut(content: bytes) -> list[bytes]:
    return [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]


async def heard(opened: Doorway, request: bytes) -> tuple[bytes, bytes]:
    """The head of an answer, and everything behind it until the door hangs up."""
    wire = await opened.wire()
    await wire.send(request)
    told, _, rest = (await wire.rest()).partition(b"\r\n\r\n")
    return told, rest


@pytest.mark.parametrize("content", [b"", b"small", CONTENT], ids=["empty", "small", "large"])
async def test_a_file_comes_whole_with_its_length_and_is_never_shown(content: bytes) -> None:
    shop = Shop(cut(content), content)
    async with doorway(shop.routes()) as opened:
        told, body = await heard(opened, get("/file", "Connection: close"))
    assert body == content
    for line in (
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/html",
        b"Content-Length: %d" % len(content),
        b"Content-Disposition: attachment; filename=\"a.bin\"; filename*=UTF-8''a.bin",
        b"X-Content-Type-Options: nosniff",
        b"Content-Security-Policy: sandbox; default-src 'none'",
    ):
        assert line in told.split(b"\r\n")
    assert shop.closed == 1


LIES = {
    "other bytes": [*cut(CONTENT)[:-1], b"END"],
    "too short": cut(CONTENT)[:-1],
    "too long": [*cut(CONTENT), b"more"],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_large_file_that_is_not_what_it_should_be_breaks_off(lie: str) -> None:
    shop = Shop(LIES[lie])
    async with doorway(shop.routes()) as opened:
        told, body = await heard(opened, get("/file"))
    assert b" 200 " in told
    assert b"Content-Length: %d" % len(CONTENT) in told
    assert len(body) < len(CONTENT)
    assert opened.diary.failed == []
    assert shop.closed == 1


async def test_a_small_file_that_is_not_what_it_should_be_is_an_error_before_its_first_byte() -> None:
    shop = Shop([b"lie"], b"yes")
    async with doorway(shop.routes()) as opened:
        reply = await opened.ask(get("/file"))
    assert (reply.status, reply.code) == (409, "CONFLICT")
    assert shop.closed == 1


async def test_a_fault_on_the_way_breaks_off_too_and_is_told_to_the_operator() -> None:
    shop = Shop(cut(CONTENT)[:-1], failure=ZeroDivisionError())
    async with doorway(shop.routes()) as opened:
        _, body = await heard(opened, get("/file"))
        assert len(body) < len(CONTENT)
        await until(lambda: opened.diary.failed)


async def test_a_head_alone_tells_the_length_and_leaves_nothing_open() -> None:
    shop = Shop(cut(CONTENT))
    async with doorway(shop.routes()) as opened:
        told, body = await heard(opened, head("HEAD", "/file"))
    assert b"Content-Length: %d" % len(CONTENT) in told
    assert body == b""
    assert shop.closed == 1


async def test_a_reader_who_leaves_closes_what_is_read() -> None:
    shop = Shop(cut(CONTENT * 50), CONTENT * 50)
    async with doorway(shop.routes()) as opened:
        wire = await opened.wire()
        await wire.send(get("/file"))
        await wire.reader.readexactly(1000)
        wire.close()
        await until(lambda: shop.closed)


async def test_a_file_on_its_way_is_sent_to_its_end_when_the_door_closes() -> None:
    shop = Shop(cut(CONTENT * 20), CONTENT * 20)
    async with doorway(shop.routes()) as opened:
        wire = await opened.wire()
        await wire.send(get("/file"))
        start = await wire.reader.readuntil(b"\r\n\r\n")
        closing = asyncio.create_task(opened.door.close(grace_seconds=10))
        assert len(await wire.rest()) == len(CONTENT) * 20
        await closing
    assert b" 200 " in start


async def test_a_body_comes_in_pieces() -> None:
    shop = Shop()
    async with doorway(shop.routes()) as opened:
        reply = await opened.ask(post("/file", b"x" * 900_000))
        assert reply.json == {"size": 900_000}
        assert max(shop.taken) <= 4 * MANNERS.read_bytes
        chunked = head("POST", "/file", "Transfer-Encoding: chunked") + b"4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n"
        assert (await opened.ask(chunked)).json == {"size": 7}


async def test_a_client_that_asks_whether_it_may_send_is_told() -> None:
    async with doorway(Shop().routes()) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/file", "Content-Length: 5", "Expect: 100-continue"))
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.ask(b"hello")).json == {"size": 5}


@pytest.mark.parametrize("framing", ["Content-Length: 1000001", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_too_large_is_refused_as_soon_as_that_is_known(framing: str) -> None:
    async with doorway(Shop().routes()) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/file", framing))
        if "chunked" in framing:
            await wire.send(b"f4241\r\n" + b"x" * 1_000_001)
        assert (await wire.reply()).code == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity"])
async def test_a_packed_body_is_not_unpacked(coding: str) -> None:
    async with doorway(Shop().routes()) as opened:
        reply = await opened.ask(post("/file", b"x" * 10, f"Content-Encoding: {coding}"))
    assert reply.status == 415


async def test_a_body_that_breaks_off_never_looks_whole() -> None:
    shop = Shop()
    async with doorway(shop.routes()) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/file", "Content-Length: 900000") + b"x" * 100_000)
        await until(lambda: sum(shop.taken) == 100_000)
        wire.close()
        await asyncio.wait_for(opened.door.load.empty.wait(), 5)
    assert opened.diary.answered == []
    assert opened.diary.failed == []


@asynccontextmanager
async def slow_wire(pace: Pace) -> AsyncGenerator[tuple[Doorway, Wire], None]:
    async with doorway(
        Shop(pace=pace).routes(), limits=replace(LIMITS, body_seconds=MOMENT_SECONDS)
    ) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/file", "Content-Length: 900000") + b"x" * 1000)
        yield opened, wire


async def test_a_body_that_stops_coming_is_not_waited_for() -> None:
    async with slow_wire(Pace(MOMENT_SECONDS, 1000)) as (opened, wire):
        assert await wire.rest() == b""
        assert opened.diary.answered == []


async def test_a_body_that_trickles_in_is_not_waited_for_for_ever() -> None:
    async with slow_wire(Pace(MOMENT_SECONDS, 1000)) as (_, wire):
        over = asyncio.create_task(wire.rest())
        while not over.done():
            try:
                await wire.send(b"x")
            except ConnectionError:
                break
            await asyncio.wait([over], timeout=MOMENT_SECONDS / 5)
        assert await over == b""


async def test_how_slowly_we_take_it_is_not_the_clients_fault() -> None:
    async def pause() -> None:
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=MOMENT_SECONDS)

    shop = Shop(pace=Pace(MOMENT_SECONDS, 10_000_000), pause=pause)
    async with doorway(shop.routes(), limits=replace(LIMITS, body_seconds=MOMENT_SECONDS)) as opened:
        reply = await opened.ask(post("/file", b"x" * 900_000))
    assert reply.json == {"size": 900_000}
    assert len(shop.taken) > 3


async def test_a_refusal_by_the_file_itself_is_an_answer() -> None:
    failure = AMTPError(Code.TEMPORARY_FAILURE, "not now")
    async with doorway(Shop([], b"x", failure=failure).routes()) as opened:
        assert (await opened.ask(get("/file"))).status == 503
