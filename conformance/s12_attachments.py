"""Section 12: files that go with messages."""

import hashlib
from typing import Any

import aiohttp

from conformance.abroad import Abroad
from conformance.check import core, extended, holds, same
from conformance.fake_peer import FakePeer, answers
from conformance.target import Agent, Target

CONTENT = bytes(range(256)) * 300
KIND = "application/pdf"
COMPLETE = {
    "filename": "offer.pdf",
    "content_type": KIND,
    "size": 3,
    "hash": f"sha256:{hashlib.sha256(b'abc').hexdigest()}",
    "url": "https://files.example.com/offer.pdf",
}


def at(server: FakePeer, content: bytes = CONTENT, **about: Any) -> dict[str, Any]:
    """The attachment that this file would be."""
    digest = hashlib.sha256(content).hexdigest()
    return {**COMPLETE, "size": len(content), "hash": f"sha256:{digest}", "url": server.url, **about}


@core
async def attachments_travel_as_they_are(target: Target) -> None:
    """A message's attachments stand in the inbox as they were sent, with members of the sender's own."""
    alice, bob = await target.agents(2)
    attachment = {**COMPLETE, "x_pages": 3}
    await alice.sent(bob.address, attachments=[attachment])
    same((await bob.only())["attachments"], [attachment], "the attachments")


@extended
async def attachments_are_well_formed(target: Target) -> None:
    """D: An attachment out of another folder, at no https URL, or of no sound size, hash or type is refused by name."""
    alice = await target.agent()
    for name, value in (
        ("size", -1),
        ("size", "3"),
        ("hash", "sha256:abc"),
        ("hash", "md5:" + "0" * 32),
        ("url", "http://files.example.com/a"),
        ("url", "offer.pdf"),
        ("filename", "../../etc/passwd"),
        ("content_type", "pdf"),
    ):
        reply = await alice.send(alice.address, attachments=[{**COMPLETE, name: value}])
        error = reply.refused("INVALID_MESSAGE_FORMAT")
        holds(name in error["message"], f"the error names {name}")


@extended
async def a_file_can_be_uploaded(target: Target) -> None:
    """D: An uploaded file is answered as an attachment: name, type, size, hash and a URL; who knows it may fetch it."""
    alice = await target.agent()
    attachment = await _uploaded(alice)
    digest = hashlib.sha256(CONTENT).hexdigest()
    expected = {
        "filename": "offer.pdf",
        "content_type": KIND,
        "size": len(CONTENT),
        "hash": f"sha256:{digest}",
    }
    same({name: attachment[name] for name in expected}, expected, "the attachment")
    path = "/" + attachment["url"].split("/", 3)[3]
    reply = await target.call("GET", path)
    same((reply.status, reply.body == CONTENT), (200, True), "status and content at the URL")
    same(reply.headers["content-type"], KIND, "Content-Type")
    holds("attachment" in reply.headers["content-disposition"], "it is for saving, not for showing")
    reply = await target.call("GET", path[:-1] + ("A" if path[-1] != "A" else "B"))
    reply.refused("NOT_FOUND")


async def _uploaded(alice: Agent) -> dict[str, Any]:
    reply = await alice.target.call(
        "POST", "/v1/attachments?filename=offer.pdf", key=alice.key, body=CONTENT, content_type=KIND
    )
    attachment: dict[str, Any] = reply.expect(201)
    return attachment


@extended
async def uploading_takes_a_key(target: Target) -> None:
    """D: Strangers upload nothing."""
    reply = await target.call("POST", "/v1/attachments?filename=a", body=CONTENT, content_type=KIND)
    reply.refused("AUTHENTICATION_FAILED")


@extended
async def an_upload_is_read_by_who_has_the_message(target: Target) -> None:
    """D: Who may see a message reads its files through it; to others there is no such file."""
    alice, bob, eve = await target.agents(3)
    message_id = await alice.sent(bob.address, attachments=[await _uploaded(alice)])
    place = f"/v1/messages/{message_id}/attachments"
    for agent in (alice, bob):
        same((await agent.get(f"{place}/0")).body, CONTENT, "the content")
    (await eve.get(f"{place}/0")).refused("NOT_FOUND")
    for number in ("1", "-1", "x"):
        (await bob.get(f"{place}/{number}")).refused("NOT_FOUND")


@extended
async def what_is_said_of_an_upload_must_be_so(target: Target) -> None:
    """D: A message that says of an upload what it is not is refused."""
    alice = await target.agent()
    attachment = await _uploaded(alice)
    for wrong in ({"size": 1}, {"hash": "sha256:" + "0" * 64}, {"content_type": "text/plain"}):
        reply = await alice.send(alice.address, attachments=[{**attachment, **wrong}])
        reply.refused("INVALID_MESSAGE_FORMAT")


@extended
async def files_elsewhere_are_fetched_and_proven(target: Target, abroad: Abroad) -> None:
    """D: A file that lies elsewhere is read through the gateway, and only if size, type and hash are as the message says."""
    alice, bob = await target.agents(2)
    async with abroad.hook(answers(200, CONTENT, content_type=KIND), path="/offer.pdf") as server:
        same(await _read(alice, bob, at(server)), CONTENT, "the content")
        for wrong in (
            {"hash": "sha256:" + "0" * 64},
            {"size": len(CONTENT) - 1},
            {"size": len(CONTENT) + 1},
            {"content_type": "image/png"},
        ):
            same(await _read(alice, bob, at(server, **wrong)), None, f"the content with another {wrong}")


async def _read(alice: Agent, bob: Agent, attachment: dict[str, Any]) -> bytes | None:
    """The whole file as its recipient gets it; None where it is refused or cut off."""
    message_id = await alice.sent(bob.address, attachments=[attachment])
    try:
        reply = await bob.get(f"/v1/messages/{message_id}/attachments/0")
    except aiohttp.ClientError:
        return None
    return reply.body if reply.status == 200 else None


@extended
async def files_inside_are_not_fetched(target: Target) -> None:
    """D: A file at a private address is not fetched for anybody."""
    alice = await target.agent()
    for url in ("https://10.0.0.1/secret", "https://169.254.169.254/latest/meta-data"):
        reply = await alice.send(alice.address, attachments=[{**COMPLETE, "url": url}])
        if reply.status == 202:
            message_id = reply.json["message_id"]
            fetched = await alice.get(f"/v1/messages/{message_id}/attachments/0")
            holds(fetched.status >= 400, f"{url} is not read")
