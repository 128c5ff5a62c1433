"""What operators see of other domains' gateways: who is known, from where, how they are, when they were in touch."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.fake_peer import FakePeer, refuses
from gateway.config.sections import PeerSettings
from gateway.config.values import Secret
from gateway.store.queue.contacts import QUIET_DAYS_MAX, Contacts, forget_strangers
from tests.cli import command
from tests.cli.command import by_admin_key
from tests.federation import Federation
from tests.telling import ended
from tests.world import Agent, Gateway

KEY = "a-key-that-proves-the-peer"
KNOWN = {"known.test": PeerSettings("https://amtp.known.test", features=("batch",), proving_key=Secret(KEY))}


@pytest.fixture
async def acme(net: Federation) -> AsyncIterator[Gateway]:
    async with net.gateway("acme.test", peers=KNOWN) as gateway:
        yield gateway


async def look(gateway: Gateway, path: str = "") -> Any:
    reply = await gateway.call("GET", f"/v1/admin/peers{path}", key=gateway.admin_key)
    assert reply.status == 200, reply.text
    return reply.json


async def delivered(alice: Agent, recipient: str) -> None:
    message_id = (await alice.send(recipient)).json["message_id"]
    await ended(alice, message_id, 10)


async def test_configured_peers_are_known_before_anything_went_there(acme: Gateway) -> None:
    (known,) = (await look(acme))["peers"]
    assert (known["domain"], known["source"]) == ("known.test", "configuration")
    assert known["publishes"]["gateway"] == "https://amtp.known.test"
    assert known["publishes"]["features"] == ["batch"]
    assert (known["queued"], known["last_contact"], known["window"]) == (0, None, None)


async def test_a_domain_is_known_once_it_was_found_with_what_it_publishes(
    net: Federation, acme: Gateway
) -> None:
    alice = await acme.register("alice")
    async with net.peer(max_size=54321) as peer:
        await delivered(alice, "bob@peer.test")
        found = await look(acme, "/peer.test")
    assert found["source"] == "dns"
    assert found["publishes"] == {"gateway": peer.url, "auth": [], "max_size": 54321, "features": []}
    assert found["directory"]["told"] == f"Its gateway is {peer.url}."
    assert found["answered_at"] == found["last_contact"] is not None
    assert (found["heard_at"], found["queued"], found["open_until"]) == (None, 0, None)


async def test_what_a_domain_said_is_known_after_a_restart(net: Federation) -> None:
    async with net.peer() as peer:
        async with net.gateway("acme.test") as acme:
            await delivered(await acme.register("alice"), "bob@peer.test")
            before = await look(acme, "/peer.test")
        async with net.gateway("acme.test") as again:
            after = await look(again, "/peer.test")
    assert (after["directory"], after["window"]) == (None, None)
    assert after["publishes"]["gateway"] == peer.url
    assert (after["spoke_at"], after["answered_at"]) == (before["spoke_at"], before["answered_at"])


async def test_a_proven_domain_that_hands_something_in_was_heard(acme: Gateway) -> None:
    bob = await acme.register("bob")
    message = {"version": "1.0", "sender": "eve@known.test", "recipients": [bob.address], "payload": 1}
    assert (await acme.call("POST", "/v1/messages", json=message, key=KEY)).status == 202
    found = await look(acme, "/known.test")
    assert found["heard_at"] == found["last_contact"] is not None
    assert found["answered_at"] is None


async def test_a_peer_that_fails_shows_its_breaker_its_queue_and_its_window(
    net: Federation, acme: Gateway
) -> None:
    alice = await acme.register("alice")
    async with net.peer() as peer:
        peer.will(refuses(500, "TEMPORARY_FAILURE", "Not today."))
        for number in range(6):
            await alice.send("bob@peer.test", payload=number)
        async with asyncio.timeout(10):
            while (await look(acme, "/peer.test"))["open_until"] is None:
                await asyncio.sleep(0.02)
        found = await look(acme, "/peer.test")
    assert found["queued"] == 6
    assert found["failures"] >= 5
    assert "500" in found["last_error"]
    assert found["window"]["size"] < 4


async def test_peers_come_in_pages_and_unknown_ones_not_at_all(net: Federation, acme: Gateway) -> None:
    alice = await acme.register("alice")
    for domain in ("b.test", "z.test"):
        async with net.peer(domain):
            await delivered(alice, f"bob@{domain}")
    first = await look(acme, "?limit=2")
    assert [peer["domain"] for peer in first["peers"]] == ["b.test", "known.test"]
    assert (first["has_more"], first["cursor"]) == (True, "known.test")
    rest = await look(acme, "?limit=2&cursor=known.test")
    assert ([peer["domain"] for peer in rest["peers"]], rest["has_more"]) == (["z.test"], False)
    reply = await acme.call("GET", "/v1/admin/peers/never.test", key=acme.admin_key)
    assert (reply.status, reply.code) == (404, "NOT_FOUND")


async def test_who_was_not_in_touch_for_a_year_is_forgotten(acme: Gateway) -> None:
    contacts = Contacts(acme.app.clock)
    contacts.answered("old.test")
    contacts.answered("push@acme.test")  # an agent here
    await contacts.write(acme.app.database)
    assert [peer["domain"] for peer in (await look(acme))["peers"]] == ["known.test", "old.test"]
    acme.turn(QUIET_DAYS_MAX * 86_400 + 1)
    await forget_strangers(acme.app.database)
    assert [peer["domain"] for peer in (await look(acme))["peers"]] == ["known.test"]


async def test_the_command_lists_and_shows_them(net: Federation, acme: Gateway) -> None:
    async def amtp(*words: str) -> str:
        result = await command.amtp(by_admin_key(acme) | {"COLUMNS": "250"}, "peers", *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    alice = await acme.register("alice")
    peer: FakePeer
    async with net.peer(features=frozenset({"batch"})) as peer:
        await delivered(alice, "bob@peer.test")
    heading, known, found = (await amtp("list")).splitlines()
    assert heading.split() == [
        "DOMAIN",
        "KNOWN",
        "FROM",
        "GATEWAY",
        "QUEUED",
        "WINDOW",
        "STATE",
        "LAST",
        "CONTACT",
    ]
    assert known.split()[:5] == ["known.test", "configuration", "https://amtp.known.test", "0", "idle"]
    assert found.split()[:3] == ["peer.test", "dns", peer.url]
    shown = await amtp("show", "peer.test")
    assert "Features          batch" in shown
    assert "Last answered" in shown
    assert json.loads(await amtp("show", "peer.test", "--json"))["publishes"]["gateway"] == peer.url
    assert json.loads(await amtp("list", "--json", "--limit", "1"))["count"] == 1
