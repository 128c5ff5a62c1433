"""The gateway dies around an agent's answer: the agent may be asked twice, and its sender has one reply."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.postgres.embedded import EmbeddedPostgres
from tests.faults.points import CLOCK, KILL, Point
from tests.faults.processes import DURABLE, Account, GatewayProcess
from tests.raw_server import RawServer, answer, read_request

LATER_SECONDS = 60  # past the lease of whoever died
PATIENCE_SECONDS = 30.0
REACHABLE = {"outbound": {"plain_webhooks": True, "allow_networks": ["127.0.0.0/8"]}}


class Hook(RawServer):
    """An agent that counts what it is asked, and answers the count."""

    def __init__(self) -> None:
        super().__init__(self._count)
        self.asked: list[str] = []  # by the id of the webhook

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.asked.append((await read_request(reader)).headers["webhook-id"])
            writer.write(answer(200, json.dumps({"response": len(self.asked)}).encode()))


@dataclass
class House:
    gateway: GatewayProcess
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, key: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        async with self.session.request(
            method, self.gateway.url + path, json=body, headers=headers
        ) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def replies(self, reader: Account) -> list[Any]:
        """An inbox, once something is in it and the queue is empty."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                page = await self.call("GET", f"/v1/inbox/{reader.address}", reader.key)
                queued = await self.call("GET", "/v1/messages?status=queued", reader.key)
                if page["messages"] and not queued["messages"]:
                    found: list[Any] = page["messages"]
                    return found
                await asyncio.sleep(0.1)


@pytest.fixture
async def house(data: Path) -> AsyncIterator[House]:
    postgres = EmbeddedPostgres(data, settings=DURABLE)
    gateway = GatewayProcess(await postgres.start(), data / "gateway", settings=REACHABLE)
    async with aiohttp.ClientSession() as session:
        await gateway.start()
        yield House(gateway, session)
        await gateway.kill()
    await postgres.stop()


@pytest.mark.parametrize(("point", "asked"), [(Point.BEFORE_SETTLE, 2), (Point.AFTER_SETTLE, 1)])
async def test_an_agent_replies_once_although_the_gateway_died_around_its_answer(
    house: House, point: Point, asked: int
) -> None:
    gateway = house.gateway
    there = Hook()
    async with there:
        alice = await gateway.register(house.session, "alice")
        profile = {
            "address": "bob",
            "delivery_mode": "push",
            "push_target": f"http://127.0.0.1:{there.port}/",
        }
        await house.call("POST", "/v1/admin/agents", gateway.admin_key, profile)
        await gateway.kill()
        await gateway.start(**{KILL: f"{point}:1"})
        message = {"sender": alice.address, "recipients": ["bob@acme.test"], "payload": 1}
        sent = await house.call("POST", "/v1/messages", alice.key, message)
        assert await gateway.ended() == -signal.SIGKILL
        await gateway.start(**{CLOCK: str(LATER_SECONDS)})
        (reply,) = await house.replies(alice)
        assert (reply["in_reply_to"], reply["payload"]) == (sent["message_id"], asked)
        assert len(there.asked) == asked
        assert len(set(there.asked)) == 1
