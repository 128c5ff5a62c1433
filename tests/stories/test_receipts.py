"""Receipts: whoever asked hears once that a message was delivered, or read, and nobody else hears anything."""

import asyncio
from typing import Any

import pytest

from conformance.fake_peer import answers
from gateway.config.sections import PeerSettings
from gateway.config.values import Secret
from tests.federation import Federation, host_of
from tests.telling import in_an_hour, until
from tests.world import Agent, Gateway, World

READ, DELIVERED = {"receipt": "read"}, {"receipt": "delivered"}


@pytest.fixture
def poll_seconds() -> float:
    return 0.1


async def receipts(agent: Agent, *gateways: Gateway) -> list[dict[str, Any]]:
    """What lies in the agent's inbox when every process has written what is owed."""
    await asyncio.gather(*(gateway.app.housekeeping.once() for gateway in gateways or (agent.gateway,)))
    return await agent.inbox("?limit=1000")


def told(receipt: dict[str, Any]) -> tuple[str, str, list[str]]:
    kind = receipt["payload"]["receipt"]
    return receipt["in_reply_to"], kind, receipt["payload"][f"{kind}_recipients"]


async def test_a_sender_who_asks_hears_once_who_has_the_message(world: World) -> None:
    async with world.gateway() as one, world.gateway(clock=one.app.clock) as other:
        alice, bob, carol = [await one.register(name) for name in ("alice", "bob", "carol")]
        headers = {"correlation-id": "c-1", **DELIVERED}
        sent = await alice.send("Bob+desk@acme.test", carol.address, headers=headers, idempotency_key="k")
        found = await receipts(alice, one, other)
        recipients = sorted(address for receipt in found for address in told(receipt)[2])
        assert recipients == ["Bob+desk@acme.test", carol.address]
        for receipt in found:
            assert receipt["in_reply_to"] == sent.json["message_id"]
            assert (receipt["sender"], receipt["message_type"]) == ("postmaster@acme.test", "receipt")
            assert receipt["sender_verification"] == "pass"
            assert receipt["headers"] == {
                "auto-submitted": "auto-generated",
                "kind": "ack",
                "correlation-id": "c-1",
            }
        await alice.send("bob@acme.test", carol.address, headers=headers, idempotency_key="k")
        assert len(await receipts(alice, one, other)) == len(found)
        assert len(await bob.inbox()) == 1


