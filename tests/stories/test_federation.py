"""Gateways of different domains: real DNS packets, real TLS, a database for each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.federation import Federation, federation
from tests.world import Agent, World

PATIENCE_SECONDS = 15.0


@pytest.fixture
async def net(world: World) -> AsyncIterator[Federation]:
    async with federation(world) as built:
        yield built


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """What `look` finds, once it finds something."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := await look()):
            await asyncio.sleep(0.02)
    return found


async def mail(agent: Agent, count: int = 1) -> list[dict[str, Any]]:
    """The first `count` messages of an inbox, once they are there."""

    async def look() -> list[dict[str, Any]]:
        found = await agent.inbox()
        return found if len(found) >= count else []

    found: list[dict[str, Any]] = await until(look)
    return found


async def ended(sender: Agent, message_id: str) -> dict[str, Any]:
    """The status of a message, once it is final."""

    async def look() -> dict[str, Any] | None:
        status = await sender.status(message_id)
        return None if status["status"] == "queued" else status

    found: dict[str, Any] = await until(look)
    return found


async def test_a_message_crosses_from_one_domain_to_another(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        reply = await alice.send(bob.address, subject="Hello")
        assert reply.status == 202, reply.text
        (item,) = await mail(bob)
        assert (item["sender"], item["subject"], item["payload"]) == (alice.address, "Hello", {"n": 1})
        assert item["message_id"] == reply.json["message_id"]
        status = await ended(alice, reply.json["message_id"])
        assert status["status"] == "delivered"
        assert status["recipients"][0]["via"] == "amtp:amtp.umbrella.test"
