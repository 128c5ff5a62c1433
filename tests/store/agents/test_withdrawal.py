"""An agent whose webhook is gone: back to its inbox, and its operator told, once."""

import json

import pytest

from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Entry, write_riders
from gateway.store.agents.agents import Agents, Profile
from gateway.store.agents.keys import NewKey, directory_changes
from gateway.store.agents.withdrawal import Withdrawal
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint

URL, OTHER_URL = "https://hooks.test/in", "https://hooks.test/other"
BOB, POSTMASTER = "bob@acme.test", "postmaster@acme.test"


class House:
    """Bob, who is pushed to, and the postmaster's inbox."""

    def __init__(self, database: Database, mint: Mint, clock: Clock) -> None:
        self.database, self.mint, self.clock = database, mint, clock
        self.audit = Audit(mint())
        self.agents = Agents(database, self.audit)

    async def bob(self) -> int:
        await self.agents.ensure_postmasters(["acme.test"])
        profile = Profile(delivery_mode="push", push_url=URL, push_secrets=b"sealed")
        return (await self.agents.register("bob", "acme.test", profile, NewKey("k1", b"d"), "ops")).id

    async def withdraw(self, agent: int, url: str = URL, count: int = 1) -> None:
        """As so many deliveries at once find out."""
        riders = [
            Withdrawal(agent, BOB, url, await self._mail(), self.mint(), self.audit) for _ in range(count)
        ]
        async with self.database.transaction() as connection:
            await write_riders(connection, riders)

    async def _mail(self) -> Admitted:
        postmaster = (await self.agents.get(POSTMASTER)).id
        body = json.dumps({"sender": POSTMASTER, "recipients": [POSTMASTER]}).encode()
        message = parse_message(body, row=self.mint(), now=self.clock.now(), local=True)
        return Admitted(message, proven=True, entries=(Entry(postmaster, None),))

    async def mode(self) -> str:
        return (await self.agents.get(BOB)).delivery_mode

    async def count(self, what: str) -> int:
        found: int = await self.database.fetchval(f"select count(*) from {what}")
        return found


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def test_it_reads_its_inbox_from_now_on_and_every_process_looks_again(house: House) -> None:
    bob = await house.bob()
    before = (await directory_changes(house.database, None)).version
    await house.withdraw(bob)
    assert await house.mode() == "pull"
    assert (await house.agents.get(BOB)).push_url == URL  # so that it is turned on again with a word
    assert (await directory_changes(house.database, None)).version > before
    assert await house.count("audit where act = 'agent.push_ended' and actor = 'gateway'") == 1


async def test_however_many_deliveries_find_out_the_operator_is_told_once(house: House) -> None:
    bob = await house.bob()
    await house.withdraw(bob, count=3)
    await house.withdraw(bob, count=2)
    assert await house.count("entries") == 1
    assert await house.count("audit where act = 'agent.push_ended'") == 1


async def test_an_agent_that_has_another_url_meanwhile_keeps_it(house: House) -> None:
    bob = await house.bob()
    await house.agents.update(BOB, Profile(push_url=OTHER_URL), "ops")
    await house.withdraw(bob)
    assert await house.mode() == "push"
    assert await house.count("entries") == 0
