"""Those who wait for a reply while what they wait at, or on, is taken away."""

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from tests.faults.drills import Site
from tests.faults.processes import Account, kill_postgres
from tests.faults.watching import PATIENCE_SECONDS

Answer = tuple[int, dict[str, Any]]


async def post(
    site: Site, gateway: int, sender: Account, recipient: Account, *, wait: int = 0, **members: Any
) -> Answer:
    message = {"sender": sender.address, "recipients": [recipient.address], "payload": 1, **members}
    headers = {**sender.headers, **({"Prefer": f"wait={wait}"} if wait else {})}
    url = f"{site.gateways[gateway].url}/v1/messages"
    async with site.session.post(url, json=message, headers=headers) as response:
        return response.status, await response.json()


async def question(site: Site, gateway: int, reader: Account) -> str:
    """The id of the first message in an inbox."""
    url = f"{site.gateways[gateway].url}/v1/inbox/{reader.address}?wait=20"
    async with site.session.get(url, headers=reader.headers) as response:
        return str((await response.json())["messages"][0]["message_id"])


async def test_a_waiter_whose_process_is_killed_finds_the_reply_at_another(two_gateways: Site) -> None:
    site, reader = two_gateways, two_gateways.recipients[0]
    asking = asyncio.create_task(post(site, 0, site.sender, reader, wait=30, idempotency_key="once"))
    message_id = await question(site, 1, reader)
    await site.gateways[0].kill()
    with pytest.raises(aiohttp.ClientError):
        await asking
    status, _ = await post(site, 1, reader, site.sender, in_reply_to=message_id)
    assert status == 202
    status, answer = await post(site, 1, site.sender, reader, wait=30, idempotency_key="once")
    assert (status, answer["message_id"]) == (200, message_id)
    assert answer["reply"]["in_reply_to"] == message_id


async def test_a_waiter_outlives_the_database(one_gateway: Site) -> None:
    site, reader = one_gateway, one_gateway.recipients[0]
    asking = asyncio.create_task(post(site, 0, site.sender, reader, wait=60))
    message_id = await question(site, 0, reader)
    await kill_postgres(site.postgres, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_SECONDS):
        status = 503
        while status == 503:
            about: dict[str, Any] = {"in_reply_to": message_id, "idempotency_key": "answer"}
            status, _ = await post(site, 0, reader, site.sender, **about)
        assert status == 202
        status, answer = await asking
    assert (status, answer["reply"]["in_reply_to"]) == (200, message_id)
