"""A message that kills whoever reads it: what becomes of it, and of those that came beside it."""

from typing import Any

from gateway.store.clock import Clock
from tests.world import Agent, Gateway, World

LEASE_SECONDS = 30


async def a_life(gateway: Gateway, agent: Agent, poison: str) -> list[str]:
    """A consumer takes a page and digests it in order, acknowledging each, until one kills it."""
    box = f"/v1/inbox/{agent.address}"
    page = (await gateway.call("GET", f"{box}?lease={LEASE_SECONDS}&limit=100", key=agent.key)).json
    digested = []
    for message in page["messages"]:
        if message["message_id"] == poison:
            break
        path = f"{box}/{message['message_id']}?lease={page['lease']['token']}"
        reply = await gateway.call("DELETE", path, key=agent.key)
        assert reply.status == 200, reply.text
        digested.append(message["message_id"])
    return digested


async def dead_letters(gateway: Gateway, query: str = "") -> list[dict[str, Any]]:
    reply = await gateway.call("GET", f"/v1/dead-letters{query}", key=gateway.admin_key)
    found: list[dict[str, Any]] = reply.json["dead_letters"]
    return found


async def test_a_consumer_that_dies_of_the_first_of_forty_loses_that_one_and_digests_the_others(
    world: World,
) -> None:
    async with world.gateway(clock=Clock()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sent = [(await alice.send(bob.address)).json["message_id"] for _ in range(40)]
        digested: list[str] = []
        for _ in range(60):
            digested += await a_life(gateway, bob, sent[0])
            gateway.turn(LEASE_SECONDS + 1)
            await gateway.app.housekeeping.once()
        (letter,) = await dead_letters(gateway)
        assert (letter["message_id"], letter["kind"], letter["attempts"]) == (sent[0], "undigested", 10)
        assert digested == sent[1:]


async def test_an_operator_replays_by_recipient_what_an_agent_could_not_digest(world: World) -> None:
    async with world.gateway(clock=Clock()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sent = [(await alice.send(bob.address)).json["message_id"] for _ in range(3)]
        await gateway.app.database.execute(
            "update entries set lapses = 9, read_at = amtp_now(), lease_until = amtp_now()"
        )
        gateway.turn(1)
        await gateway.app.housekeeping.once()
        assert len(await dead_letters(gateway, f"?recipient={bob.address}")) == 3
        assert await bob.inbox() == []

        path, key = "/v1/dead-letters/replay", gateway.admin_key
        other = {"recipient": alice.address}
        assert (await gateway.call("POST", path, key=key, json=other)).json["matched"] == 0
        wanted = {"recipient": bob.address, "limit": 2}
        dry = (await gateway.call("POST", path, key=key, json={**wanted, "dry_run": True})).json
        assert (dry["matched"], dry["replayed"]) == (3, 0)
        done = (await gateway.call("POST", path, key=key, json=wanted)).json
        assert (done["matched"], done["replayed"], done["has_more"]) == (3, 2, True)
        assert [message["message_id"] for message in await bob.inbox("?status=unread")] == sent[:2]
        done = (await gateway.call("POST", path, key=key, json={"all": True})).json
        assert (done["matched"], done["replayed"], done["has_more"]) == (1, 1, False)
        assert [message["message_id"] for message in await bob.inbox("?status=unread")] == sent[2:]
        assert await dead_letters(gateway) == []
