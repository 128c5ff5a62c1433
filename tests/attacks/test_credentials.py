"""A credential is good for its listener, its purpose and its time, and whoever tries another is noticed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.admit.api_key import mint_key
from gateway.admit.remembered import TRUST_SECONDS
from gateway.config.sections import ListenerSettings, PeerSettings
from gateway.config.values import HostPort, Secret
from gateway.protocol.errors import AMTPError
from gateway.store.agents.keys import NamedKeys, NewKey
from tests.world import Agent, Gateway, Reply, World

KEY = "a-key-that-proves-the-peer"
FAR = "planner@far.test"
PATIENCE_SECONDS = 10.0
STREETS: Sequence[tuple[str, ...]] = (("public",), ("agents",), ("public", "agents"))


def listeners(*roles: Sequence[str]) -> tuple[ListenerSettings, ...]:
    return tuple(ListenerSettings(HostPort("127.0.0.1", 0), roles=tuple(each)) for each in roles)  # type: ignore[arg-type]


async def named(gateway: Gateway, name: str, *scopes: str) -> str:
    """A key that an operator made."""
    key = mint_key()
    keys = NamedKeys(gateway.app.database, gateway.app.audit)
    await keys.add(NewKey(key.id, key.digest), name, scopes, "tests")
    return key.text


async def mail(gateway: Gateway, to: Agent, sender: str = FAR, key: str | None = None, **more: Any) -> Reply:
    message = {"version": "1.0", "sender": sender, "recipients": [to.address], "payload": 1, **more}
    return await gateway.call("POST", "/v1/messages", key=key, json=message)


async def until_answered(gateway: Gateway, to: Agent, status: int) -> None:
    """Returns when unproven mail is answered so; every process learns of a change within two seconds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await mail(gateway, to)).status != status:
            await asyncio.sleep(0.1)


def told(gateway: Gateway, kind: str) -> list[str]:
    gateway.app.journal.flush()
    return [line for line in gateway.log.getvalue().splitlines() if f"kind={kind}" in line]


def counted(gateway: Gateway, kind: str) -> float:
    text = gateway.app.journal.metrics.render().decode()
    lines = [line for line in text.splitlines() if f'security_events_total{{kind="{kind}"}}' in line]
    return float(lines[0].split()[-1]) if lines else 0.0


@pytest.mark.parametrize("street", STREETS, ids="+".join)
async def test_an_operators_key_that_leaked_opens_nothing_in_the_street(
    world: World, street: tuple[str, ...]
) -> None:
    async with world.gateway(listen=listeners(("admin",), street)) as gateway:
        alice = await gateway.register("alice")
        outside = f"http://127.0.0.1:{gateway.app.ports[1]}"
        for header in ("X-Admin-Key", "X-API-Key"):
            refused = await gateway.session.get(
                f"{outside}/v1/capabilities/acme.test", headers={header: gateway.admin_key}
            )
            assert (refused.status, (await refused.json())["error"]["code"]) == (401, "AUTHENTICATION_FAILED")
        agents = await gateway.session.get(
            f"{outside}/v1/capabilities/acme.test", headers={"X-API-Key": alice.key}
        )
        assert agents.status == 200
        assert (await gateway.call("GET", "/v1/capabilities/acme.test", key=gateway.admin_key)).status == 200
        assert len(told(gateway, "admin_key_elsewhere")) == 1
        assert counted(gateway, "admin_key_elsewhere") == 2


async def test_on_a_listener_for_everything_an_operators_key_is_good(world: World) -> None:
    async with world.gateway(development=True) as gateway:
        assert (await gateway.call("GET", "/v1/admin/queue", key=gateway.admin_key)).status == 200


async def test_nobody_writes_in_the_name_of_a_peer_whose_key_is_known_here(world: World) -> None:
    peers = {"far.test": PeerSettings("https://amtp.far.test", proving_key=Secret(KEY))}
    async with world.gateway(peers=peers) as gateway:
        bob = await gateway.register("bob")
        forged = await mail(gateway, bob)
        assert (forged.status, forged.code) == (401, "AUTHENTICATION_FAILED")
        assert "far.test" in forged.json["error"]["message"]
        assert (await mail(gateway, bob, key=KEY)).status == 202
        assert (await mail(gateway, bob, sender="planner@else.test")).status == 202
        assert [item["sender_verification"] for item in await bob.inbox()] == ["pass", "none"]
        assert len(told(gateway, "unproven_peer")) == 1


