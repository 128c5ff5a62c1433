"""The mail of agents that are gone: returned or dropped, none lost count of, none handed to a successor."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from gateway.store.agents import removal
from gateway.store.agents.agents import Agent, Agents, Profile
from gateway.store.agents.keys import NewKey
from gateway.store.agents.removal import bound_postmasters, clear_removed
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.tallies import balance, unaccounted_entries


class Inboxes:
    """Agents and what lies in their inboxes."""

    def __init__(self, database: Database, mint: Mint) -> None:
        self.database = database
        self.mint = mint
        self.agents = Agents(database, Audit(uuid4()))

    async def register(self, local: str) -> Agent:
        key = uuid4().hex
        return await self.agents.register(local, "acme.test", Profile(), NewKey(key, key.encode()), "ops")

    async def deliver(self, agent: int, address: str | None = None, expires: timedelta | None = None) -> UUID:
        """A message in an inbox, counted as the intake counts it."""
        row = self.mint()
        await self.database.execute(
            "with m as (insert into messages (id, sender, proven, body, accepted_at)"
            " values ($1, 'bob@acme.test', true, '{}', amtp_now())),"
            " t as (insert into tallies (id, at, accepted, finished, entries) values ($1, amtp_now(), 1, 1, 1))"
            " insert into entries (message, agent, address, expires_at)"
            " values ($1, $2, $3, amtp_now() + $4::interval)",
            row,
            agent,
            address,
            expires,
        )
        return row

    async def unaccounted(self) -> int:
        """Accepted recipients that are neither final nor live, and entries that are gone: none, or some were lost."""
        entries = await unaccounted_entries(self.database)
        assert entries is not None
        return (await balance(self.database)).unaccounted + entries

    async def count(self, table: str) -> int:
        count: int = await self.database.fetchval(f"select count(*) from {table}")
        return count


@pytest.fixture
def inboxes(database: Database, mint: Mint) -> Inboxes:
    return Inboxes(database, mint)


async def test_returned_mail_waits_in_the_queue_where_no_successor_gets_it(
    inboxes: Inboxes, database: Database, mint: Mint
) -> None:
    alice = await inboxes.register("alice")
    message = await inboxes.deliver(alice.id, "Alice+tag@acme.test")
    await inboxes.agents.remove(alice.name, "return", "ops")
    successor = await inboxes.register("alice")

    assert await clear_removed(database, mint) == 1
    queued = await database.fetchrow("select * from deliveries")

    assert (queued["message"], queued["recipient"]) == (message, "alice@acme.test")
    assert (queued["address"], queued["state"]) == ("Alice+tag@acme.test", "queued")
    assert queued["destination"] == "removed:alice@acme.test"
    assert successor.id != alice.id
    assert await inboxes.count("entries") == 0
    assert await inboxes.unaccounted() == 0
    assert await clear_removed(database, mint) == 0


async def test_dropped_mail_stays_delivered_to_its_sender(
    inboxes: Inboxes, database: Database, mint: Mint
) -> None:
    alice = await inboxes.register("alice")
    await inboxes.deliver(alice.id)
    await inboxes.agents.remove(alice.name, "drop", "ops")

    assert await clear_removed(database, mint) == 1

    settled = await database.fetchrow("select recipient, status, via from settled")
    assert tuple(settled) == ("alice@acme.test", "delivered", "inbox")
    assert await inboxes.count("entries") + await inboxes.count("deliveries") == 0
    assert await inboxes.unaccounted() == 0


async def test_what_expired_or_was_acknowledged_is_not_returned(
    inboxes: Inboxes, database: Database, mint: Mint, clock: Clock
) -> None:
    alice = await inboxes.register("alice")
    acknowledged = await inboxes.deliver(alice.id)
    await database.execute("update entries set acknowledged_at = amtp_now() where message = $1", acknowledged)
    await inboxes.deliver(alice.id, expires=timedelta(minutes=1))
    clock.offset += timedelta(minutes=2)
    await inboxes.agents.remove(alice.name, "return", "ops")

    assert await clear_removed(database, mint) == 1
    assert await inboxes.count("deliveries") == 0
    assert await inboxes.count("entries") == 1


async def test_mail_that_another_process_still_put_there_is_cleared_too(
    inboxes: Inboxes, database: Database, mint: Mint
) -> None:
    alice = await inboxes.register("alice")
    await inboxes.agents.remove(alice.name, "return", "ops")
    assert await clear_removed(database, mint) == 0

    await inboxes.deliver(alice.id)

    assert await clear_removed(database, mint) == 1
    assert await inboxes.count("deliveries") == 1


async def test_a_large_inbox_is_cleared_piece_by_piece(
    inboxes: Inboxes, database: Database, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "CLEARED_AT_ONCE", 2)
    alice = await inboxes.register("alice")
    for _ in range(5):
        await inboxes.deliver(alice.id)
    await inboxes.agents.remove(alice.name, "return", "ops")

    pieces = [await clear_removed(database, mint) for _ in range(4)]

    assert pieces == [2, 2, 1, 0]
    assert await inboxes.unaccounted() == 0


async def test_a_living_or_retired_agents_mail_is_left_alone(
    inboxes: Inboxes, database: Database, mint: Mint
) -> None:
    await inboxes.deliver((await inboxes.register("alice")).id)
    retired = await inboxes.register("bob")
    await inboxes.deliver(retired.id)
    await inboxes.agents.retire(retired.name, "ops")

    assert await clear_removed(database, mint) == 0
    assert await inboxes.count("entries") == 2


async def test_mail_still_queued_for_a_removed_agent_does_not_wait_for_a_successor(
    inboxes: Inboxes, database: Database
) -> None:
    alice = await inboxes.register("alice")
    await database.execute(
        "insert into deliveries"
        " (message, recipient, address, destination, due, accepted_at, expires_at, expiry)"
        " values ($1, $2, $2, $2, amtp_now(), amtp_now(), amtp_now(), 'horizon')",
        uuid4(),
        alice.name,
    )
    await inboxes.agents.remove(alice.name, "drop", "ops")

    assert await database.fetchval("select destination from deliveries") == "removed:alice@acme.test"


async def test_a_postmaster_keeps_the_newest(inboxes: Inboxes, database: Database, mint: Mint) -> None:
    await inboxes.agents.ensure_postmasters(["acme.test"])
    postmaster = await inboxes.agents.get("postmaster@acme.test")
    messages = [await inboxes.deliver(postmaster.id) for _ in range(5)]
    alice = await inboxes.register("alice")
    await inboxes.deliver(alice.id)

    assert await bound_postmasters(database, mint, 2) == 3

    kept = await database.fetch(
        "select message from entries where agent = $1 order by message", postmaster.id
    )
    assert [row["message"] for row in kept] == messages[3:]
    assert await inboxes.count("entries") == 3
    assert await inboxes.unaccounted() == 0
