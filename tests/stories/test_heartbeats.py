"""Messages that say no more than that their sender lives."""

from tests.federation import Ground, federation
from tests.world import Agent, Gateway, World

BEAT = {"kind": "heartbeat"}


async def last_active(gateway: Gateway, agent: Agent) -> object:
    await gateway.app.housekeeping.once()
    return await gateway.app.database.fetchval(
        "select last_active_at from agents where name = $1", agent.address
    )


async def test_a_heartbeat_shows_that_its_sender_lives_and_leaves_nothing_behind(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        assert await last_active(gateway, alice) is None
        reply = await alice.send(bob.address, headers=BEAT)
        assert (reply.status, reply.json["status"]) == (202, "delivered")
        assert await last_active(gateway, alice) is not None
        assert await last_active(gateway, bob) is None
        assert await gateway.app.database.fetchval("select count(*) from messages") == 0
        assert await bob.inbox() == []


async def test_nobody_is_still_nobody_to_a_heartbeat(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        reply = await alice.send("ghost@acme.test", headers=BEAT)
        assert (reply.status, reply.code) == (404, "AGENT_UNKNOWN")


async def test_a_heartbeat_to_another_domain_is_carried_there_and_ends_at_its_door(
    world: World, ground: Ground
) -> None:
    async with (
        federation(world, ground) as net,
        net.gateway("acme.test") as acme,
        net.gateway("umbrella.test") as umbrella,
    ):
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        dave = await acme.register("dave")
        reply = await alice.send(bob.address, dave.address, headers={**BEAT, "delivery": "best_effort"})
        assert (reply.status, reply.json["status"]) == (200, "delivered")
        assert await bob.inbox() == await dave.inbox() == []
        status = await alice.status(reply.json["message_id"])
        assert [each["address"] for each in status["recipients"]] == [bob.address]
        assert await last_active(acme, alice) is not None