async def test_a_key_made_for_a_peer_ends_belief_without_it_and_its_revocation_brings_it_back(
    world: World,
) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        assert (await mail(gateway, bob)).status == 202
        key = await named(gateway, "far", "peer:far.test")
        await until_answered(gateway, bob, 401)
        assert (await mail(gateway, bob, key=key)).status == 202
        await NamedKeys(gateway.app.database, gateway.app.audit).revoke("far", "tests")
        await until_answered(gateway, bob, 202)


async def test_an_operator_may_go_on_taking_a_peers_mail_without_its_key(world: World) -> None:
    strict = PeerSettings("https://amtp.far.test", proving_key=Secret(KEY))
    async with world.gateway(peers={"far.test": replace(strict, accept_unproven=True)}) as gateway:
        bob = await gateway.register("bob")
        assert (await mail(gateway, bob)).status == 202
        gateway.app.adopt(replace(gateway.app.config, peers={"far.test": strict}))
        assert (await mail(gateway, bob)).status == 401


async def test_a_key_for_two_peers_is_not_made_and_one_of_old_proves_neither(world: World) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        with pytest.raises(AMTPError, match="one domain"):
            await named(gateway, "both", "peer:far.test", "peer:near.test")
        old = mint_key()
        await gateway.app.database.execute(
            "insert into keys (id, digest, scopes, name, created_at) values ($1, $2, $3, 'old', amtp_now())",
            old.id,
            old.digest,
            ["peer:far.test", "peer:near.test"],
        )
        for sender in (FAR, "planner@near.test"):
            assert (await mail(gateway, bob, sender=sender, key=old.text)).status == 401
        assert len(told(gateway, "several_peers")) == 1


async def test_a_thief_who_uses_a_key_that_was_taken_back_is_seen_by_the_operator(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        rotated = await gateway.call(
            "POST", "/v1/admin/agents/alice/rotate-key", key=gateway.admin_key, json={"grace_seconds": 0}
        )
        assert rotated.status == 200
        for _ in range(3):
            assert (await alice.send(bob.address)).status == 401
        (line,) = told(gateway, "revoked_key")
        assert f"key={alice.key.split('_')[1]}" in line
        assert alice.key.split("_")[2] not in line
        assert counted(gateway, "revoked_key") == 3


async def test_a_guesser_makes_one_line_a_minute_and_every_guess_counts(world: World) -> None:
    async with world.gateway() as gateway:
        for guess in (mint_key().text, mint_key().text, "nonsense"):
            reply = await gateway.call("GET", "/v1/discovery/agents", key=guess)
            assert reply.status == 401
        assert len(told(gateway, "wrong_key")) == 1
        assert counted(gateway, "wrong_key") == 3


async def test_who_tries_to_relay_is_seen(world: World) -> None:
    async with world.gateway() as gateway:
        message = {"version": "1.0", "sender": FAR, "recipients": ["victim@third.test"], "payload": 1}
        for _ in range(2):
            denied = await gateway.call("POST", "/v1/messages", json=message)
            assert (denied.status, denied.code) == (403, "RELAY_DENIED")
        (line,) = told(gateway, "relay_denied")
        assert "client=127.0.0.1" in line
        assert counted(gateway, "relay_denied") == 2


async def test_a_key_that_was_made_for_a_while_ends_with_it(world: World) -> None:
    async with world.gateway() as gateway:
        bob, key = await gateway.register("bob"), mint_key()
        keys = NamedKeys(gateway.app.database, gateway.app.audit)
        await keys.add(NewKey(key.id, key.digest), "far", ["peer:far.test"], "tests", 3600)
        assert (await mail(gateway, bob, key=key.text)).status == 202
        gateway.turn(3601)
        assert (await mail(gateway, bob, key=key.text)).status == 401
        (line,) = told(gateway, "expired_key")
        assert f"key={key.id}" in line


async def test_a_key_taken_back_at_one_process_is_dead_at_another_within_two_seconds(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        thief = (await one.register("alice")).at(other)
        bystander = (await one.register("bob")).at(other)
        assert await thief.inbox() == await bystander.inbox() == []
        reply = await one.call("DELETE", f"/v1/admin/agents/{thief.address}", key=one.admin_key)
        assert reply.status == 200
        path = f"/v1/inbox/{thief.address}"
        async with asyncio.timeout(3 * TRUST_SECONDS):
            while (await other.call("GET", path, key=thief.key)).status != 401:
                await asyncio.sleep(0.05)
        assert await bystander.inbox() == []
