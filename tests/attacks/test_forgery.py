"""Somebody else's name, key, id or word: none of it is believed (S3, S21)."""

from typing import Any

import pytest

from tests.world import Agent, Gateway, World

FORGED: dict[str, Any] = {
    "gateway": {"address": "admin@acme.test", "accepted_at": "2000-01-01T00:00:00Z", "via": "inbox"},
    "sender_verification": "pass",
    "status": "acknowledged",
}


async def post(gateway: Gateway, message: dict[str, Any], **rest: Any) -> Any:
    return await gateway.call("POST", "/v1/messages", json=message, **rest)


def stranger(recipient: Agent, **members: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "sender": "mallory@elsewhere.test",
        "recipients": [recipient.address],
        "payload": 1,
        **members,
    }


async def test_an_idempotency_key_of_another_sender_neither_answers_nor_conflicts(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob, carol = [await gateway.register(name) for name in ("alice", "bob", "carol")]
        first = await alice.send(carol.address, idempotency_key="k", payload="alice's")
        second = await bob.send(carol.address, idempotency_key="k", payload="bob's")
        assert (first.status, second.status) == (202, 202)
        assert first.json["message_id"] != second.json["message_id"]
        assert [item["payload"] for item in await carol.inbox()] == ["alice's", "bob's"]


async def test_a_message_id_of_another_sender_neither_shows_nor_blocks_the_message(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob, carol = [await gateway.register(name) for name in ("alice", "bob", "carol")]
        sent = (await alice.send(carol.address, payload="secret")).json["message_id"]
        taken = await bob.send(carol.address, message_id=sent, payload="bob's")
        assert taken.status == 202
        mallory = await gateway.register("mallory")
        spied = await gateway.call("GET", f"/v1/messages/{sent}", key=mallory.key)
        assert spied.status == 404
        assert (await alice.status(sent))["recipients"][0]["address"] == carol.address


async def test_an_unproven_stranger_can_not_burn_the_keys_of_the_real_sender(world: World) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        forged = await post(gateway, stranger(bob, idempotency_key="k", message_id="m", payload="forged"))
        again = await post(gateway, stranger(bob, idempotency_key="k", message_id="m", payload="other"))
        assert (forged.status, again.status) == (202, 409)
        assert again.code == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize(
    "sender", ["alice@acme.test", "ALICE@ACME.TEST", "alice+tag@acme.test", "alice@acme.test."]
)
async def test_nobody_sends_in_the_name_of_an_agent_without_its_key(world: World, sender: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message = {"version": "1.0", "sender": sender, "recipients": [alice.address], "payload": 1}
        nobody = await post(gateway, message)
        other = await post(gateway, message, key=bob.key)
        assert nobody.status in (400, 401)
        assert other.status in (400, 403)
        assert await alice.inbox() == []


async def test_the_postmaster_is_nobodys_name_to_send_by(world: World) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        reply = await post(
            gateway,
            {
                "sender": "postmaster@acme.test",
                "recipients": [bob.address],
                "message_type": "delivery_failure",
            },
            key=bob.key,
        )
        assert (reply.status, reply.code) == (403, "SENDER_NOT_ALLOWED")


async def test_annotations_that_come_in_are_taken_out_before_an_agent_sees_them(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        assert (await alice.send(bob.address, **FORGED)).status == 202
        assert (await post(gateway, stranger(bob, **FORGED))).status == 202
        for item in await bob.inbox():
            assert item["gateway"].get("address") != FORGED["gateway"]["address"]
            assert item["gateway"]["accepted_at"] != FORGED["gateway"]["accepted_at"]
            assert item["status"] == "unread"
            if item["sender"] == "mallory@elsewhere.test":
                assert item["sender_verification"] == "none"


async def test_a_foreign_sender_is_shown_as_unproven_and_a_relay_reaches_local_recipients_only(
    world: World,
) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        mixed = stranger(bob)
        mixed["recipients"] = [bob.address, "victim@third.test"]
        reply = await post(gateway, mixed)
        assert reply.status == 202
        assert [r.get("error", {}).get("code") for r in reply.json["recipients"]] == [None, "RELAY_DENIED"]
        only_foreign = {**mixed, "recipients": ["victim@third.test"]}
        denied = await post(gateway, only_foreign)
        assert (denied.status, denied.code) == (403, "RELAY_DENIED")
        (item,) = await bob.inbox()
        assert item["sender_verification"] == "none"


@pytest.mark.parametrize("name", ["Sender_Verification", "GATEWAY", "\u017fender", "senderVerification"])
async def test_a_member_that_a_lenient_reader_takes_for_ours_reaches_no_agent(
    world: World, name: str
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        forged = await post(gateway, stranger(bob, **{name: "pass"}))
        assert (forged.status, forged.code) == (400, "INVALID_MESSAGE_FORMAT")
        assert forged.json["error"]["details"]["field"] == ascii(name)[1:-1]
        assert (await alice.send(bob.address, **{name: "pass"})).status == 400
        assert await bob.inbox() == []
