"""Readers that take nothing, or take their time: what they cost, and who goes on beside them."""

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import trustme

from gateway.config.sections import LimitSettings
from gateway.http.answers import Answer, Stream
from gateway.http.request import Request
from gateway.http.routing import Route
from tests.receive.doorway import LIMITS, MANNERS, Doorway, Wire, doorway, get, head, until
from tests.stories.test_inbox import listed
from tests.world import Agent, Gateway, World

MEGABYTE = 1_000_000
LARGE_BYTES = 20 * MEGABYTE  # more than the buffers of both ends of a connection hold
ROOM_BYTES = 40 * MEGABYTE
MOMENT_SECONDS = 0.1
PATIENCE_SECONDS = 30.0


async def give(request: Request) -> Answer:
    return Answer(200, bytes(LARGE_BYTES))


async def give_and_wait(request: Request) -> Stream:
    async def items() -> AsyncGenerator[bytes, None]:
        yield bytes(LARGE_BYTES)
        await asyncio.Event().wait()

    return Stream(items())


ROUTES = [Route("GET", "/give", give), Route("GET", "/stream", give_and_wait)]


async def reader_of(opened: Doorway, address: str, path: str = "/give") -> Wire:
    """A client of this address that has asked, and takes no more than its buffers do."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    end.setblocking(False)
    end.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", opened.port))
    reader, writer = await asyncio.open_connection(sock=end, limit=1024)
    opened.wires.append(Wire(reader, writer))
    await opened.wires[-1].send(get(path))
    return opened.wires[-1]


async def test_a_client_that_takes_less_than_the_least_rate_is_hung_up_on() -> None:
    manners = replace(MANNERS, write_seconds=5 * MOMENT_SECONDS)
    limits = replace(LIMITS, bytes_per_second_min=50 * MEGABYTE)
    async with doorway(ROUTES, limits=limits, manners=manners) as opened:
        assert await trickle(await opened.wire()) < LARGE_BYTES
        assert opened.diary.cut == ["slow"]


async def trickle(wire: Wire) -> int:
    """Asks, and takes a little now and then; returns how much came before the connection ended."""
    taken = 0
    await wire.send(get("/give", "Connection: close"))
    with suppress(ConnectionError):
        while piece := await wire.reader.read(65_536):
            taken += len(piece)
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=MOMENT_SECONDS / 10)
    return taken


async def test_where_there_is_no_more_room_the_slowest_reader_makes_it() -> None:
    """The first takes nothing, the second came later; whoever takes what is written gets all of it."""
    limits = LimitSettings(
        unsent_bytes=3 * LARGE_BYTES // 2, address_share_percent=70, unproven_share_percent=100
    )
    async with doorway(ROUTES, limits=limits) as opened:
        first = await reader_of(opened, "127.0.0.2")
        await until(lambda: opened.door.load.unsent.size > LARGE_BYTES // 2)
        second = await reader_of(opened, "127.0.0.3")
        assert len(await first.rest()) < LARGE_BYTES
        assert opened.diary.cut == ["crowded"]
        assert len(await second.rest_of(LARGE_BYTES)) == LARGE_BYTES


async def test_one_address_makes_room_for_itself_and_costs_no_other() -> None:
    limits = LimitSettings(
        unsent_bytes=10 * LARGE_BYTES, address_share_percent=11, unproven_share_percent=100
    )
    async with doorway(ROUTES, limits=limits) as opened:
        honest = await reader_of(opened, "127.0.0.9")
        for _ in range(5):
            await reader_of(opened, "127.0.0.2")
        await until(lambda: opened.diary.cut == ["crowded"] * 4)
        assert opened.door.load.unsent.size < 3 * LARGE_BYTES
        assert len(await honest.rest_of(LARGE_BYTES)) == LARGE_BYTES


async def test_what_a_client_does_not_take_through_tls_is_counted_too() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("gateway.test").configure_cert(context)
    async with doorway(ROUTES, tls=context) as opened:
        wire = await opened.wire()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # it can be read from, too
        await wire.send(get("/give"))
        await until(lambda: opened.door.load.unsent.size > LARGE_BYTES // 2)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await wire.rest_of(LARGE_BYTES)) == LARGE_BYTES
        await until(lambda: opened.door.load.unsent.size == 0)


async def test_a_stream_keeps_nothing_of_what_its_reader_took() -> None:
    async with doorway(ROUTES) as opened:
        wire = await opened.wire()
        tracemalloc.start()
        await wire.send(get("/stream"))
        await wire.reader.readuntil(b"\r\n\r\n")
        left = LARGE_BYTES
        while left:
            left -= len(await wire.reader.read(min(left, 65_536)))
        await until(lambda: tracemalloc.get_traced_memory()[0] < LARGE_BYTES // 4)
        tracemalloc.stop()


@asynccontextmanager
async def streams(gateway: Gateway, agent: Agent, count: int) -> AsyncIterator[None]:
    """So many streams of one inbox, whose readers take nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            end = stack.enter_context(socket.socket())
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(end, ("127.0.0.1", gateway.app.ports[0]))
            lines = f"Authorization: Bearer {agent.key}", "Accept: text/event-stream"
            await loop.sock_sendall(end, head("GET", f"/v1/inbox/{agent.address}", *lines))
        yield


