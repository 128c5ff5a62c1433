"""The notifier: what comes back while other results are being written is not lost."""

import asyncio
import json
from contextlib import AsyncExitStack

from conformance.fake_peer import Exchange
from gateway.store.database import Database
from tests.federation import federation, loopback
from tests.world import World

TARGETS = 12


async def test_many_targets_that_answer_at_once_are_all_heard(world: World) -> None:
    async def echo(exchange: Exchange) -> None:
        said = json.loads((await exchange.read_body()).body)
        await exchange.answer(200, json.dumps({"challenge": said["challenge"]}).encode())

    async with loopback() as ground, federation(world, ground) as net, AsyncExitStack() as stack:
        acme = await stack.enter_async_context(net.gateway("acme.test"))
        alice = await acme.register("alice")
        for number in range(TARGETS):
            hook = net.fake(f"hook{number}.test")
            hook.will(echo)
            net.dns.add(hook.host, "A", hook.address)
            await stack.enter_async_context(hook.listening())
            reply = await acme.call("POST", "/v1/webhooks", key=alice.key, json={"url": hook.url})
            assert reply.status == 201, reply.text
        async with asyncio.timeout(10):
            while {"pending"} & set(await statuses(acme.app.database)):
                await asyncio.sleep(0.02)
        assert await statuses(acme.app.database) == ["active"] * TARGETS


async def statuses(database: Database) -> list[str]:
    rows = await database.fetch("select status from subscriptions")
    return [row["status"] for row in rows]
