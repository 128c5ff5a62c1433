"""The conservation law holds through everything that happens to a delivery."""

import asyncio
from datetime import timedelta

import pytest

from gateway.store import tallies
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.tallies import EntryBooks, balance, fold, unaccounted_entries
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


async def sums(house: House) -> tuple[int, ...]:
    row = await house.database.fetchrow("select sum(accepted), sum(finished), sum(entries) from tallies")
    return tuple(row)


async def test_what_is_minutes_old_is_folded_into_one_row_and_the_sums_stay(house: House) -> None:
    bob = await house.agent("bob")
    for _ in range(3):
        await house.send("x@p.test", to=[bob])
        await house.send("x@p.test")
        house.turn(400)
    await house.send(to=[bob])
    before = await sums(house)

    assert await fold(house.database) == 6
    assert await fold(house.database) == 0
    assert await sums(house) == before == (10, 4, 4)
    assert await house.database.fetchval("select count(*) from tallies") == 2


async def test_more_rows_than_one_statement_folds_are_folded_piece_by_piece(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "FOLDED_AT_ONCE", 2)
    for _ in range(5):
        await house.send("x@p.test")
    house.turn(400)
    assert await fold(house.database) == 5
    assert await sums(house) == (5, 0, 0)


async def test_folding_waits_for_nobody_and_holds_nobody_up(house: House) -> None:
    await house.send("x@p.test")
    await house.send("x@p.test")
    house.turn(400)
    async with house.database.transaction() as other:
        # Another process is folding one of the rows.
        await other.execute("select from tallies order by id limit 1 for update")
        async with asyncio.timeout(10):
            assert await fold(house.database) == 1
            await house.send("x@p.test")
    assert await fold(house.database) == 1
    assert await sums(house) == (3, 0, 0)


async def test_a_young_tally_stays_to_prove_its_batch(house: House) -> None:
    await house.send("x@p.test")
    house.turn(60)
    assert await fold(house.database) == 0


async def test_whatever_becomes_of_an_entry_inboxes_hold_what_they_gained(house: House) -> None:
    bob, eve = await house.agent("bob"), await house.agent("eve")
    await house.send(to=[bob, eve])
    row = await house.send("bob@acme.test", "eve@acme.test", "x@p.test")
    await house.lease()
    await house.end(row, "bob@acme.test", agent=bob)
    assert await unaccounted_entries(house.database) == 0
    await house.database.execute("update entries set acknowledged_at = amtp_now() where agent = $1", eve)
    await house.database.execute("update entries set dead_at = amtp_now() where agent = $1", bob)
    house.turn(400)
    await fold(house.database)
    assert await unaccounted_entries(house.database) == 0


async def test_an_entry_that_vanishes_is_told(house: House) -> None:
    await house.send(to=[await house.agent("bob"), await house.agent("eve")])
    await house.database.execute("delete from entries where agent = (select min(agent) from entries)")
    assert await unaccounted_entries(house.database) == 1


async def test_entries_are_counted_in_pieces_of_one_moment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "COUNTED_AT_ONCE", 2)
    agents = [await house.agent(f"n{number}") for number in range(3)]
    for _ in range(3):
        await house.send(to=agents)
    assert await unaccounted_entries(house.database) == 0
    monkeypatch.setattr(tallies, "COUNTING_SECONDS_MAX", 0.0)
    assert await unaccounted_entries(house.database) is None


async def test_counting_rests_longer_than_it_works(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "ROUND_REST", 10**9)
    books = EntryBooks(house.database)
    assert await books.measure() == 0
    assert await books.measure() is None
