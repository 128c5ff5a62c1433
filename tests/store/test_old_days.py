"""A day of messages is dropped while everything goes on: nobody waits, nothing that is needed goes, nothing comes back."""

import asyncio
from datetime import date, timedelta
from uuid import UUID

import pytest

from gateway.features.operations.dead_letters import DeadLetters, Which
from gateway.store import old_days, partitions
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.inbox.inbox import Listing
from gateway.store.old_days import OldDays, copy_piece
from gateway.store.row_ids import Mint
from gateway.store.tallies import balance, unaccounted_entries
from tests.store.house import House

DAY = 86_400
KEPT_DAYS = 30


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def grow_old(house: House) -> date:
    """Lets the time of what is there be over; returns its day."""
    day = house.clock.now().date()
    house.turn((KEPT_DAYS + 2) * DAY)
    await partitions.keep_ahead(house.database)
    return day


async def forget(house: House) -> None:
    await OldDays(house.database, house.mint).forget(KEPT_DAYS)
    assert (await balance(house.database)).unaccounted == 0
    assert await unaccounted_entries(house.database) == 0


async def tables(house: House) -> list[str]:
    rows = await house.database.fetch(
        "select relname from pg_class where relkind = 'r' and relname ~ '(_kept|[0-9]{8})$' order by 1"
    )
    return [row[0] for row in rows]


async def rows(house: House, table: str = "messages", column: str = "id") -> set[UUID]:
    return {row[0] for row in await house.database.fetch(f"select {column} from {table}")}


async def test_a_needed_message_stays_with_all_about_it_and_goes_when_nobody_needs_it(house: House) -> None:
    bob = await house.agent("bob")
    before = await tables(house)
    needed = await house.send("x@p.test", to=[bob])
    gone = [await house.send("x@p.test") for _ in range(3)]
    await house.lease()
    for row in (needed, *gone):
        await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")
    day = await grow_old(house)
    await forget(house)
    assert await rows(house) == {needed}
    assert {name: state.status.value for name, state in (await house.states(needed)).items()} == {
        "bob@acme.test": "delivered",
        "x@p.test": "delivered",
    }
    assert await rows(house, "settled", "message") == {needed}
    await house.database.execute("update entries set acknowledged_at = amtp_now()")
    await forget(house)
    for table in ("messages", "settled", "entries"):
        assert await rows(house, table, "id" if table == "messages" else "message") == set(), table
    left = [name for name in await tables(house) if f"{day:%Y%m%d}" in name]
    assert left == []
    assert len(before) > 0


async def test_while_a_day_is_copied_messages_are_accepted_read_and_acknowledged(house: House) -> None:
    bob = await house.agent("bob")
    for _ in range(4):
        await house.send("x@p.test", to=[bob])
    day = await grow_old(house)
    days = OldDays(house.database, house.mint)
    async with house.database.connection() as connection:
        await days.begin(connection, day)
        async with connection.transaction():
            assert await copy_piece(connection, day) == 4
            held = {
                row["relname"]
                for row in await house.database.fetch(
                    "select c.relname from pg_locks l join pg_class c on c.oid = l.relation"
                    " where l.pid = $1 and l.mode in ('ExclusiveLock', 'AccessExclusiveLock',"
                    " 'ShareRowExclusiveLock', 'ShareLock') and c.relkind in ('r', 'p')",
                    connection.get_server_pid(),
                )
            }
            assert held == set()
            async with asyncio.timeout(10):
                new = await house.send("x@p.test", to=[bob])
                page = await inbox.fetch(house.database, bob, Listing(), lapses_max=10)
                await house.lease()
                await house.end(new, "x@p.test", status="delivered", via="amtp:p.test")
            assert len(page.items) == 5
    await forget(house)
    assert len(await rows(house)) == 5


async def test_a_day_that_is_in_use_is_dropped_at_the_next_round_and_nobody_waits_long(house: House) -> None:
    bob = await house.agent("bob")
    needed, gone = await house.send(to=[bob]), await house.send("x@p.test")
    await house.cancel(gone)
    day = await grow_old(house)
    async with house.database.transaction() as other:
        await other.execute("lock table messages in row exclusive mode")  # as a batch does until its commit
        await forget(house)
        assert await rows(house) == {needed, gone}
        async with asyncio.timeout(10):
            await house.send(to=[bob])
    await forget(house)
    assert gone not in await rows(house)
    assert needed in await rows(house)
    assert f"messages_{day:%Y%m%d}" not in await tables(house)


