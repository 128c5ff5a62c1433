"""Notices and death: whatever is killed, each acknowledged message is told of, always under the same id."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from conformance.fake_peer import Authority, Exchange, FakePeer
from tests.faults.crossing import HERE, LATER_SECONDS, NEAR, House, house
from tests.faults.ledger import Load
from tests.faults.points import CLOCK
from tests.faults.processes import Account
from tests.faults.watching import PATIENCE_SECONDS, until

NOTHING_WAITS = "select not exists (select from notices)"
ACKNOWLEDGED = 100
KILLS = 2


async def takes(exchange: Exchange) -> None:
    """Repeats a challenge; takes an event, or stumbles over it now and then."""
    request = await exchange.read_body()
    body = json.loads(request.body)
    status = 500 if exchange.place % 7 == 6 and body["type"] != "challenge" else 200
    await exchange.answer(status, json.dumps({"challenge": body.get("challenge")}).encode())


@dataclass
class Watched:
    """A gateway that is killed, and a target that hears of what it does."""

    house: House
    session: aiohttp.ClientSession
    sender: Account
    recipients: list[Account]
    target: FakePeer

    def load(self) -> Load:
        return Load([self.house.gateway.url], self.sender, self.recipients)

    def told(self) -> dict[tuple[str, str], set[str]]:
        """The ids under which each delivery was told of."""
        found = defaultdict(set)
        for request in self.target.posts:
            body = json.loads(request.body or b"{}")
            if body.get("type") == "message.delivered":
                data = body["data"]
                found[data["message_id"], data["recipient"]].add(request.headers["webhook-id"])
        return found

    async def subscribe(self) -> None:
        body = {"url": self.target.url, "events": ["message.delivered"]}
        made = await self._call("POST", "", body)
        place = f"/{made['webhook']['webhook_id']}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self._call("GET", place))["webhook"]["status"] != "active":
                await asyncio.sleep(0.02)

    async def _call(self, method: str, place: str, body: Any = None) -> dict[str, Any]:
        url = f"{self.house.gateway.url}/v1/webhooks{place}"
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, url, data=data, headers=self.sender.headers) as response:
            found: dict[str, Any] = await response.json()
            return found


@pytest.fixture
async def watched(data: Path, tmp_path: Path) -> AsyncIterator[Watched]:
    async with _watched(data, tmp_path) as running:
        yield running


@asynccontextmanager
async def _watched(data: Path, folder: Path) -> AsyncIterator[Watched]:
    authority = Authority()
    outbound = {"allow_networks": ["127.0.0.0/8"], "ca_file": str(authority.write_ca(folder))}
    target = FakePeer(authority, host=HERE)
    target.will(takes)
    async with (
        aiohttp.ClientSession() as session,
        target.listening(),
        house(data, NEAR, settings={"outbound": outbound}) as built,
    ):
        sender = await built.gateway.register(session, "sender")
        recipients = [await built.gateway.register(session, f"reader-{n}") for n in range(2)]
        yield Watched(built, session, sender, recipients, target)


async def test_each_message_is_told_of_under_one_id_although_the_gateway_is_killed(watched: Watched) -> None:
    chance = Random(7)
    await watched.subscribe()
    gateway = watched.house.gateway
    async with watched.load() as load:
        for _ in range(KILLS):
            await load.acknowledged(chance.randint(1, ACKNOWLEDGED))
            await gateway.kill()
            await gateway.start()
        await load.acknowledged(ACKNOWLEDGED)
    await gateway.kill()
    await gateway.start(**{CLOCK: str(LATER_SECONDS)})
    await until(watched.house.postgres.dsn, NOTHING_WAITS, 2 * PATIENCE_SECONDS)
    told = watched.told()
    expected = {(line.message_id, line.recipient) for line in load.ledger.acknowledged}
    assert expected
    assert expected <= set(told)
    assert {len(ids) for ids in told.values()} == {1}
    ids = [identity for found in told.values() for identity in found]
    assert len(ids) == len(set(ids))
