"""Clients that take their time, or come in crowds: each occupies what it may, and no more."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

import pytest
import trustme

from gateway.http.answers import Answer, Stream
from gateway.http.request import Request
from gateway.http.routing import Route
from tests.receive.doorway import LIMITS, MANNERS, Wire, doorway, get, head, post, until

MOMENT_SECONDS = 0.1  # the limit a test waits for
LONG_SECONDS = 60.0  # every other limit, so that it cannot be what ends the test
PATIENT = replace(
    LIMITS, head_seconds=LONG_SECONDS, body_seconds=LONG_SECONDS, keep_alive_seconds=LONG_SECONDS
)
LARGE = b"x" * 20_000_000  # more than the buffers of both ends of a connection hold


async def take(request: Request) -> Answer:
    return Answer(202, await request.body(1_000_000))


async def give(request: Request) -> Answer:
    return Answer(200, LARGE)


async def gush(request: Request) -> Stream:
    async def items() -> AsyncGenerator[bytes, None]:
        while True:
            yield LARGE

    return Stream(items())


ROUTES = [
    Route("POST", "/take", take),
    Route("GET", "/give", give),
    Route("GET", "/gush", gush),
    Route("GET", "/take", take),
]


async def trickle(wire: Wire, byte: bytes) -> bytes:
    """Send a byte now and then until the door hangs up; what it said."""
    heard = asyncio.create_task(wire.rest())
    while not heard.done():
        try:
            await wire.send(byte)
        except ConnectionError:
            return await heard
        await asyncio.wait([heard], timeout=MOMENT_SECONDS / 10)
    return heard.result()


async def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, head_seconds=MOMENT_SECONDS)) as opened:
        assert await (await opened.wire()).rest() == b""


async def test_a_client_that_never_begins_its_tls_is_hung_up_on() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("gateway.test").configure_cert(context)
    async with doorway(ROUTES, limits=replace(PATIENT, head_seconds=MOMENT_SECONDS), tls=context) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize("start", [b"GET /", get("/take")[:-2] + b"X-Slow: "])
async def test_a_head_that_trickles_in_is_not_waited_for(start: bytes) -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, head_seconds=MOMENT_SECONDS)) as opened:
        wire = await opened.wire()
        await wire.send(start)
        assert await trickle(wire, b"a") == b""


async def test_the_head_of_a_further_request_has_no_more_time_than_the_first() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, head_seconds=MOMENT_SECONDS)) as opened:
        wire = await opened.wire()
        assert (await wire.ask(post("/take", b"{}"))).status == 202
        await wire.send(b"GET /")
        assert await trickle(wire, b"a") == b""


async def test_an_idle_connection_is_closed_and_one_in_use_is_not() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, keep_alive_seconds=MOMENT_SECONDS)) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/take", "Content-Length: 5"))
        idle = await opened.wire()
        assert (await idle.ask(get("/take"))).status == 202
        assert await idle.rest() == b""
        assert (await wire.ask(b"hello")).body == b"hello"


async def test_a_body_that_stops_coming_is_not_waited_for() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, body_seconds=MOMENT_SECONDS)) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/take", "Content-Length: 5") + b"hell")
        assert await wire.rest() == b""
        assert opened.door.load.bodies.taken == 0
        assert (await opened.ask(post("/take", b"{}"))).status == 202


async def test_a_body_that_only_trickles_in_is_not_waited_for_either() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, body_seconds=MOMENT_SECONDS / 2)) as opened:
        wire = await opened.wire()
        await wire.send(head("POST", "/take", "Content-Length: 100000"))
        assert await trickle(wire, b"a") == b""


@pytest.mark.parametrize("path", ["/give", "/gush"])
async def test_a_client_that_does_not_take_its_answer_is_hung_up_on(path: str) -> None:
    manners = replace(MANNERS, write_seconds=MOMENT_SECONDS)
    async with doorway(ROUTES, limits=PATIENT, manners=manners) as opened:
        wire = await opened.wire()
        await wire.send(get(path))
        await asyncio.wait_for(opened.door.load.empty.wait(), 5)


async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it() -> None:
    manners = replace(MANNERS, write_seconds=MOMENT_SECONDS)
    async with doorway(ROUTES, limits=PATIENT, manners=manners) as opened:
        wire = await opened.wire()
        await wire.send(get("/give"))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        left = len(LARGE)
        while left:
            left -= len(await wire.reader.readexactly(min(left, len(LARGE) // 10)))
            await asyncio.wait(
                [asyncio.ensure_future(opened.door.load.empty.wait())], timeout=MOMENT_SECONDS / 2
            )


async def test_a_refused_client_that_goes_on_sending_is_cut_off() -> None:
    manners = replace(MANNERS, linger_seconds=MOMENT_SECONDS)
    async with doorway(ROUTES, limits=PATIENT, manners=manners) as opened:
        wire = await opened.wire()
        await wire.send(b"nonsense\r\n\r\n")
        assert (await wire.reply()).status == 400
        with suppress(ConnectionError):
            while not opened.door.load.empty.is_set():
                await wire.send(b"x" * 65_536)
        await asyncio.wait_for(opened.door.load.empty.wait(), 5)


async def test_one_address_may_hold_its_share_of_connections() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, connections=30, address_share_percent=10)) as opened:
        held = [await opened.wire() for _ in range(3)]
        assert (await held[2].ask(get("/take"))).status == 202
        refused = await opened.ask(b"")
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.headers["retry-after"] == "1"
        assert await opened.wires[-1].rest() == b""
        assert opened.diary.refused == [("address", "127.0.0.1")]
        held[0].close()
        await until(lambda: opened.door.load.connections == 2)
        assert (await opened.ask(get("/take"))).status == 202


async def test_all_together_may_hold_so_many_connections() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, connections=2)) as opened:
        held = [await opened.wire() for _ in range(2)]
        assert (await held[1].ask(get("/take"))).status == 202
        assert (await (await opened.wire("127.0.0.2")).ask(b"")).status == 503


async def test_a_crowd_of_idle_connections_does_not_keep_others_waiting() -> None:
    async with doorway(ROUTES, limits=PATIENT) as opened:
        crowd = [await opened.wire() for _ in range(400)]
        for wire in crowd:
            await wire.send(b"P")
        assert (await opened.ask(post("/take", b"{}"))).status == 202
        assert opened.door.load.connections == 401


def head_of_size(size: int, *, ended: bool = True) -> bytes:
    """A head of this many bytes, in many headers of a size that each may have."""
    begun = get("/take")[:-2]
    lines: list[bytes] = []
    while size - len(begun) - sum(map(len, lines)) > 8000:
        lines.append(b"X-%d: %s\r\n" % (len(lines), b"x" * 5000))
    rest = size - len(begun) - sum(map(len, lines))
    lines.append(b"X-Rest: " + b"x" * (rest - 12) + (b"\r\n\r\n" if ended else b"xxxx"))
    return begun + b"".join(lines)


async def test_a_large_head_is_taken_and_a_larger_one_refused() -> None:
    async with doorway(ROUTES, limits=PATIENT) as opened:
        wire = await opened.wire()
        for _ in range(2):
            assert (await wire.ask(head_of_size(60_000))).status == 202
        refused = await wire.ask(head_of_size(80_000))
        assert (refused.status, refused.code) == (400, "INVALID_MESSAGE_FORMAT")
        assert "65536 bytes" in refused.json["error"]["message"]


async def test_a_head_that_grows_without_end_is_refused_before_it_ends() -> None:
    async with doorway(ROUTES, limits=PATIENT) as opened:
        wire = await opened.wire()
        endless = head_of_size(80_000, ended=False)
        for begin in range(0, len(endless), 10_000):
            await wire.send(endless[begin : begin + 10_000])
        assert (await wire.reply()).status == 400
        assert await wire.rest() == b""


async def test_the_bytes_of_a_body_are_not_counted_as_a_head() -> None:
    async with doorway(ROUTES, limits=PATIENT) as opened:
        wire = await opened.wire()
        asked = head("POST", "/take", "Content-Length: 300000")
        for _ in range(2):
            await wire.send(asked)
            for _ in range(30):
                await wire.send(b"x" * 10_000)
            assert (await wire.reply()).status == 202
        for _ in range(2):
            await wire.send(asked + b"x" * 300_000 + get("/take")[:10])
            await wire.send(get("/take")[10:])
            assert [(await wire.reply()).status for _ in range(2)] == [202, 202]
