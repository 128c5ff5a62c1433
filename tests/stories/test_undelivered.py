"""A gateway that took a message and can't deliver it after all: what its report changes, and what nobody else's does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conformance.fake_peer import FakePeer, refuses
from gateway.config.sections import PeerSettings
from gateway.config.values import Secret
from gateway.store.tallies import balance
from tests.federation import Federation
from tests.telling import count, ended, gate, mail, until
from tests.world import Agent, Gateway

KEY, OTHER = "the-key-that-proves-peer", "the-key-that-proves-other"
BOB = "bob@peer.test"


@asynccontextmanager
async def together(net: Federation) -> AsyncIterator[tuple[Gateway, FakePeer, Agent]]:
    """A gateway, a peer that proves itself by a key, and an agent."""
    async with net.peer() as peer:
        known = {
            "peer.test": PeerSettings(peer.url, proving_key=Secret(KEY)),
            "other.test": PeerSettings("https://amtp.other.test", proving_key=Secret(OTHER)),
        }
        async with net.gateway("acme.test", peers=known) as acme:
            yield acme, peer, await acme.register("alice")


async def report(
    gateway: Gateway,
    message_id: str,
    *,
    key: str | None = KEY,
    sender: str = "postmaster@peer.test",
    failed: str = BOB,
    kind: str = "delivery_failure",
) -> None:
    facts = {
        "message_type": kind,
        "failed_recipients": [failed],
        "error_code": "RECIPIENT_UNAVAILABLE",
        "error_message": "Its disk is full.",
        "error_details": {"disk": 1},
    }
    message = {
        "version": "1.0",
        "sender": sender,
        "recipients": ["alice@acme.test"],
        "in_reply_to": message_id,
        "headers": {"auto-submitted": "auto-generated"},
        "payload": facts,
        **facts,
    }
    reply = await gateway.call("POST", "/v1/messages", key=key, json=message)
    assert reply.status == 202, reply.text


async def row_of(sender: Agent, message_id: str) -> dict[str, Any]:
    (row,) = (await sender.status(message_id))["recipients"]
    return dict(row)


async def test_what_a_gateway_took_and_gave_up_is_failed_with_its_reason(net: Federation) -> None:
    async with together(net) as (acme, _, alice):
        message_id = (await alice.send("Bob@peer.test", message_id="order-17")).json["message_id"]
        assert (await ended(alice, message_id))["status"] == "delivered"
        for _ in range(2):
            await report(acme, message_id)
        row = await row_of(alice, message_id)
        assert (row["status"], row["via"], row["delivered_at"]) == ("failed", "amtp:amtp.peer.test", None)
        assert row["error"] == {
            "code": "RECIPIENT_UNAVAILABLE",
            "message": "peer.test took it, and reported later: Its disk is full.",
            "details": {"disk": 1},
        }
        assert await count(acme, "dead_letters") == 1
        assert (await balance(acme.app.database)).unaccounted == 0
        assert len(await mail(alice)) == 2, "the reports alone: we write none of our own"


async def test_a_report_that_overtakes_the_answer_ends_the_delivery(net: Federation) -> None:
    async with together(net) as (acme, peer, alice):
        answered, behave = gate()
        peer.will(behave)
        message_id = (await alice.send(BOB)).json["message_id"]
        await until(lambda: posted(peer))
        await report(acme, message_id)
        answered.set()
        assert (await ended(alice, message_id))["status"] == "failed"
        after = (await alice.send("carol@peer.test")).json["message_id"]
        assert (await ended(alice, after))["status"] == "delivered"
        assert (await row_of(alice, message_id))["status"] == "failed"
        assert (await balance(acme.app.database)).unaccounted == 0


async def posted(peer: FakePeer) -> bool:
    return bool(peer.posts)


@pytest.mark.parametrize(
    "forged",
    [
        {"sender": BOB},
        {"key": OTHER, "sender": "postmaster@other.test"},
        {"failed": "carol@peer.test"},
        {"kind": "delivery_delayed"},
    ],
    ids=["an agent of it", "another domain", "another recipient", "only late"],
)
async def test_what_others_report_changes_nothing(net: Federation, forged: dict[str, Any]) -> None:
    async with together(net) as (acme, _, alice):
        message_id = (await alice.send(BOB)).json["message_id"]
        await ended(alice, message_id)
        await report(acme, message_id, **forged)
        assert (await row_of(alice, message_id))["status"] == "delivered"
        assert await count(acme, "dead_letters") == 0
        assert len(await mail(alice)) == 1, "it is a message like any other"


async def test_what_nobody_proved_changes_nothing(net: Federation) -> None:
    async with net.peer(), net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        message_id = (await alice.send(BOB)).json["message_id"]
        await ended(alice, message_id)
        await report(acme, message_id, key=None)
        assert (await row_of(alice, message_id))["status"] == "delivered"


async def test_nobody_elsewhere_fails_what_lies_in_an_inbox_here(net: Federation) -> None:
    async with together(net) as (acme, _, alice):
        dave = await acme.register("dave")
        message_id = (await alice.send(dave.address)).json["message_id"]
        await report(acme, message_id, failed=dave.address)
        assert (await row_of(alice, message_id))["status"] == "delivered"


async def test_two_gateways_of_ours_agree_on_what_came_of_a_message(net: Federation) -> None:
    keys = {"acme.test": "the-key-that-proves-acme", "peer.test": KEY}

    def known(here: str, there: str, host: str) -> dict[str, PeerSettings]:
        url = f"https://{host}:{net.ground.site(host).port}"
        return {there: PeerSettings(url, bearer=Secret(keys[here]), proving_key=Secret(keys[there]))}

    hook = net.fake(domain="hooks.test", host="hooks.test", path="/in")
    net.dns.add("hooks.test", "A", hook.address)
    hook.will(refuses(400, "SCHEMA_UNSUPPORTED", "Not such a one."))
    async with (
        hook.listening(),
        net.gateway("acme.test", peers=known("acme.test", "peer.test", "amtp.hive.test")) as acme,
        net.gateway(
            "hive.test", "peer.test", peers=known("peer.test", "acme.test", "amtp.acme.test")
        ) as peer,
    ):
        alice = await acme.register("alice")
        await peer.register("bob@peer.test", delivery_mode="push", push_target=hook.url)
        message_id = (await alice.send(BOB, message_id="order-17")).json["message_id"]
        (told,) = await mail(alice)
        assert (told["sender"], told["in_reply_to"]) == ("postmaster@peer.test", "order-17")
        row = await row_of(alice, message_id)
        assert (row["status"], row["error"]["code"]) == ("failed", "SCHEMA_UNSUPPORTED")
