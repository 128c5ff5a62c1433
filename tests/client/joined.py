"""Python agents of a gateway that is really there, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from gateway.client.agent import Agent
from gateway.client.message import Message
from tests.client.moody import Moody
from tests.world import Gateway

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def agents(gateway: Gateway, *names: str, **options: Any) -> AsyncIterator[list[Agent]]:
    """Registered there, and hung up in the end."""
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            registered = await gateway.register(name)
            agent = Agent(registered.address, key=registered.key, gateway=gateway.url, **options)
            found.append(await stack.enter_async_context(agent))
        yield found


@asynccontextmanager
async def working(*those: Agent) -> AsyncIterator[None]:
    """They run their callbacks meanwhile."""
    running = [asyncio.create_task(agent.run()) for agent in those]
    try:
        yield
    finally:
        for agent in those:
            agent.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*running)


async def lies_in(agent: Agent, count: int = 0) -> list[Message]:
    """What nobody holds, once it is that many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(found := await agent._mailbox.look()) < count:
            await asyncio.sleep(0.02)
    return found


async def first_of(agent: Agent) -> Message:
    """The next message, acknowledged."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in agent.inbox():
            await agent.acknowledge(message)
            return message
    raise AssertionError("an inbox has no end")


async def empty(agent: Agent) -> None:
    """Waits until nothing lies in the inbox that nobody holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await lies_in(agent):
            await asyncio.sleep(0.02)


def alice_at(gateway: Moody, patience: float = PATIENCE_SECONDS) -> Agent:
    return Agent("alice@acme.test", key="k", gateway=gateway.url, patience=patience)
