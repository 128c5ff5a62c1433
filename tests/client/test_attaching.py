"""Files go up in pieces and come back as they were meant."""

import hashlib
from pathlib import Path

import pytest

from gateway.client.attaching import PIECE_BYTES
from gateway.client.errors import Refused, Unreachable
from gateway.client.message import read_message
from tests.client.joined import agents, alice_at, first_of
from tests.client.moody import CUT, moody, refusal, reply, said
from tests.world import World

LARGE = bytes(range(256)) * (PIECE_BYTES // 256) * 3 + b"and a rest"


async def test_a_file_travels_beside_a_message(world: World, tmp_path: Path) -> None:
    file = tmp_path / "offer.pdf"
    file.write_bytes(LARGE)
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        attached = [await alice.attach(file), await alice.attach(b"small", filename="a note.txt")]
        assert [(each.filename, each.content_type, each.size) for each in attached] == [
            ("offer.pdf", "application/pdf", len(LARGE)),
            ("a note.txt", "text/plain", 5),
        ]
        await alice.send(bob.address, attachments=attached)
        message = await first_of(bob)
        assert list(message.attachments) == attached
        assert await bob.fetch(message) == LARGE
        assert await bob.fetch(message, 1) == b"small"


async def test_a_file_that_is_not_there_is_told_before_anything_is_sent(world: World, tmp_path: Path) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice") as (alice,):
        with pytest.raises(FileNotFoundError):
            await alice.attach(tmp_path / "nothing")
        with pytest.raises(Refused, match="filename"):
            await alice.attach(b"", filename="../x")


ATTACHMENT = {
    "filename": "offer.pdf",
    "content_type": "application/pdf",
    "size": len(LARGE),
    "hash": f"sha256:{hashlib.sha256(LARGE).hexdigest()}",
    "url": "https://acme.test/v1/attachments/x",
}


async def test_an_upload_that_breaks_is_begun_again_from_the_start(tmp_path: Path) -> None:
    file = tmp_path / "offer.pdf"
    file.write_bytes(LARGE)
    async with moody(
        CUT, refusal(503, "TEMPORARY_FAILURE", Retry_After="0"), said(201, ATTACHMENT)
    ) as gateway:
        async with alice_at(gateway) as alice:
            assert (await alice.attach(str(file))).url == ATTACHMENT["url"]
        assert [request.body for request in gateway.requests] == [LARGE] * 3


async def test_a_file_that_is_not_what_was_meant_is_not_handed_over() -> None:
    message = read_message(reply("m-1", attachments=[ATTACHMENT]))
    async with moody(looks=[said(200, "something else")]) as gateway, alice_at(gateway) as alice:
        with pytest.raises(Unreachable, match="hash differs"):
            await alice.fetch(message)
