"""Servers that lie about files, URLs that lead inside (S4), packed answers (S9): no agent gets what was not promised."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from gateway.config.sections import AttachmentSettings, OutboundSettings
from gateway.features.attachments import read_door as message_files
from gateway.features.attachments.blocks import BLOCK_BYTES
from tests.attacks.test_ssrf import LEADING, WRITTEN
from tests.federation import Federation
from tests.raw_server import RawServer, answer, read_request
from tests.world import Agent, Gateway, World

HOST = "files.evil.test"
SMALL = b"what was promised"
LARGE = b"large" * BLOCK_BYTES


@pytest.fixture
def net(net: Federation) -> Federation:
    net.dns.add(HOST, "A", "127.0.0.1")
    return net


def said_of(content: bytes, url: str, content_type: str = "application/pdf") -> dict[str, Any]:
    return {
        "filename": "offer.pdf",
        "content_type": content_type,
        "size": len(content),
        "hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "url": url,
    }


@dataclass
class Reading:
    """Alice, who is sent references to files, and a server that has them or not."""

    net: Federation
    gateway: Gateway
    alice: Agent
    server: RawServer

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.server.port}/offer.pdf"

    async def sent(self, attachment: dict[str, Any]) -> str:
        """Where the gateway gives the file of a message that refers to it."""
        reply = await self.alice.send(self.alice.address, attachments=[attachment])
        assert reply.status == 202, reply.text
        return f"/v1/messages/{reply.json['message_id']}/attachments/0"

    async def read(self, content: bytes, **said: Any) -> tuple[int, bytes]:
        """What Alice gets of a file that should be `content`, and may not be; ValueError where it breaks off."""
        path = await self.sent(said_of(content, self.url) | said)
        headers = {"Authorization": f"Bearer {self.alice.key}"}
        async with self.gateway.session.get(self.gateway.url + path, headers=headers) as response:
            try:
                return response.status, await response.read()
            except aiohttp.ClientPayloadError:
                raise ValueError("broken off") from None


@pytest.fixture
async def reading(net: Federation) -> AsyncIterator[Reading]:
    async with (
        net.gateway("acme.test", attachments=AttachmentSettings(cache_bytes=1_000_000)) as gateway,
        RawServer(b"", net.authority.server_context(HOST)) as server,
    ):
        yield Reading(net, gateway, await gateway.register("alice"), server)


def typed(content: bytes, content_type: str = "application/pdf", **headers: str) -> bytes:
    return answer(200, content, Content_Type=content_type, **headers)


def chunked(content: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_an_honest_server_is_believed_whether_it_tells_type_and_length_or_not(
    reading: Reading, content: bytes
) -> None:
    for script in (
        typed(content, "Application/PDF; x=y"),
        typed(content, "binary/octet-stream"),
        chunked(content),
    ):
        reading.server.script = script
        assert await reading.read(content, filename=f"{len(reading.server.requests)}.pdf") == (200, content)


LIES: dict[str, tuple[bytes, int]] = {
    "another type": (typed(SMALL, "text/html"), 409),
    "another length": (typed(SMALL + b"!"), 409),
    "shorter": (chunked(SMALL[:-1]), 409),
    "longer": (chunked(SMALL + b"!"), 409),
    "endless": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, 409),
    "other bytes": (typed(SMALL[::-1]), 409),
    "packed": (typed(gzip.compress(SMALL), Content_Encoding="gzip"), 409),
    "packed to bits": (typed(gzip.compress(bytes(10_000_000)), Content_Encoding="deflate"), 409),
    "a part": (answer(206, SMALL, Content_Range="bytes 0-16/17"), 409),
    "moved": (answer(302, Location="https://127.0.0.1/"), 409),
    "forbidden": (answer(403), 409),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", 409),
    "gone": (answer(404), 404),
    "long gone": (answer(410), 404),
    "trouble": (answer(500), 503),
    "busy": (answer(429), 503),
}


async def test_of_a_small_file_that_is_not_what_it_should_be_not_a_byte_comes(reading: Reading) -> None:
    seen = {}
    for lie, (script, _) in LIES.items():
        reading.server.script = script
        status, body = await reading.read(SMALL)
        assert SMALL[:8] not in body
        seen[lie] = status
    assert seen == {lie: status for lie, (_, status) in LIES.items()}


@pytest.mark.parametrize(
    "lie", [LARGE[:-1] + b"!", LARGE[:-1], LARGE + b"!"], ids=["other bytes", "shorter", "longer"]
)
async def test_a_large_file_that_is_not_what_it_should_be_breaks_off(reading: Reading, lie: bytes) -> None:
    reading.server.script = chunked(lie)
    with pytest.raises(ValueError, match="broken off"):
        await reading.read(LARGE)


async def test_a_server_that_hangs_up_early_breaks_the_answer_off(reading: Reading) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(typed(LARGE)[: -BLOCK_BYTES // 2])
        await writer.drain()

    reading.server.script = cut
    with pytest.raises(ValueError, match="broken off"):
        await reading.read(LARGE)


async def test_a_server_that_falls_silent_is_given_up(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_files, "PAUSE_SECONDS", 0.2)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(typed(SMALL)[:-3])
        await asyncio.Event().wait()

    reading.server.script = silent
    assert (await reading.read(SMALL))[0] == 503


async def test_a_certificate_of_somebody_else_is_not_believed(net: Federation, reading: Reading) -> None:
    async with RawServer(typed(SMALL), net.authority.server_context("other.test")) as server:
        assert (await replace(reading, server=server).read(SMALL))[0] == 503
        assert server.received == 0


async def test_what_was_fetched_is_kept_for_the_next_reader_and_for_nobody_who_knows_the_hash_alone(
    reading: Reading,
) -> None:
    reading.server.script = typed(SMALL)
    assert await reading.read(SMALL) == (200, SMALL)
    assert await reading.read(SMALL) == (200, SMALL)
    assert len(reading.server.requests) == 1
    reading.server.script = answer(404)
    assert (await reading.read(SMALL, url=reading.url + "?other"))[0] == 404
    assert await reading.read(SMALL) == (200, SMALL)


async def test_no_url_of_an_attachment_leads_inside(net: Federation) -> None:
    for label, records in LEADING.items():
        for kind, values in records.items():
            net.dns.add(f"{label}.evil.test", kind, *values, ttl=0)
    net.dns.add("inside.other.test", "A", "127.0.0.1")
    net.dns.add("localhost", "A", "127.0.0.1")
    closed = OutboundSettings(ca_file=net.ca_file)
    async with (
        net.gateway("acme.test", outbound=closed) as gateway,
        RawServer(typed(SMALL), net.authority.server_context("localhost")) as listener,
    ):
        reading = Reading(net, gateway, await gateway.register("alice"), listener)
        answered = [
            await ask_for(reading, f"https://{host}:{listener.port}/offer.pdf")
            for host in [*WRITTEN, *(f"{label}.evil.test" for label in LEADING)]
        ]
        assert listener.accepted == 0
    assert set(answered) <= {400, 403, 503}
    assert answered[-len(LEADING) :] == [403] * len(LEADING)


async def ask_for(reading: Reading, url: str) -> int:
    """Whether a message may refer to it, and if so, whether the gateway fetches it."""
    sent = await reading.alice.send(reading.alice.address, attachments=[said_of(SMALL, url)])
    if sent.status != 202:
        return sent.status
    path = f"/v1/messages/{sent.json['message_id']}/attachments/0"
    reply = await reading.gateway.call("GET", path, key=reading.alice.key)
    assert "127.0.0.1" not in reply.text
    return reply.status


@pytest.mark.parametrize("scheme", ["http", "file", "ftp", "gopher", "javascript"])
async def test_no_other_scheme_is_taken(world: World, scheme: str) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        sent = await alice.send(alice.address, attachments=[said_of(SMALL, f"{scheme}://files.test/x")])
        assert sent.json["error"]["details"] == {"field": "attachments[0].url"}


async def test_a_redirect_leads_nowhere(net: Federation, reading: Reading) -> None:
    async with RawServer(typed(SMALL), net.authority.server_context(HOST)) as inside:
        for status in (301, 302, 303, 307, 308):
            reading.server.script = answer(status, Location=f"https://{HOST}:{inside.port}/offer.pdf")
            assert (await reading.read(SMALL))[0] == 409
        assert inside.accepted == 0
