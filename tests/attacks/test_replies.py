"""Who may answer, and where answers go: a stranger ends nobody's wait and aims no answer at third parties."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.fake_peer import answers
from gateway.client.agent import Agent as Client
from gateway.client.errors import NoReply
from gateway.config.sections import PeerSettings
from gateway.config.values import Secret
from tests.client.joined import lies_in
from tests.federation import Federation
from tests.telling import ask, pushed, receiver, waiting
from tests.world import Gateway, Reply, World

KEY = "a-key-that-proves-the-peer"
EVE = "eve@else.test"
FAR = "planner@far.test"
PATIENCE_SECONDS = 20.0
UNKEYED = {"far.test": PeerSettings("https://127.0.0.1:9")}  # never there, so what is sent to it waits


async def mail(gateway: Gateway, sender: str, to: str, key: str | None = None, **more: Any) -> Reply:
    message = {"version": "1.0", "sender": sender, "recipients": [to], "payload": "forged", **more}
    reply = await gateway.call("POST", "/v1/messages", key=key, json=message)
    assert reply.status == 202, reply.text
    return reply


async def sent_to(gateway: Gateway) -> list[str]:
    """Whom mail elsewhere is for, whether it waits or is over: names that lead nowhere are over at once."""
    rows = await gateway.app.database.fetch(
        "select recipient from deliveries union select recipient from settled order by recipient"
    )
    names = [row["recipient"] for row in rows]
    return [name for name in names if not name.endswith(f"@{gateway.domain}")]


async def test_a_stranger_who_knows_the_id_does_not_end_a_wait_for_a_peer_that_has_a_key(
    world: World,
) -> None:
    keyed = replace(UNKEYED["far.test"], proving_key=Secret(KEY), accept_unproven=True)
    async with world.gateway(peers={"far.test": keyed}) as gateway:
        alice = await gateway.register("alice")
        asking = asyncio.create_task(ask(alice, FAR, message_id="known-to-eve"))
        await waiting(gateway)
        await mail(gateway, FAR, alice.address, in_reply_to="known-to-eve")
        await mail(gateway, FAR, alice.address, KEY, in_reply_to="known-to-eve", payload="true")
        reply = await asking
        assert reply.status == 200
        assert (reply.json["reply"]["payload"], reply.json["reply"]["sender_verification"]) == (
            "true",
            "pass",
        )


async def test_where_no_key_can_be_had_an_unproven_reply_ends_the_wait_and_says_so(world: World) -> None:
    async with world.gateway(peers=UNKEYED) as gateway:
        alice = await gateway.register("alice")
        asking = asyncio.create_task(ask(alice, FAR, message_id="asked"))
        await waiting(gateway)
        await mail(gateway, FAR, alice.address, in_reply_to="asked")
        reply = await asking
        assert (reply.status, reply.json["reply"]["sender_verification"]) == (200, "none")


async def asked_by_client(
    gateway: Gateway, client: Client, then: Callable[[str], Awaitable[Any]], **how: Any
) -> Any:
    """What a program that asks gets; `then` happens when the gateway waits for it."""
    asking = asyncio.create_task(client.request(FAR, 1, **how))
    await waiting(gateway)
    await then(await gateway.app.database.fetchval("select public_id from messages"))
    return await asking


async def test_a_program_takes_no_reply_of_an_unproven_sender_and_finds_it_in_its_inbox(world: World) -> None:
    async with world.gateway(peers=UNKEYED) as gateway:
        alice = await gateway.register("alice")
        async with Client(alice.address, key=alice.key, gateway=gateway.url) as client:
            with pytest.raises(NoReply, match="accept_unproven_replies"):
                await asked_by_client(
                    gateway, client, lambda id_: mail(gateway, FAR, alice.address, in_reply_to=id_), timeout=2
                )
            (left,) = await lies_in(client, 1)
            assert (left.payload, left.proven) == ("forged", False)


async def test_a_program_that_says_so_takes_replies_of_unproven_senders(world: World) -> None:
    async with world.gateway(peers=UNKEYED) as gateway:
        alice = await gateway.register("alice")
        client = Client(alice.address, key=alice.key, gateway=gateway.url, accept_unproven_replies=True)
        async with client:
            reply = await asked_by_client(
                gateway, client, lambda id_: mail(gateway, FAR, alice.address, in_reply_to=id_), timeout=20
            )
            assert reply.payload == "forged"


@pytest.mark.parametrize(
    ("wanted", "recipient"),
    [
        ("victim@third.test", EVE),
        ("bob@acme.test", EVE),
        ("victim@sub.else.test", EVE),
        ("desk@ELSE.test", "desk@else.test"),
    ],
)
async def test_a_stranger_chooses_no_third_domain_for_what_an_agent_answers(
    world: World, wanted: str, recipient: str
) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        sent = await mail(gateway, EVE, alice.address, headers={"reply-to": wanted})
        (item,) = await alice.inbox()
        done = await gateway.call(
            "DELETE",
            f"/v1/inbox/{alice.address}/{item['message_id']}",
            key=alice.key,
            json={"reply": {"payload": "our word"}},
        )
        assert (done.status, item["message_id"]) == (200, sent.json["message_id"])
        assert await sent_to(gateway) == [recipient]


async def test_a_stranger_chooses_no_third_domain_for_what_a_webhook_answers(net: Federation) -> None:
    async with receiver(net) as hook, net.gateway("acme.test") as gateway:
        hook.will(answers(200, {"status": "accepted", "response": {"our": "word"}}))
        alice, _ = await pushed(gateway, hook)
        await mail(gateway, EVE, alice.address, headers={"reply-to": "victim@third.test"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await sent_to(gateway) != [EVE]:
                await asyncio.sleep(0.02)


async def test_a_proven_sender_has_its_answers_wherever_it_likes(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        assert (await bob.send(alice.address, headers={"reply-to": "desk@third.test"})).status == 202
        (item,) = await alice.inbox()
        path = f"/v1/inbox/{alice.address}/{item['message_id']}"
        assert (
            await gateway.call("DELETE", path, key=alice.key, json={"reply": {"payload": 1}})
        ).status == 200
        assert await sent_to(gateway) == ["desk@third.test"]
