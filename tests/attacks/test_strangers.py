"""A flood of unproven mail fills its own pot: agents, peers with a key, and other inboxes notice nothing."""

from dataclasses import replace

from gateway.admit.strangers import BURST_SECONDS
from gateway.config.sections import LimitSettings, PeerSettings
from gateway.config.values import Secret
from tests.telling import in_an_hour, stranger, until
from tests.world import Agent, Gateway, Reply, World

KEY = "a-key-that-proves-the-peer"
MEBIBYTE = 1024 * 1024
PATIENCE_SECONDS = 60.0
PEERS = {"far.test": PeerSettings("https://amtp.far.test", proving_key=Secret(KEY))}
SMALL = LimitSettings(
    unproven_stored_bytes=2 * MEBIBYTE, unproven_inbox_bytes=MEBIBYTE, unproven_disk_free_bytes=0
)


async def peer(gateway: Gateway, to: Agent) -> Reply:
    message = {"version": "1.0", "sender": "planner@far.test", "recipients": [to.address], "payload": 1}
    return await gateway.call("POST", "/v1/messages", key=KEY, json=message)


async def test_no_stranger_writes_to_an_agent_that_has_retired_and_learns_nothing_of_it(world: World) -> None:
    async with world.gateway(peers=PEERS) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await gateway.call("DELETE", "/v1/admin/agents/bob", key=gateway.admin_key)
        retired, unknown = await stranger(gateway, bob.address), await stranger(gateway, "bab@acme.test")
        assert (retired.status, retired.code) == (404, "AGENT_UNKNOWN")
        said = [reply.json["error"]["message"].replace("bab", "bob") for reply in (retired, unknown)]
        assert said[0] == said[1]
        assert (await alice.send(bob.address)).status == 202
        assert (await peer(gateway, bob)).status == 202


async def test_one_inbox_that_strangers_filled_takes_mail_of_everybody_else(world: World) -> None:
    async with world.gateway(limits=SMALL, peers=PEERS) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        assert (await stranger(gateway, bob.address, size=MEBIBYTE)).status == 202
        full = await stranger(gateway, bob.address)
        assert (full.status, full.code, full.headers["retry-after"]) == (503, "QUEUE_FULL", "60")
        both = await stranger(gateway, bob.address, alice.address)
        assert [r["status"] for r in both.json["recipients"]] == ["failed", "delivered"]
        assert (await alice.send(bob.address)).status == 202
        assert (await peer(gateway, bob)).status == 202


async def test_when_strangers_filled_their_room_agents_and_peers_go_on_and_acknowledging_makes_room(
    world: World,
) -> None:
    async with world.gateway(limits=SMALL, peers=PEERS) as gateway:
        alice, bob, carol = [await gateway.register(name) for name in ("alice", "bob", "carol")]
        for each in (alice, bob):
            assert (await stranger(gateway, each.address, size=MEBIBYTE)).status == 202
        full = await stranger(gateway, carol.address)
        assert (full.status, full.code, full.headers["retry-after"]) == (503, "QUEUE_FULL", "60")
        assert (await alice.send(carol.address)).status == 202
        assert (await peer(gateway, carol)).status == 202
        (item,) = await bob.inbox()
        await gateway.call("DELETE", f"/v1/inbox/{bob.address}/{item['message_id']}", key=bob.key)

        async def room() -> bool:
            return (await stranger(gateway, carol.address)).status == 202

        await until(room, PATIENCE_SECONDS, 0.1)


async def test_what_strangers_stored_by_another_process_fills_the_same_room(world: World) -> None:
    async with world.gateway(limits=SMALL) as one, world.gateway(limits=SMALL) as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        for each in (alice, bob):
            assert (await stranger(one, each.address, size=MEBIBYTE)).status == 202

        async def full() -> bool:
            return (await stranger(other, alice.address)).status == 503

        await until(full, PATIENCE_SECONDS, 0.1)


async def test_mail_that_waits_for_an_agent_counts_as_what_lies_in_its_inbox(world: World) -> None:
    async with world.gateway(limits=SMALL) as gateway:
        bob = await gateway.register("bob")
        later = {"deliver-after": in_an_hour(gateway)}
        sent = await stranger(gateway, bob.address, size=MEBIBYTE, headers=later)
        assert sent.status == 202, sent.text
        assert (await stranger(gateway, bob.address)).code == "QUEUE_FULL"


async def test_strangers_that_flood_are_slowed_down_and_nobody_else_is(world: World) -> None:
    limits = replace(SMALL, unproven_messages_per_second=1)
    async with world.gateway(limits=limits, peers=PEERS) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        statuses = {(await stranger(gateway, bob.address)).status for _ in range(BURST_SECONDS + 30)}
        assert statuses == {202, 429}
        refused = await stranger(gateway, bob.address)
        assert (refused.code, int(refused.headers["retry-after"]) > 0) == ("RATE_LIMIT_EXCEEDED", True)
        assert {(await alice.send(bob.address)).status for _ in range(BURST_SECONDS + 30)} == {202}
        assert {(await peer(gateway, bob)).status for _ in range(BURST_SECONDS + 30)} == {202}
