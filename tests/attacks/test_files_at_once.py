"""Crowds of slow uploads, downloads and fetches, and agents that upload without end: each holds its share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from gateway.config.sections import AttachmentSettings
from gateway.features.attachments.blocks import BLOCK_BYTES
from tests.attacks.test_attachments import SMALL, said_of, typed
from tests.federation import Federation
from tests.raw_server import RawServer, read_request
from tests.telling import path_of, until, upload, uploaded
from tests.world import Agent, Gateway, World

PATIENCE_SECONDS = 10.0
LARGE = bytes(24 * BLOCK_BYTES)  # more than the buffers of both ends of a connection hold
UPLOADS, DOWNLOADS, FETCHES = 32, 256, 32  # at once, in each process


@asynccontextmanager
async def asked(gateway: Gateway, line: str, *lines: str) -> AsyncIterator[asyncio.StreamReader]:
    """A request that goes no further than this; its reader takes little by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.app.ports[0], limit=1024)
    writer.write("\r\n".join([f"{line} HTTP/1.1", "Host: x", *lines, "", ""]).encode())
    try:
        yield reader
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return int((await reader.readline()).split()[1])


async def test_an_agent_whose_uploads_trickle_leaves_the_others_their_places(world: World) -> None:
    async with world.gateway() as gateway, AsyncExitStack() as stack:
        mallory, alice = await gateway.register("mallory"), await gateway.register("alice")
        about = f"Authorization: Bearer {mallory.key}", "Content-Length: 1000000", "Expect: 100-continue"
        readers = [
            await stack.enter_async_context(asked(gateway, "POST /v1/attachments", *about))
            for _ in range(UPLOADS)
        ]
        statuses = [await status_of(reader) for reader in readers]  # 100: go on
        assert set(statuses) == {100, 429}
        assert (await upload(alice)).status == 201


async def test_readers_that_take_nothing_leave_the_others_their_places(world: World) -> None:
    async with world.gateway() as gateway, AsyncExitStack() as stack:
        alice = await gateway.register("alice")
        attachment = await uploaded(alice, LARGE)
        sent = await alice.send(alice.address, attachments=[attachment])
        readers = [
            await stack.enter_async_context(asked(gateway, f"GET {path_of(attachment)}"))
            for _ in range(DOWNLOADS)
        ]
        statuses = await asyncio.gather(*map(status_of, readers))
        path = f"/v1/messages/{sent.json['message_id']}/attachments/0"
        async with gateway.session.get(
            gateway.url + path, headers={"Authorization": f"Bearer {alice.key}"}
        ) as response:
            assert (response.status, len(await response.read())) == (200, len(LARGE))
        assert set(statuses) == {200, 429}


class Slow:
    """A host that begins an answer and never ends it, and counts who is still there."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.open += 1
        try:
            writer.write(typed(SMALL)[:-3])
            await reader.read()
        finally:
            self.open -= 1


@pytest.fixture
def net(net: Federation) -> Federation:
    for host in ("slow.test", "honest.test"):
        net.dns.add(host, "A", "127.0.0.1")
    return net


@asynccontextmanager
async def hosts(net: Federation, slow: Slow) -> AsyncIterator[tuple[str, str]]:
    """The URLs of a file at the slow host, and at an honest one."""
    authority = net.authority
    async with (
        RawServer(slow, authority.server_context("slow.test")) as one,
        RawServer(typed(SMALL), authority.server_context("honest.test")) as other,
    ):
        yield f"https://slow.test:{one.port}/f", f"https://honest.test:{other.port}/f"


async def received(agent: Agent, url: str) -> str:
    """Where the agent reads a file that was sent to it."""
    reply = await agent.send(agent.address, attachments=[said_of(SMALL, url)])
    assert reply.status == 202, reply.text
    return f"/v1/messages/{reply.json['message_id']}/attachments/0"


async def test_fetches_that_hang_leave_others_their_places_and_other_hosts_theirs(net: Federation) -> None:
    slow = Slow()
    async with net.gateway("acme.test") as gateway, hosts(net, slow) as (slowly, at_once):
        crowd = [await gateway.register(f"mallory{number}") for number in range(6)]
        alice = await gateway.register("alice")
        async with AsyncExitStack() as stack:
            for agent in crowd:
                path = await received(agent, slowly)
                for _ in range(FETCHES // 2):
                    await stack.enter_async_context(
                        asked(gateway, f"GET {path}", f"Authorization: Bearer {agent.key}")
                    )

            async def hanging() -> bool:
                return slow.open >= FETCHES // 4

            await until(hanging, PATIENCE_SECONDS, 0.01)
            reply = await gateway.call("GET", await received(alice, at_once), key=alice.key)
            assert (reply.status, reply.text.encode()) == (200, SMALL)
            assert slow.open == FETCHES // 4


async def test_a_fetch_ends_with_the_client_that_waits_for_it(net: Federation) -> None:
    slow = Slow()
    async with net.gateway("acme.test") as gateway, hosts(net, slow) as (slowly, _):
        alice = await gateway.register("alice")
        path = await received(alice, slowly)

        async def reached() -> bool:
            return slow.open == 1

        async def left() -> bool:
            return slow.open == 0

        async with asked(gateway, f"GET {path}", f"Authorization: Bearer {alice.key}"):
            await until(reached, PATIENCE_SECONDS, 0.01)
        await until(left, PATIENCE_SECONDS, 0.01)


async def test_uploads_side_by_side_and_to_oneself_are_counted_like_any_other(world: World) -> None:
    """Three at once where there is room for two; and what was sent still counts in all."""
    size = 2 * BLOCK_BYTES
    rules = AttachmentSettings(unsent_bytes=2 * size, agent_bytes=3 * size)
    async with world.gateway(attachments=rules) as gateway:
        mallory, alice = await gateway.register("mallory"), await gateway.register("alice")
        replies = await asyncio.gather(*(upload(mallory, bytes(size)) for _ in range(3)))
        assert sorted(reply.status for reply in replies) == [201, 201, 429]
        for reply in replies:
            if reply.status == 201:
                assert (await mallory.send(mallory.address, attachments=[reply.json])).status == 202
        assert (await upload(mallory, bytes(size))).status == 201
        refused = await upload(mallory, SMALL)
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.json["error"]["details"] == {"limit": 3 * size}
        assert (await upload(alice, bytes(size))).status == 201
