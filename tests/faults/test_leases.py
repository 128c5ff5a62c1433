"""A worker past its lease, and a transaction that stays open for minutes: whoever comes late changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Entry
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.deliveries import Delivery, claim, hand_back
from gateway.store.queue.settle import Settlement, settle
from gateway.store.row_ids import Mint
from gateway.store.tallies import balance
from tests.store.house import House

LEASE_SECONDS = 30.0
EARLY, LATE = 1, 2
REMEMBERED = ("messages", "deliveries", "settled", "entries", "dead_letters", "attempts")


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


class Held(Database):
    """What one connection, in whatever transaction it is, sees of the database."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self._connection


async def take(database: Database, token: int, limit: int = 100) -> list[Delivery]:
    claimed = await claim(
        database, per_destination=100, limit=limit, lease_seconds=LEASE_SECONDS, token=token
    )
    return claimed.deliveries


def settlement_of(delivery: Delivery, **outcome: Any) -> Settlement:
    return Settlement(
        delivery.message,
        delivery.recipient,
        delivery.address,
        delivery.token,
        delivery.attempts,
        delivery.first_attempt,
        **outcome,
    )


async def finish(house: House, delivery: Delivery, **outcome: Any) -> list[Settlement]:
    async with house.database.transaction() as connection:
        return await settle(connection, house.mint, [settlement_of(delivery, **outcome)])


async def everything(house: House) -> dict[str, list[Any]]:
    """All that is known of messages, row by row."""
    return {
        table: [tuple(row) for row in await house.database.fetch(f"select * from {table} order by 1, 2")]
        for table in REMEMBERED
    }


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "delivered", "via": "amtp:far.test"},
        {"status": "failed", "code": "RECIPIENT_NOT_FOUND", "error": "Nobody.", "dead_letter": True},
        {"status": "expired", "code": "RECIPIENT_UNAVAILABLE", "error": "Too late."},
        {"due": timedelta(minutes=1), "code": "RECIPIENT_UNAVAILABLE", "error": "Later."},
        {"agent": 1},
    ],
)
async def test_a_worker_past_its_lease_changes_nothing_whatever_it_saw(
    house: House, outcome: dict[str, Any]
) -> None:
    if "due" in outcome:
        outcome = {**outcome, "due": house.clock.now() + outcome["due"]}
    await house.send("bob@far.test")
    (early,) = await take(house.database, EARLY)
    assert await take(house.database, LATE) == []
    house.turn(LEASE_SECONDS + 1)
    (late,) = await take(house.database, LATE)
    assert late == replace(early, token=LATE, attempts=2)
    before = await everything(house)
    assert await finish(house, early, **outcome) == []
    assert await hand_back(house.database, [early]) == 0
    assert await everything(house) == before
    assert await finish(house, late, **outcome)
    assert await finish(house, late, **outcome) == []
    assert (await balance(house.database)).unaccounted == 0


async def test_early_and_late_in_one_batch_are_told_apart(house: House) -> None:
    row = await house.send("bob@far.test")
    (early,) = await take(house.database, EARLY)
    house.turn(LEASE_SECONDS + 1)
    (late,) = await take(house.database, LATE)
    settlements = [
        settlement_of(early, status="failed", code="X", error="x", dead_letter=True),
        settlement_of(late, due=house.clock.now()),
    ]
    async with house.database.transaction() as connection:
        assert await settle(connection, house.mint, settlements) == settlements[1:]
    assert await house.status(row) == "queued"
    assert (await balance(house.database)).unaccounted == 0


async def test_a_follow_up_of_a_late_outcome_is_not_sent(house: House) -> None:
    await house.send("bob@far.test")
    (early,) = await take(house.database, EARLY)
    house.turn(LEASE_SECONDS + 1)
    await take(house.database, LATE)
    body = (
        b'{"version":"1.0","sender":"postmaster@acme.test","recipients":["alice@acme.test"],"payload":null}'
    )
    message = parse_message(body, row=house.mint(), now=house.clock.now(), local=False)
    report = Admitted(message, proven=True, entries=(Entry(1, None),), automatic=True)
    assert await finish(house, early, status="failed", code="X", error="x", follow_ups=(report,)) == []
    assert await house.database.fetchval("select count(*) from messages") == 1


async def test_claims_pass_by_what_a_transaction_holds_for_minutes(house: House, dsn: str) -> None:
    rows = {await house.send(f"r{n}@d{n % 3}.test") for n in range(30)}
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        held: UUID = await holder.fetchval(
            "select message from deliveries order by message limit 1 for update"
        )
        house.turn(300)
        claims = await asyncio.gather(*(take(house.database, token, limit=10) for token in range(1, 5)))
        claimed = [delivery.message for one in claims for delivery in one]
        assert sorted(claimed) == sorted(rows - {held})
        rows.add(await house.send("late@d0.test"))
        house.turn(300)
    await holder.close()
    again = await take(house.database, LATE)
    assert sorted(delivery.message for delivery in again) == sorted(rows)


async def test_a_claim_in_a_transaction_that_began_minutes_ago_takes_no_lease_from_anybody(
    house: House, dsn: str
) -> None:
    """Its clock stands still: what was leased since is not due to it, and its own leases are over when they begin."""
    for number in range(2):
        await house.send(f"r{number}@far.test")
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        await holder.execute("select amtp_now()")
        house.turn(300)
        (mine,) = await take(house.database, EARLY, limit=1)
        (stale,) = await take(Held(holder), LATE)
        assert stale.recipient != mine.recipient
    await holder.close()
    (again,) = await take(house.database, EARLY)
    assert again.recipient == stale.recipient
    assert await finish(house, stale, status="delivered") == []
    assert await finish(house, again, status="delivered")
    assert await finish(house, mine, status="delivered")
    assert (await balance(house.database)).unaccounted == 0
