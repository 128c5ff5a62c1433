"""JSON made to hurt, at the real door: refused with its documented error, and the gateway lives on (S8, S11)."""

import json

import pytest

from tests.world import World

HEAD = b'{"sender":"alice@acme.test","recipients":["bob@acme.test"],"payload":'

# What is wrong, and the bytes.
HOSTILE = {
    "nesting of 61": HEAD + b"[" * 60 + b"]" * 60 + b"}",
    "nesting of a million": HEAD + b"[" * 1_000_000 + b"}",
    "objects nested 10 000 deep": HEAD + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "a duplicate member": HEAD + b'1,"payload":2}',
    "a duplicate member inside": HEAD + b'{"a":1,"a":2}}',
    "NaN": HEAD + b"NaN}",
    "Infinity": HEAD + b"-Infinity}",
    "1e400": HEAD + b"1e400}",
    "5 000 digits": HEAD + b"1" * 5000 + b"}",
    "an escaped NUL": HEAD + b'"\\u0000"}',
    "a raw NUL": HEAD + b'"\0"}',
    "a lone surrogate": HEAD + b'"\\ud800"}',
    "invalid UTF-8": HEAD + b'"\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + HEAD + b"1}",
    "UTF-16": (HEAD + b"1}").decode().encode("utf-16"),
    "trailing data": HEAD + b"1} x",
    "a second document": HEAD + b"1}{}",
    "nothing": b"",
    "an array": b"[]",
    "a recipient that is a number": HEAD.replace(b'"bob@acme.test"', b"7") + b"1}",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_json_is_refused_and_leaves_nothing_behind(world: World, name: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        reply = await gateway.call("POST", "/v1/messages", key=alice.key, body=HOSTILE[name])
        assert reply.status == 400
        assert reply.code in ("INVALID_MESSAGE_FORMAT", "INVALID_RECIPIENT")
        assert await bob.inbox() == []
        assert (await alice.send(bob.address)).status == 202


async def test_a_body_one_byte_too_large_is_refused_and_the_largest_is_taken(world: World) -> None:
    limit = 10_485_760
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        frame = len(HEAD) + len(b'""}')
        largest = HEAD + b'"' + b"x" * (limit - frame) + b'"}'
        too_large = await gateway.call("POST", "/v1/messages", key=alice.key, body=largest + b" ")
        assert (too_large.status, too_large.code) == (413, "MESSAGE_TOO_LARGE")
        taken = await gateway.call("POST", "/v1/messages", key=alice.key, body=largest)
        assert taken.status == 202
        (item,) = await bob.inbox()
        assert len(item["payload"]) == limit - frame


async def test_a_hundred_thousand_recipients_are_refused_and_a_thousand_are_served(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        crowd = [f"r{n}@acme.test" for n in range(100_000)]
        refused = await alice.send(*crowd)
        assert (refused.status, refused.code) == (400, "INVALID_MESSAGE_FORMAT")
        assert "1000" in refused.json["error"]["message"]
        unknown = await alice.send(*crowd[:1000])
        assert (unknown.status, unknown.code) == (404, "AGENT_UNKNOWN")
        assert len(unknown.json["recipients"]) == 1000


async def test_the_payload_reaches_the_agent_byte_for_byte(world: World) -> None:
    payload = b'{"b" : 1.0,\t"a":[1e2, 12345678901234567890, "\\u00e9\\n\xc3\xa9"],  "c":{}}'
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        assert (
            await gateway.call("POST", "/v1/messages", key=alice.key, body=HEAD + payload + b"}")
        ).status == 202
        listing = await gateway.call("GET", f"/v1/inbox/{bob.address}", key=bob.key)
        assert payload.decode() in listing.text
        assert json.loads(listing.text)["messages"][0]["payload"]["a"][1] == 12345678901234567890