async def test_a_recipient_who_is_added_later_is_told_of_too(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob, carol = [await gateway.register(name) for name in ("alice", "bob", "carol")]
        for recipient in (bob, carol):
            await alice.send(recipient.address, headers=DELIVERED, idempotency_key="k")
        assert [told(receipt)[2] for receipt in await receipts(alice)] in (
            [[bob.address, carol.address]],
            [[bob.address], [carol.address]],
        )


READING: dict[str, tuple[str, str, Any]] = {
    "fetches": ("GET", "", None),
    "leases": ("GET", "?lease=30", None),
    "acknowledges unread": ("DELETE", "/{id}", None),
    "acknowledges many": ("POST", "/ack", {"message_ids": ["{id}"]}),
    "acknowledges with an answer": ("DELETE", "/{id}", {"messages": []}),
}


@pytest.mark.parametrize("way", sorted(READING))
async def test_a_sender_hears_once_that_it_was_read(world: World, way: str) -> None:
    method, path, body = READING[way]
    async with world.gateway() as one, world.gateway(clock=one.app.clock) as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        message_id = (await alice.send(bob.address, headers=READ)).json["message_id"]
        assert await receipts(alice, one, other) == []
        if body and "message_ids" in body:
            body = {"message_ids": [message_id]}
        for _ in range(2):
            reply = await one.call(
                method, f"/v1/inbox/{bob.address}{path.format(id=message_id)}", key=bob.key, json=body
            )
            assert reply.status == 200, reply.text
            one.turn(31)
        await one.call("DELETE", f"/v1/inbox/{bob.address}/{message_id}", key=bob.key)
        (receipt,) = await receipts(alice, one, other)
        assert told(receipt) == (message_id, "read", [bob.address])


async def test_a_message_that_waits_is_told_of_when_it_is_there(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        then = in_an_hour(gateway)
        ids = [
            (await alice.send(bob.address, headers={"deliver-after": then, **headers})).json["message_id"]
            for headers in (DELIVERED, READ)
        ]
        assert await receipts(alice) == []
        gateway.turn(3601)
        await until(lambda: arrived(gateway, 2))
        assert [told(receipt) for receipt in await receipts(alice)] == [(ids[0], "delivered", [bob.address])]
        assert len(await bob.inbox()) == 2
        assert told((await receipts(alice))[1]) == (ids[1], "read", [bob.address])


async def arrived(gateway: Gateway, count: int) -> bool:
    """Whether so many entries came by the queue."""
    found = await gateway.app.database.fetchval("select count(*) from entries where delivered_at is not null")
    return bool(found == count)


@pytest.mark.parametrize("submitted", ["auto-generated", "auto-replied"])
async def test_nothing_automatic_gets_a_receipt(world: World, submitted: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        for wanted in (READ, DELIVERED):
            await alice.send(bob.address, headers={"auto-submitted": submitted, **wanted})
        await bob.inbox()
        assert await receipts(alice) == []


@pytest.mark.parametrize("submitted", ["auto-generated", "auto-replied"])
async def test_nothing_automatic_gets_a_report(world: World, submitted: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        then = in_an_hour(gateway)
        ids = []
        for word in ("no", submitted):
            headers = {"deliver-after": then, "auto-submitted": word}
            ids.append((await alice.send(bob.address, headers=headers)).json["message_id"])
        path = f"/v1/admin/agents/{bob.address}?mail=return"
        assert (await gateway.call("DELETE", path, key=gateway.admin_key)).status == 200
        gateway.turn(3601)

        async def over() -> bool:
            statuses = [(await alice.status(message_id))["status"] for message_id in ids]
            return statuses == ["failed", "failed"]

        await until(over)
        assert [report["in_reply_to"] for report in await receipts(alice)] == ids[:1]


async def test_a_receipt_causes_none(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address, headers=DELIVERED)
        assert len(await receipts(alice)) == 1
        assert len(await receipts(alice)) == 1
        path = "/v1/inbox/postmaster@acme.test"
        assert (await gateway.call("GET", path, key=gateway.admin_key)).json["messages"] == []


@pytest.mark.parametrize("proven", [False, True])
async def test_only_a_proven_sender_from_elsewhere_gets_a_receipt(net: Federation, proven: bool) -> None:
    key = "a-key-that-proves-the-peer"
    peer = net.fake()
    net.introduce(peer)
    known = {"peer.test": PeerSettings(peer.url, proving_key=Secret(key), accept_unproven=True)}
    async with net.gateway("acme.test", peers=known) as acme, peer.listening():
        bob = await acme.register("bob")
        message = {
            "version": "1.0",
            "sender": "eve@peer.test",
            "recipients": [bob.address],
            "payload": 1,
            "headers": READ,
        }
        reply = await acme.call("POST", "/v1/messages", key=key if proven else None, json=message)
        assert reply.status == 202, reply.text
        await bob.inbox()
        await acme.app.housekeeping.once()
        assert await acme.app.database.fetchval("select count(*) from messages where automatic") == proven
        if proven:

            async def posted() -> list[str]:
                return [m["in_reply_to"] for request in peer.posts for m in request.messages]

            assert await until(posted) == [reply.json["message_id"]]


async def test_of_a_message_for_elsewhere_the_gateway_there_tells_and_this_one_does_not(
    net: Federation,
) -> None:
    keys = {"acme.test": "the-key-that-proves-acme", "peer.test": "the-key-that-proves-peer"}

    def known(here: str, there: str) -> dict[str, PeerSettings]:
        host = host_of(there)
        url = f"https://{host}:{net.ground.site(host).port}"
        return {there: PeerSettings(url, bearer=Secret(keys[here]), proving_key=Secret(keys[there]))}

    async with (
        net.gateway("acme.test", peers=known("acme.test", "peer.test")) as acme,
        net.gateway("peer.test", peers=known("peer.test", "acme.test")) as peer,
    ):
        alice, bob = await acme.register("alice"), await peer.register("bob")
        sent = await alice.send(bob.address, headers=DELIVERED)
        await until(bob.inbox)
        (receipt,) = await until(lambda: receipts(alice, acme, peer))
        assert told(receipt) == (sent.json["message_id"], "delivered", [bob.address])
        assert (receipt["sender"], receipt["sender_verification"]) == ("postmaster@peer.test", "pass")
        assert len(await receipts(alice, acme, peer)) == 1


@pytest.mark.parametrize("wanted", ["delivered", "read"])
async def test_an_agent_that_took_a_push_has_read_it(net: Federation, wanted: str) -> None:
    host = "hooks.acme.test"
    hook = net.fake(domain=host, host=host, path="/in")
    net.dns.add(host, "A", hook.address)
    hook.will(answers(503), answers(200))
    async with net.gateway("acme.test") as acme, hook.listening():
        alice = await acme.register("alice")
        bob = await acme.register("bob", delivery_mode="push", push_target=hook.url)
        sent = await alice.send(bob.address, headers={"receipt": wanted})
        await until(lambda: tried(acme))
        assert await receipts(alice) == []
        net.turn(3600)
        (receipt,) = await until(lambda: receipts(alice))
        assert told(receipt) == (sent.json["message_id"], wanted, [bob.address])


async def tried(gateway: Gateway) -> bool:
    """Whether an attempt is over and the next one waits."""
    return bool(await gateway.app.database.fetchval("select token is null and attempts = 1 from deliveries"))
