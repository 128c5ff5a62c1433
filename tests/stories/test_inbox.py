"""Agents and their inboxes, on gateways that share one database."""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp

from gateway.store.clock import Clock
from tests.world import Agent, Gateway, World

PATIENCE_SECONDS = 20.0


async def ids_of(replies: list[Any]) -> list[str]:
    return [reply.json["message_id"] for reply in replies]


async def send_many(sender: Agent, recipient: Agent, count: int) -> list[str]:
    replies = await asyncio.gather(*(sender.send(recipient.address) for _ in range(count)))
    assert {reply.status for reply in replies} == {202}
    return await ids_of(list(replies))


async def listed(gateway: Gateway, agent: Agent, query: str = "") -> dict[str, Any]:
    reply = await gateway.call("GET", f"/v1/inbox/{agent.address}{query}", key=agent.key)
    assert reply.status == 200, reply.text
    found: dict[str, Any] = reply.json
    return found


async def consume(gateway: Gateway, agent: Agent, size: int) -> list[str]:
    """Takes and acknowledges until nothing is left; returns what it held."""
    held = []
    while (page := await listed(gateway, agent, f"?lease=60&limit={size}"))["messages"]:
        ids = [message["message_id"] for message in page["messages"]]
        held += ids
        body = {"message_ids": ids, "lease": page["lease"]["token"]}
        reply = await gateway.call("POST", f"/v1/inbox/{agent.address}/ack", key=agent.key, json=body)
        assert reply.json["acknowledged"] == len(ids)
    return held


async def test_consumers_on_two_gateways_share_an_inbox_and_each_message_is_held_once(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        sent = await send_many(alice, bob, 120)
        consumers = [consume(gateway, bob, size) for gateway in (one, other) for size in (1, 7, 20)]
        held = [message_id for ids in await asyncio.gather(*consumers) for message_id in ids]
        assert Counter(held) == Counter(sent)
        assert (await listed(one, bob))["messages"] == []


async def test_a_reader_on_one_gateway_is_woken_by_a_message_posted_at_another(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        waiting = asyncio.create_task(listed(other, bob, "?wait=60"))
        replies = await asyncio.gather(*(alice.send(bob.address) for _ in range(3)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            page = await waiting
        assert page["messages"][0]["message_id"] in await ids_of(list(replies))


async def test_a_consumer_that_keeps_dying_leaves_a_dead_letter_and_the_message_delivered(
    world: World,
) -> None:
    clock = Clock()
    async with world.gateway(clock=clock) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        (message_id,) = await send_many(alice, bob, 1)
        for lapse in range(10):
            (item,) = (await listed(gateway, bob, "?lease=30"))["messages"]
            assert item["gateway"].get("lapses", 0) == lapse
            gateway.turn(31)
        assert (await listed(gateway, bob, "?lease=30"))["messages"] == []
        await gateway.app.housekeeping.once()
        reply = await gateway.call("GET", f"/v1/inbox/{bob.address}/dead-letters", key=bob.key)
        (letter,) = reply.json["dead_letters"]
        assert letter["message_id"] == message_id
        assert (await alice.status(message_id))["status"] == "delivered"
        gateway.app.journal.flush()
        assert any("poisoned" in line and message_id in line for line in gateway.log.getvalue().splitlines())


async def test_acknowledging_twice_at_two_gateways_is_as_good_as_once(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        (message_id,) = await send_many(alice, bob, 1)
        path = f"/v1/inbox/{bob.address}/{message_id}"
        replies = await asyncio.gather(
            *(gateway.call("DELETE", path, key=bob.key) for gateway in (one, other) for _ in range(5))
        )
        assert {reply.status for reply in replies} == {200}
        assert {reply.json["status"] for reply in replies} == {"acknowledged"}
        assert len({reply.json["timestamp"] for reply in replies}) == 1


async def test_a_stream_that_breaks_is_taken_up_at_another_gateway_where_it_stopped(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        sent = await send_many(alice, bob, 3)
        first = await events(one, bob, 3)
        assert sorted(message["message_id"] for message in first) == sorted(sent)
        await one.call("DELETE", f"/v1/inbox/{bob.address}/{first[0]['message_id']}", key=bob.key)
        last = first[2]["gateway"]["entry"]
        (unsettled,) = await events(other, bob, 1, {"Last-Event-ID": last})
        assert unsettled["message_id"] == first[1]["message_id"]


async def events(
    gateway: Gateway, agent: Agent, count: int, headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """The first messages of a stream, which is then cut."""
    sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {agent.key}", **(headers or {})}
    found: list[dict[str, Any]] = []
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    url = f"{gateway.url}/v1/inbox/{agent.address}"
    async with gateway.session.get(url, headers=sent, timeout=timeout) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                found.append(json.loads(line.removeprefix(b"data: ")))
            if len(found) == count:
                break
    return found


async def test_what_was_leased_to_a_reader_who_hung_up_is_free_for_the_next(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address)
        database = gateway.app.database
        async with database.transaction() as connection:
            await connection.execute("lock table entries in access exclusive mode")
            reading = asyncio.create_task(listed(gateway, bob, "?lease=60&wait=30"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await connection.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0.01)
            reading.cancel()
            await asyncio.wait({reading})
        assert len((await listed(gateway, bob, "?lease=60&wait=20"))["messages"]) == 1