async def test_an_agent_that_waits_without_end_leaves_others_their_places(world: World) -> None:
    """It hears that it has too many; its message is accepted all the same, and its answer does not wait."""
    async with world.gateway(limits=LimitSettings(waiting_requests=8)) as gateway:
        mallory, alice = await gateway.register("mallory"), await gateway.register("alice")
        async with streams(gateway, mallory, 2):
            await until(lambda: gateway.app.door.load.waits.taken == 2)
            for query, headers in (("?wait=60", {}), ("", {"Accept": "text/event-stream"})):
                path = f"/v1/inbox/{mallory.address}{query}"
                refused = await gateway.call("GET", path, key=mallory.key, headers=headers)
                assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
                assert refused.headers["retry-after"] == "1"
            message = {"sender": mallory.address, "recipients": [alice.address], "payload": 1}
            sent = await gateway.call(
                "POST", "/v1/messages", key=mallory.key, json=message, headers={"Prefer": "wait=60"}
            )
            assert (sent.status, "preference-applied" in sent.headers) == (202, False)
            assert len((await listed(gateway, alice, "?wait=60"))["messages"]) == 1


def told(gateway: Gateway, metric: str) -> float:
    """What the gateway's metrics say."""
    shown = gateway.app.journal.metrics.render().decode()
    return float((shown.partition(f"\n{metric} ")[2] or "0").split("\n")[0])


async def test_streams_that_nobody_reads_hold_no_more_than_their_agents_share(world: World) -> None:
    limits = LimitSettings(body_bytes=3 * MEGABYTE, unsent_bytes=ROOM_BYTES)
    async with world.gateway(limits=limits) as gateway:
        mallory, alice = await gateway.register("mallory"), await gateway.register("alice")
        for _ in range(12):
            for agent in (mallory, alice):
                assert (await agent.send(agent.address, payload="x" * 2 * MEGABYTE)).status == 202
        most = 0
        async with streams(gateway, mallory, 12), asyncio.timeout(PATIENCE_SECONDS):
            while not told(gateway, 'amtp_readers_cut_total{reason="crowded"}'):
                assert (await listed(gateway, alice))["messages"]
                most = max(most, gateway.app.door.load.unsent.size)
            assert 0 < most <= ROOM_BYTES // 4
            await until(lambda: told(gateway, 'amtp_held{what="unsent_bytes"}'))
            assert told(gateway, 'amtp_held{what="unsent_bytes"}') <= ROOM_BYTES // 4


async def test_many_answers_at_once_hold_little_of_what_they_answer(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        sent = [await alice.send(alice.address, payload="x" * MEGABYTE) for _ in range(24)]
        ids = [reply.json["message_id"] for reply in sent]
        tracemalloc.start()
        reply = await gateway.call(
            "POST",
            f"/v1/inbox/{alice.address}/ack",
            key=alice.key,
            json={"message_ids": [{"message_id": each, "reply": {"payload": 1}} for each in ids]},
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [result["status"] for result in reply.json["results"]] == ["acknowledged"] * 24
        assert peak < 16 * MEGABYTE, peak
