"""The conservation law holds through everything that happens to a delivery."""

from datetime import timedelta

import pytest

from gateway.clock import Clock
from gateway.mint import Mint
from gateway.store.database import Database
from gateway.store.tallies import balance, compact
from tests.store.house import House


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def test_an_empty_house_is_in_balance(database: Database) -> None:
    found = await balance(database)
    assert (found.accepted, found.finished, found.queued, found.held, found.oldest_seconds) == (
        0,
        0,
        0,
        0,
        0.0,
    )
    assert found.unaccounted == 0


async def test_whatever_happens_to_a_delivery_accepted_is_finished_plus_live(house: House) -> None:
    bob = await house.agent("bob")

    async def books() -> tuple[int, int, int]:
        found = await balance(house.database)
        assert found.unaccounted == 0
        return found.accepted, found.finished, found.queued + found.held

    row = await house.send("v@p.test", "w@p.test", "x@p.test", "y@p.test", "z@p.test", to=[bob])
    assert await books() == (6, 1, 5)
    await house.lease()
    await house.end(row, "v@p.test", status="delivered", via="amtp:p.test")
    await house.end(
        row, "w@p.test", status="failed", code="RECIPIENT_NOT_FOUND", error="No.", dead_letter=True
    )
    await house.end(row, "x@p.test", agent=bob)
    later = house.clock.now() + timedelta(hours=1)
    await house.end(row, "y@p.test", due=later, code="TEMPORARY_FAILURE", error="Later.")
    assert await books() == (6, 4, 2)
    await house.database.execute("update deliveries set state = 'held' where recipient = 'z@p.test'")
    assert await books() == (6, 4, 2)
    house.turn(60)
    await house.cancel(row)
    assert await books() == (6, 6, 0)


async def test_a_lost_delivery_is_told(house: House) -> None:
    await house.send("x@p.test", "y@p.test")
    await house.database.execute("delete from deliveries where recipient = 'x@p.test'")
    assert (await balance(house.database)).unaccounted == 1


async def test_the_oldest_delivery_is_the_one_that_has_been_due_longest(house: House) -> None:
    await house.send("x@p.test", due=100)
    assert (await balance(house.database)).oldest_seconds == 0
    house.turn(160)
    assert 59 < (await balance(house.database)).oldest_seconds < 90


async def test_old_hours_shrink_to_a_row_and_the_sums_stay(house: House) -> None:
    bob = await house.agent("bob")
    for _ in range(3):
        await house.send("x@p.test", to=[bob])
        await house.send("x@p.test")
        house.turn(3600)
    house.turn(3600)
    await house.send(to=[bob])
    before = await house.balance()
    assert await compact(house.database) == 6
    assert await compact(house.database) == 0
    assert await house.balance() == before
    assert await house.database.fetchval("select count(*) from tallies") == 4


async def test_what_comes_late_joins_the_row_of_its_hour(house: House) -> None:
    await house.send("x@p.test")
    house.turn(3 * 3600)
    await compact(house.database)
    await house.database.execute(
        "insert into tallies (id, at, accepted, finished) values ($1, amtp_now() - interval '3 h', 0, 1)",
        house.mint(),
    )
    await compact(house.database)
    row = await house.database.fetchrow("select accepted, finished from tallies")
    assert tuple(row) == (1, 1)


async def test_a_young_tally_stays_to_prove_its_batch(house: House) -> None:
    await house.send("x@p.test")
    house.turn(1800)
    assert await compact(house.database) == 0
