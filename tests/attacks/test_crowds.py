"""Crowds: one address, or one key, that takes what it can get, and the others who go on beside it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config.sections import LimitSettings
from tests.receive.doorway import Wire, head, until
from tests.world import Agent, Gateway, World

ATTACKER = "127.0.0.66"
BODY_BYTES = 1_000_000


async def wire_from(address: str, gateway: Gateway, opened: list[Wire]) -> Wire:
    """A connection from this address of loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.app.ports[0], local_addr=(address, 0))
    opened.append(Wire(reader, writer))
    return opened[-1]


@asynccontextmanager
async def half_sent(gateway: Gateway, count: int, size: int, key: str = "") -> AsyncIterator[list[Wire]]:
    """So many messages of which this much of the body has come, and no more ever comes."""
    wires: list[Wire] = []
    credential = [f"Authorization: Bearer {key}"] if key else []
    try:
        for _ in range(count):
            wire = await wire_from(ATTACKER, gateway, wires)
            begun = head(
                "POST",
                "/v1/messages",
                "Content-Type: application/json",
                f"Content-Length: {BODY_BYTES}",
                *credential,
            )
            await wire.send(begun + b"x" * size)
        yield wires
    finally:
        for wire in wires:
            wire.close()


async def pair(gateway: Gateway) -> tuple[Agent, Agent]:
    return await gateway.register("alice"), await gateway.register("bob")


async def stranger_sends(gateway: Gateway, agent: Agent) -> int:
    """The status that a message of an unproven sender gets."""
    message = {
        "version": "1.0",
        "message_id": "0190a1b2-0000-7000-8000-000000000001",
        "idempotency_key": "3b241101-e2bb-4255-8caf-4136c566a962",
        "timestamp": gateway.app.clock.now().isoformat(),
        "sender": "someone@elsewhere.test",
        "recipients": [agent.address],
        "payload": 1,
    }
    return (await gateway.call("POST", "/v1/messages", json=message)).status


async def test_an_agent_sends_while_others_trickle_more_bodies_than_there_are_places(world: World) -> None:
    async with world.gateway(limits=LimitSettings(requests_in_admission=8)) as gateway:
        alice, bob = await pair(gateway)
        async with half_sent(gateway, 10, 1) as wires:
            await until(lambda: gateway.app.door.load.bodies.taken == len(wires))
            assert (await alice.send(bob.address)).status == 202
            assert await stranger_sends(gateway, bob) == 202


async def test_an_agent_sends_while_one_address_keeps_half_sent_bodies(world: World) -> None:
    limits = LimitSettings(body_bytes=BODY_BYTES, bodies_in_flight_bytes=10 * BODY_BYTES)
    async with world.gateway(limits=limits) as gateway:
        alice, bob = await pair(gateway)
        async with half_sent(gateway, 12, BODY_BYTES - 1):
            await settled(gateway)
            assert (await alice.send(bob.address)).status == 202
            assert await stranger_sends(gateway, bob) == 202


async def test_an_agent_sends_while_one_key_keeps_half_sent_bodies(world: World) -> None:
    limits = LimitSettings(body_bytes=BODY_BYTES, bodies_in_flight_bytes=10 * BODY_BYTES)
    async with world.gateway(limits=limits) as gateway:
        alice, bob = await pair(gateway)
        mallory = await gateway.register("mallory")
        async with half_sent(gateway, 12, BODY_BYTES - 1, mallory.key):
            await settled(gateway)
            assert (await alice.send(bob.address)).status == 202
            assert await stranger_sends(gateway, bob) == 202


async def test_batches_of_one_key_leave_the_queue_of_commits_to_others(world: World) -> None:
    async with world.gateway(limits=LimitSettings(waiting_messages=40)) as gateway:
        mallory, bob = await pair(gateway)
        message = {"sender": mallory.address, "recipients": [bob.address], "payload": 1}
        reply = await gateway.call(
            "POST",
            "/v1/messages",
            key=mallory.key,
            body=(json.dumps(message).encode() + b"\n") * 50,
            headers={"Content-Type": "application/x-ndjson"},
        )
        answers = [json.loads(line) for line in reply.text.splitlines()]
        refused = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert refused == ["RATE_LIMIT_EXCEEDED"] * 40
        assert len(await bob.inbox("?limit=100")) == 10


async def settled(gateway: Gateway) -> None:
    """Waits until the door has taken or refused all that was sent to it."""
    load, before = gateway.app.door.load, -1
    while load.bodies.taken != before:
        before = load.bodies.taken
        for _ in range(100):
            assert (await gateway.call("GET", "/health")).status == 200