async def test_what_happens_while_a_day_is_copied_is_kept_and_nothing_comes_back(house: House) -> None:
    bob, eve = await house.agent("bob"), await house.agent("eve")
    delivered, cancelled = await house.send("x@p.test"), await house.send("y@p.test")
    read, replayed = await house.send(to=[bob]), await house.send("z@p.test")
    gained = await house.send("w@p.test")
    await house.lease()
    await house.end(gained, "w@p.test", status="delivered", via="amtp:p.test")
    await house.end(
        replayed, "z@p.test", status="failed", code="AGENT_UNKNOWN", error="No.", dead_letter=True
    )
    day = await grow_old(house)
    days = OldDays(house.database, house.mint)
    async with house.database.connection() as connection:
        await days.begin(connection, day)
    while await days.copy(day):
        pass

    await house.lease()
    await house.end(delivered, "x@p.test", status="delivered", via="amtp:p.test")
    house.turn(60)
    await house.cancel(cancelled)
    await house.database.execute("update entries set acknowledged_at = amtp_now() where message = $1", read)
    letters = DeadLetters(
        house.database,
        house.mint,
        Audit(house.mint()),
        domains=["acme.test"],
        horizon=timedelta(days=7),
    )
    assert len(await letters.replay(Which(), actor="ops")) == 1
    # A repetition adds a recipient to a message that nobody needed.
    await house.database.execute(
        "with t as (insert into tallies (id, at, accepted, finished, entries) values ($3, amtp_now(), 1, 1, 1))"
        " insert into entries (message, agent, delivered_at) values ($1, $2, amtp_now())",
        gained,
        eve,
        house.mint(),
    )
    await forget(house)
    assert f"messages_{day:%Y%m%d}" not in await tables(house)
    assert await rows(house) >= {replayed, gained}
    assert await rows(house, "deliveries", "message") == {replayed}
    states = await house.states(replayed)
    assert states["z@p.test"].status.value == "queued"
    assert (await house.states(gained))["w@p.test"].status.value == "delivered"
    page = await inbox.fetch(house.database, eve, Listing(), lapses_max=10)
    assert [item.row for item in page.items] == [gained]
    for row, name, status in ((delivered, "x@p.test", "delivered"), (cancelled, "y@p.test", "cancelled")):
        found = await house.database.fetchval(
            "select status from settled where message = $1 and recipient = $2", row, name
        )
        assert found in (status, None)
    assert await house.database.fetchval("select count(*) from settled where message = $1", replayed) == 0
    await forget(house)
    assert await rows(house) == {replayed, gained}


async def test_a_process_that_ends_in_the_middle_leaves_the_rest_to_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_days, "AT_ONCE", 2)
    bob = await house.agent("bob")
    sent = [await house.send(to=[bob]) for _ in range(7)]
    day = await grow_old(house)
    first = OldDays(house.database, house.mint)
    async with house.database.connection() as connection:
        await first.begin(connection, day)
    assert [await first.copy(day) for _ in range(2)] == [2, 2]
    assert len(await rows(house, old_days.kept_of("messages", day))) == 4
    await forget(house)
    assert await rows(house) == set(sent)


async def test_large_bodies_are_copied_few_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_days, "BYTES_AT_ONCE", 1000)
    bob = await house.agent("bob")
    sent = [await house.send(to=[bob], payload="x" * 600) for _ in range(5)]
    day = await grow_old(house)
    days = OldDays(house.database, house.mint)
    async with house.database.connection() as connection:
        await days.begin(connection, day)
    await days.copy(day)
    assert len(await rows(house, old_days.kept_of("messages", day))) == 2
    await forget(house)
    assert await rows(house) == set(sent)


async def test_leftovers_go_in_one_round_however_many_steps_that_takes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_days, "AT_ONCE", 3)
    bob = await house.agent("bob")
    sent = [await house.send(to=[bob]) for _ in range(20)]
    await grow_old(house)
    await forget(house)
    assert await rows(house) == set(sent)
    await house.database.execute(
        "update entries set acknowledged_at = amtp_now() where message <> $1", sent[10]
    )
    await forget(house)
    assert await rows(house) == {sent[10]}
    assert await rows(house, "entries", "message") == {sent[10]}


async def test_two_processes_at_it_at_once_do_it_once(house: House) -> None:
    bob = await house.agent("bob")
    sent = [await house.send("x@p.test", to=[bob]) for _ in range(5)]
    await house.lease()
    for row in sent:
        await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")
    await grow_old(house)
    await asyncio.gather(*(OldDays(house.database, house.mint).forget(KEPT_DAYS) for _ in range(2)))
    await forget(house)
    assert await rows(house) == set(sent)
    assert await house.database.fetchval("select count(*) from settled") == len(sent)
