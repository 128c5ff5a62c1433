"""A gateway that stands still for longer than its lease, and another on its database: whoever comes late changes nothing."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from conformance.fake_peer import Authority, Exchange, FakePeer, accepts, refuses
from tests.faults.crossing import HERE, LATER_SECONDS, NEAR, NOTHING_LIVES, House, house
from tests.faults.points import CLOCK
from tests.faults.processes import Account
from tests.faults.watching import PATIENCE_SECONDS, until

REMEMBERED = ("deliveries", "settled", "attempts", "dead_letters")
NEVER = refuses(400, "INVALID_MESSAGE_FORMAT", "Never.")


@pytest.fixture
async def peer() -> AsyncIterator[FakePeer]:
    async with FakePeer(Authority(), host=HERE).listening() as listening:
        yield listening


@pytest.fixture
async def sending(data: Path, peer: FakePeer) -> AsyncIterator[House]:
    settings = {
        "peers": {peer.domain: {"gateway": peer.url}},
        "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": str(peer.authority.write_ca(data))},
    }
    async with house(data, NEAR, settings=settings) as running:
        yield running


async def post(session: aiohttp.ClientSession, url: str, sender: Account, recipient: str) -> str:
    message = {"sender": sender.address, "recipients": [recipient], "payload": None}
    async with session.post(f"{url}/v1/messages", json=message, headers=sender.headers) as response:
        assert response.status == 202, await response.text()
        message_id: str = (await response.json())["message_id"]
        return message_id


async def known(dsn: str, message_id: str) -> dict[str, list[Any]]:
    """All that is known of a message, and what else was written about it."""
    connection = await asyncpg.connect(dsn)
    try:
        found = {
            table: [
                tuple(row)
                for row in await connection.fetch(
                    f"select * from {table} where message = $1 order by 1, 2", message_id
                )
            ]
            for table in REMEMBERED
        }
        reports = await connection.fetchval("select count(*) from messages where automatic")
        return {**found, "reports": [reports]}
    finally:
        await connection.close()


@pytest.mark.parametrize("rescued", [False, True])
async def test_a_gateway_that_wakes_after_its_lease_changes_nothing_of_what_another_did(
    sending: House, peer: FakePeer, rescued: bool
) -> None:
    """It hears a refusal, which would be a dead letter and a report: so it is where nobody came before."""
    asked, opened = asyncio.Event(), asyncio.Event()

    async def refuses_late(exchange: Exchange) -> None:
        asked.set()
        await opened.wait()
        await NEVER(exchange)

    peer.will(refuses_late, accepts)
    dsn, slow = sending.postgres.dsn, sending.gateway
    async with aiohttp.ClientSession() as session, asyncio.timeout(4 * PATIENCE_SECONDS):
        sender = await slow.register(session, "sender")
        message_id = await post(session, slow.url, sender, f"bob@{peer.domain}")
        await asked.wait()
        slow.signal(signal.SIGSTOP)
        other = replace(slow, data=slow.data.with_name("other"), ports=())
        if rescued:
            await other.start(**{CLOCK: str(LATER_SECONDS)})
            await until(dsn, NOTHING_LIVES)
            await other.kill()
        before = await known(dsn, message_id)
        opened.set()
        slow.signal(signal.SIGCONT)
        await until(dsn, NOTHING_LIVES)
        await post(session, slow.url, sender, f"carol@{peer.domain}")  # it is awake, and its news are written
        await until(dsn, NOTHING_LIVES)
    after = await known(dsn, message_id)
    assert (after == before) is rescued
    assert len(after["dead_letters"]) == (0 if rescued else 1)
    assert after["reports"] == [0 if rescued else 1]
    assert (await sending.balance()).unaccounted == 0
