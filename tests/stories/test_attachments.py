"""Files with messages: uploaded in pieces, fetched with proof, gone with their message."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.config.sections import AttachmentSettings
from gateway.store.sealed import KEY_FILE
from tests.federation import Federation
from tests.telling import SMALL, path_of, upload, uploaded
from tests.world import Gateway, World

LARGE = bytes(range(256)) * 4096  # a megabyte: several blocks
HOUR = 3600


async def read(gateway: Gateway, path: str, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with gateway.session.get(gateway.url + path, headers=headers) as response:
        return response.status, {n.lower(): v for n, v in response.headers.items()}, await response.read()


def place(store: str) -> dict[str, Any]:
    return {"attachments": AttachmentSettings(store=store)}  # type: ignore[arg-type]


@pytest.mark.parametrize("store", ["file", "database"])
@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_is_uploaded_is_read_by_the_recipient(world: World, store: str, content: bytes) -> None:
    async with world.gateway(**place(store)) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        attachment = await uploaded(alice, content)
        assert attachment == {
            "filename": "offer.pdf",
            "content_type": "application/pdf",
            "size": len(content),
            "hash": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "url": attachment["url"],
        }
        sent = await alice.send(bob.address, attachments=[attachment])
        assert sent.status == 202, sent.text
        (item,) = await bob.inbox()
        assert item["attachments"] == [attachment]
        status, headers, body = await read(
            gateway, f"/v1/messages/{item['message_id']}/attachments/0", bob.key
        )
        assert (status, body) == (200, content)
        assert headers["content-type"] == "application/pdf"
        assert headers["content-length"] == str(len(content))
        assert headers["content-disposition"] == (
            "attachment; filename=\"offer.pdf\"; filename*=UTF-8''offer.pdf"
        )
        assert (await read(gateway, path_of(attachment)))[2] == content


async def test_a_recipient_at_another_gateway_reads_it_through_his_own(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        attachment = await uploaded(alice, LARGE, filename="größe.bin")
        assert urlsplit(attachment["url"]).hostname == "amtp.acme.test"
        assert (await alice.send(bob.address, attachments=[attachment])).status == 202
        (item,) = await bob.inbox("?wait=5")
        where = f"/v1/messages/{item['message_id']}/attachments/0"
        status, headers, body = await read(umbrella, where, bob.key)
        assert (status, body) == (200, LARGE)
        assert "filename*=UTF-8''gr%C3%B6%C3%9Fe.bin" in headers["content-disposition"]
        mallory = await umbrella.register("mallory")
        assert (await read(umbrella, where, mallory.key))[0] == 404
        assert (await read(umbrella, where.replace("/0", "/1"), bob.key))[0] == 404


async def test_a_message_that_says_otherwise_of_an_upload_is_refused(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        attachment = await uploaded(alice)
        for wrong in (
            {"size": 1},
            {"hash": "sha256:" + "0" * 64},
            {"content_type": "text/html"},
            {"url": attachment["url"][:-43] + "A" * 43},
        ):
            sent = await alice.send(alice.address, attachments=[attachment | wrong])
            assert (sent.status, sent.code) == (400, "INVALID_MESSAGE_FORMAT")
            assert sent.json["error"]["details"] == {"field": f"attachments[0].{next(iter(wrong))}"}
        assert (await alice.send(alice.address, attachments=[attachment, attachment])).status == 202


async def test_the_limits_are_the_operators(world: World) -> None:
    rules = AttachmentSettings(count=1, bytes_each=2000, bytes_together=2000, types=("application/pdf",))
    async with world.gateway(attachments=rules) as gateway:
        alice = await gateway.register("alice")
        too_large = await upload(alice, b"x" * 2001)
        assert (too_large.status, too_large.code) == (413, "MESSAGE_TOO_LARGE")
        assert (await upload(alice, content_type="text/html")).status == 400
        attachment = await uploaded(alice)
        sent = await alice.send(alice.address, attachments=[attachment] * 2)
        assert "at most 1" in sent.json["error"]["message"]


async def test_no_name_leads_out_of_a_folder_or_out_of_a_header(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        for filename in ("..%2F..%2Fetc%2Fpasswd", "a%5Cb", "..", "a%0D%0AX-Evil:%20yes", "%00", ""):
            refused = await upload(alice, filename=filename)
            assert (refused.status, refused.code) == (400, "INVALID_MESSAGE_FORMAT")
        attachment = await uploaded(alice)
        for name in ("../../etc/passwd", "a\\b", "..", "a\r\nX-Evil: yes"):
            refused = await alice.send(alice.address, attachments=[attachment | {"filename": name}])
            assert refused.json["error"]["details"] == {"field": "attachments[0].filename"}


async def test_uploads_go_when_no_message_needs_them(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        unsent, sent = await uploaded(alice), await uploaded(alice, LARGE)
        assert (await alice.send(alice.address, attachments=[sent])).status == 202
        (item,) = await alice.inbox()
        await gateway.call("DELETE", f"/v1/inbox/{alice.address}/{item['message_id']}", key=alice.key)
        gateway.turn(25 * HOUR)
        await gateway.app.housekeeping.once()
        assert (await read(gateway, path_of(unsent)))[0] == 404
        assert (await read(gateway, path_of(sent)))[2] == LARGE
        gateway.turn(40 * 24 * HOUR)
        await gateway.app.housekeeping.once()
        await gateway.app.housekeeping.once()
        assert (await read(gateway, path_of(sent)))[0] == 404
        assert list((world.folder / "attachments").iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    async with world.gateway(attachments=AttachmentSettings(store="file")) as gateway:
        alice = await gateway.register("alice")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.app.ports[0])
        head = f"POST /v1/attachments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.key}\r\n"
        writer.write(f"{head}Content-Length: {2 * len(LARGE)}\r\n\r\n".encode() + LARGE)
        folder = world.folder / "attachments"
        async with asyncio.timeout(5):
            while not folder.exists() or not list(folder.iterdir()):
                await asyncio.sleep(0.01)
            writer.close()
            while list(folder.iterdir()):
                await asyncio.sleep(0.01)
        assert await gateway.app.database.fetchval("select count(*) from attachments") == 0
        assert await reader.read() == b""


async def test_two_hundred_megabytes_pass_through_little_memory(world: World) -> None:
    """In and out: a few blocks, wherever it lies."""
    size, piece = 200 * 1024 * 1024, bytes(1024 * 1024)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for _ in range(size // len(piece)):
            yield piece

    async with world.gateway(**place("file")) as gateway:
        alice = await gateway.register("alice")
        tracemalloc.start()
        attachment = await uploaded(alice, pieces())
        assert (await alice.send(alice.address, attachments=[attachment])).status == 202
        (item,) = await alice.inbox()
        read_bytes = 0
        async with gateway.session.get(
            f"{gateway.url}/v1/messages/{item['message_id']}/attachments/0",
            headers={"Authorization": f"Bearer {alice.key}"},
        ) as response:
            async for chunk in response.content.iter_any():
                read_bytes += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert read_bytes == attachment["size"] == size
    assert peak < 24 * 1024 * 1024


@pytest.mark.parametrize(("store", "status"), [("database", 200), ("file", 503)])
async def test_gateways_that_share_a_database_and_no_disk(world: World, store: str, status: int) -> None:
    """What lies in the database is everybody's; a file is its own machine's, and the others say so."""
    elsewhere = {"data": world.folder / "elsewhere", **place(store)}
    elsewhere["data"].mkdir()
    (elsewhere["data"] / KEY_FILE).symlink_to(world.folder / KEY_FILE)
    async with world.gateway(**place(store)) as one, world.gateway(**elsewhere) as other:
        alice = await one.register("alice")
        large, small = await uploaded(alice, LARGE), await uploaded(alice)
        assert (await read(other, path_of(large)))[0] == status
        assert (await read(other, path_of(small)))[0] == 200
        await other.app.housekeeping.once()
        assert (await read(one, path_of(large)))[2] == LARGE
