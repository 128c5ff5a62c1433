"""An inbox that strangers filled is emptied: by its agent or an operator, audited, and the books go up."""

import json
from typing import Any

import pytest

from gateway.store.tallies import balance, unaccounted_entries
from tests.telling import stranger
from tests.world import Agent, Gateway, Reply, World


async def purge(gateway: Gateway, of: Agent, key: str, **said: Any) -> Reply:
    return await gateway.call("POST", f"/v1/inbox/{of.address}/purge", key=key, json=said)


async def audited(gateway: Gateway) -> list[tuple[str, Any]]:
    rows = await gateway.app.database.fetch(
        "select actor, details from audit where act = 'inbox.purged' order by number"
    )
    return [(row["actor"], json.loads(row["details"])) for row in rows]


async def test_an_operator_lets_go_of_what_strangers_wrote_and_of_nothing_else(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        kept = (await alice.send(bob.address)).json["message_id"]
        for _ in range(3):
            await stranger(gateway, bob.address)
        dry = await purge(gateway, bob, gateway.admin_key, unproven=True, dry_run=True)
        assert (dry.json["matched"], dry.json["purged"]) == (3, 0)
        done = await purge(gateway, bob, gateway.admin_key, unproven=True)
        assert (done.status, done.json["matched"], done.json["purged"]) == (200, 3, 3)
        assert [item["message_id"] for item in await bob.inbox()] == [kept]
        ((actor, details),) = await audited(gateway)
        assert (actor[:6], details) == ("tests-", {"count": 3, "unproven": True})
        assert (await balance(gateway.app.database)).unaccounted == 0
        assert await unaccounted_entries(gateway.app.database) == 0


async def test_an_agent_purges_its_own_inbox_by_age_or_sender_and_its_senders_see_it_delivered(
    world: World,
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sent = (await alice.send(bob.address)).json["message_id"]
        gateway.turn(3600)
        await stranger(gateway, bob.address)
        assert (await purge(gateway, bob, bob.key, older_than=7200)).json["purged"] == 0
        assert (await purge(gateway, bob, bob.key, sender=alice.address)).json["purged"] == 1
        assert (await alice.status(sent))["status"] == "delivered"
        assert (await purge(gateway, bob, bob.key, all=True)).json["purged"] == 1
        assert await bob.inbox() == []
        assert [actor for actor, _ in await audited(gateway)] == [bob.address, bob.address]


async def test_what_a_consumer_holds_under_a_lease_stays_its(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address)
        (item,) = await bob.inbox("?lease=60")
        assert (await purge(gateway, bob, gateway.admin_key, all=True)).json["matched"] == 0
        path = f"/v1/inbox/{bob.address}/{item['message_id']}"
        assert (await gateway.call("DELETE", path, key=bob.key)).status == 200


@pytest.mark.parametrize("said", [{}, {"sender": "nobody"}, {"older_than": -1}, {"unknown": True}])
async def test_a_slip_empties_nothing(world: World, said: dict[str, Any]) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address)
        assert (await purge(gateway, bob, bob.key, **said)).status == 400
        assert len(await bob.inbox()) == 1
