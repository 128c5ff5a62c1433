"""What is forgotten, what is kept because somebody needs it, and when that goes too."""

from datetime import date

import pytest

from gateway.config.sections import RetentionSettings
from gateway.store import partitions
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.retention import forget
from gateway.store.row_ids import Mint
from gateway.store.tallies import unaccounted_entries
from tests.store.house import House

DAY = 86_400
SETTINGS = RetentionSettings(messages_days=30, keys_days=14, acknowledged_days=7, attempts_days=30)


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def days_later(house: House, days: float) -> None:
    house.turn(days * DAY)
    await partitions.keep_ahead(house.database)
    await forget(house.database, house.mint, SETTINGS)
    assert await unaccounted_entries(house.database) == 0


async def count(house: House, table: str) -> int:
    found: int = await house.database.fetchval(f"select count(*) from {table}")
    return found


async def days(house: House) -> list[date]:
    async with house.database.connection() as connection:
        return await partitions.days_of(connection, "messages")


async def test_finished_messages_go_with_their_day_and_everything_about_them(house: House) -> None:
    await house.send("bob@far.test")
    bob = await house.agent("bob")
    read = await house.send(to=[bob], headers={"ttl": 60})
    await house.lease()
    (row,) = [r["message"] for r in await house.database.fetch("select message from deliveries")]
    await house.end(row, "bob@far.test", status="delivered", via="amtp:far.test")
    assert read != row
    today = house.clock.now().date()
    await days_later(house, 29)
    assert await count(house, "messages") == 2
    await days_later(house, 3)
    for table in ("messages", "settled", "attempts", "events", "entries", "deliveries"):
        assert await count(house, table) == 0, table
    assert today not in await days(house)


async def test_a_message_stays_while_it_is_queued_unread_or_a_dead_letter_and_goes_afterwards(
    house: House,
) -> None:
    bob = await house.agent("bob")
    queued, unread = await house.send("bob@far.test"), await house.send(to=[bob])
    dead = await house.send("bob@near.test")
    await house.lease()
    await house.end(
        dead,
        "bob@near.test",
        status="failed",
        code="AGENT_UNKNOWN",
        error="Nobody.",
        dead_letter=True,
    )
    await days_later(house, 60)
    kept = {row["id"] for row in await house.database.fetch("select id from messages")}
    assert kept == {queued, unread, dead}
    assert await count(house, "settled") == 1

    await house.lease()
    await house.end(queued, "bob@far.test", status="delivered", via="amtp:far.test")
    await house.database.execute("update entries set acknowledged_at = amtp_now()")
    await house.database.execute("update dead_letters set replayed_at = amtp_now()")
    await days_later(house, 0)
    for table in ("messages", "settled", "attempts", "entries", "dead_letters"):
        assert await count(house, table) == 0, table


async def test_acknowledged_entries_become_a_line_in_the_history(house: House) -> None:
    row = await house.send(to=[await house.agent("bob")])
    await house.database.execute("update entries set acknowledged_at = amtp_now()")
    await days_later(house, 6)
    assert await count(house, "entries") == 1
    await days_later(house, 2)
    assert await count(house, "entries") == 0
    state = (await house.states(row))["bob@acme.test"]
    assert (state.status.value, state.via) == ("delivered", "inbox")


async def test_keys_are_forgotten_after_their_time_and_outlive_no_more(house: House) -> None:
    await house.database.execute(
        "insert into idempotency (hash, message, content, at)"
        " select n::text::bytea, $1, 'c', amtp_now() from generate_series(1, 6000) n",
        house.mint(),
    )
    await days_later(house, 13)
    assert await count(house, "idempotency") == 6000
    await days_later(house, 2)
    assert await count(house, "idempotency") == 0
