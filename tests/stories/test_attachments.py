"""Files with messages: uploaded in pieces, fetched with proof, gone with their message."""

import hashlib
from typing import Any

import pytest

from gateway.config_sections import Attachments
from tests.world import Agent, Gateway, Reply, World

LARGE = bytes(range(256)) * 4096  # a megabyte: several blocks
SMALL = b"a small file"


async def upload(
    agent: Agent, content: Any = SMALL, filename: str = "offer.pdf", content_type: str = "application/pdf"
) -> Reply:
    return await agent.gateway.call(
        "POST",
        f"/v1/attachments?filename={filename}",
        key=agent.key,
        body=content,
        headers={"Content-Type": content_type},
    )


async def uploaded(agent: Agent, content: Any = SMALL, **about: str) -> dict[str, Any]:
    reply = await upload(agent, content, **about)
    assert reply.status == 201, reply.text
    attachment: dict[str, Any] = reply.json
    return attachment


def path_of(attachment: dict[str, Any]) -> str:
    """Where the file is at the gateway that has it, whatever its name in the world."""
    return "/" + str(attachment["url"]).split("/", 3)[3]


async def read(gateway: Gateway, path: str, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with gateway.session.get(gateway.url + path, headers=headers) as response:
        return response.status, {n.lower(): v for n, v in response.headers.items()}, await response.read()


def place(store: str) -> dict[str, Any]:
    return {"attachments": Attachments(store=store)}  # type: ignore[arg-type]


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
