"""Bodies of every endpoint are read as strictly as messages: two readers never take one body for two things (S8)."""

import json

import pytest

from tests.world import Agent, Gateway, World

LEASE = "01890000-0000-7000-8000-000000000000"
# Twice the same member, where the later one would win.
TWICE = {
    ("POST", "ack"): b'{"message_ids":["a"],"message_ids":["%b"]}',
    ("POST", "lease"): b'{"lease":"%b","seconds":60,"seconds":0}',
    ("DELETE", "{id}"): b'{"messages":[],"reply":{"payload":1,"payload":"%b"}}',
}


async def open_message(gateway: Gateway) -> tuple[Agent, str]:
    alice, bob = await gateway.register("alice"), await gateway.register("bob")
    sent = await alice.send(bob.address)
    return bob, sent.json["message_id"]


@pytest.mark.parametrize(("method", "path"), TWICE)
async def test_an_acknowledgement_that_says_two_things_does_neither(
    world: World, method: str, path: str
) -> None:
    async with world.gateway() as gateway:
        bob, message_id = await open_message(gateway)
        body = TWICE[method, path] % (LEASE if path == "lease" else message_id).encode()
        place = f"/v1/inbox/{bob.address}/{path.format(id=message_id)}"
        reply = await gateway.call(method, place, key=bob.key, body=body)
        assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
        assert "same member twice" in reply.json["error"]["message"]
        assert len(await bob.inbox()) == 1


@pytest.mark.parametrize(
    "body", [b'{"message_ids":["%b"]}\xef\xbb\xbf', b'{"message_ids":["%b"],"lease":"\\ud800"}']
)
async def test_nor_does_one_that_is_not_plain_json(world: World, body: bytes) -> None:
    async with world.gateway() as gateway:
        bob, message_id = await open_message(gateway)
        path = f"/v1/inbox/{bob.address}/ack"
        assert (await gateway.call("POST", path, key=bob.key, body=body % message_id.encode())).status == 400
        assert len(await bob.inbox()) == 1


async def test_a_large_answer_is_read_like_a_small_one(world: World) -> None:
    async with world.gateway() as gateway:
        bob, message_id = await open_message(gateway)
        carol = await gateway.register("carol")
        text = "x" * 400_000
        message = {"sender": bob.address, "recipients": [carol.address], "payload": text}
        said = {"reply": {"payload": {"text": text}}, "messages": [message] * 3}
        path = f"/v1/inbox/{bob.address}/{message_id}"
        reply = await gateway.call("DELETE", path, key=bob.key, json=said)
        assert (reply.status, len(reply.json["sent"])) == (200, 4)
        assert [len(item["payload"]) for item in await carol.inbox()] == [400_000] * 3
        again = json.dumps(said).replace('"messages"', '"messages": [], "messages"').encode()
        assert (await gateway.call("DELETE", path, key=bob.key, body=again)).status == 400
