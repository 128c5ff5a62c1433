"""Outcomes are written once, with everything that follows, by whoever holds the lease."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from gateway.journal.journal import Journal
from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Entry
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.settle import Settle, Settlement, settle
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import Topic
from tests.store.house import TOKEN, House

BOB = "bob@far.test"


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


@pytest.fixture
def rung() -> list[Topic]:
    """The inboxes whose bell was rung."""
    return []


@pytest.fixture
async def writer(database: Database, mint: Mint, rung: list[Topic]) -> AsyncIterator[Settle]:
    def ring(topics: Iterable[Topic]) -> None:
        rung.extend(topics)

    built = Settle(database, mint, Journal(io.StringIO()), committed=ring)
    running = asyncio.create_task(built.run())
    yield built
    built.stop()
    await running


def outcome(row: UUID, token: int = TOKEN, **members: Any) -> Settlement:
    return Settlement(row, BOB, BOB, token, 1, None, **members)


async def write(house: House, *settlements: Settlement) -> list[Settlement]:
    async with house.database.transaction() as connection:
        return await settle(connection, house.mint, settlements)


async def test_a_failure_leaves_a_dead_letter_an_attempt_and_a_final_status(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    failed = outcome(row, status="failed", code="AGENT_UNKNOWN", error="Nobody.", dead_letter=True)
    assert await write(house, failed) == [failed]
    letter = await house.database.fetchrow("select * from dead_letters")
    assert (letter["message"], letter["failure_code"], letter["failure_reason"]) == (
        row,
        "AGENT_UNKNOWN",
        "Nobody.",
    )
    assert await house.database.fetchval("select error from attempts") == "Nobody."
    assert await house.status(row) == "failed"
    assert await house.balance() == (1, 1, 0)


async def test_what_is_tried_again_stays_with_its_reason_and_without_its_lease(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    due = house.clock.now() + timedelta(hours=1)
    await write(house, outcome(row, due=due, code="RECIPIENT_UNAVAILABLE", error="Busy."))
    (state,) = (await house.states(row)).values()
    assert (state.status.value, state.last_error, state.next_retry) == ("queued", "Busy.", due)
    assert await house.database.fetchval("select token from deliveries") is None
    assert await house.balance() == (1, 0, 1)


async def test_a_stale_token_changes_nothing_even_beside_the_valid_one(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    stale = outcome(row, token=TOKEN + 1, status="failed", code="CONFLICT", error="No.", dead_letter=True)
    assert await write(house, stale) == []
    valid = outcome(row, due=house.clock.now(), code="RECIPIENT_UNAVAILABLE", error="Busy.")
    assert await write(house, stale, valid) == [valid]
    assert await house.status(row) == "queued"
    assert await house.database.fetchval("select count(*) from dead_letters") == 0


async def test_an_outcome_is_written_once(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    delivered = outcome(row, status="delivered", via="amtp:far.test")
    assert await write(house, delivered) == [delivered]
    assert await write(house, delivered) == []
    assert await house.balance() == (1, 1, 0)


async def test_a_replayed_recipient_has_the_status_of_its_last_end(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    await write(house, outcome(row, status="failed", code="AGENT_UNKNOWN", error="Nobody."))
    await house.database.execute(
        "insert into deliveries (message, recipient, address, destination, due, accepted_at, expires_at, expiry)"
        " values ($1, $2, $2, 'far.test', amtp_now(), amtp_now(), amtp_now() + interval '1 day', 'horizon')",
        row,
        BOB,
    )
    await house.lease()
    await write(house, outcome(row, status="delivered", via="amtp:far.test"))
    assert await house.status(row) == "delivered"


async def test_follow_ups_come_with_an_outcome_that_counts_and_not_with_one_that_does_not(
    house: House, writer: Settle, rung: list[Topic]
) -> None:
    alice = await house.agent("alice")
    row = await house.send(BOB)
    await house.lease()

    def report() -> Admitted:
        body = {
            "version": "1.0",
            "sender": "postmaster@acme.test",
            "recipients": ["alice@acme.test"],
            "payload": 1,
        }
        message = parse_message(
            msgspec.json.encode(body), row=house.mint(), now=house.clock.now(), local=True
        )
        return Admitted(message, proven=True, entries=(Entry(alice, None),), automatic=True)

    ended: dict[str, Any] = {"status": "failed", "code": "AGENT_UNKNOWN", "error": "Nobody."}
    stale = outcome(row, token=TOKEN + 1, follow_ups=(report(),), **ended)
    assert await writer.settle([stale]) == []
    assert rung == []
    valid = outcome(row, follow_ups=(report(),), **ended)
    assert await writer.settle([valid]) == [valid]
    assert rung == [alice]
    assert await house.database.fetchval("select count(*) from messages where automatic") == 1


async def test_many_outcomes_at_once_are_each_told_their_own(house: House, writer: Settle) -> None:
    rows = [await house.send(BOB) for _ in range(40)]
    await house.lease()
    delivered = [outcome(row, status="delivered", via="amtp:far.test") for row in rows]
    told = await asyncio.gather(*(writer.settle([one]) for one in delivered))
    assert told == [[one] for one in delivered]
    assert await house.balance() == (40, 40, 0)


async def test_outcomes_gather_behind_a_commit_until_one_has_consequences(
    house: House, writer: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.queue.settle.GATHER_SECONDS", 3600.0)
    alice = await house.agent("alice")
    rows = [await house.send(BOB) for _ in range(20)]
    await house.lease()
    first, *others = (outcome(row, status="delivered", via="amtp:far.test") for row in rows[:-1])
    await writer.settle([first])
    gathering = [asyncio.create_task(writer.settle([one])) for one in others]
    await asyncio.sleep(0)
    await writer.settle([outcome(rows[-1], agent=alice)])
    await asyncio.gather(*gathering)
    assert await house.database.fetchval("select array_agg(finished order by id) from tallies") == [
        *([0] * 20),
        1,
        19,
    ]


async def test_a_lost_connection_only_delays_an_outcome(house: House, writer: Settle) -> None:
    rows = [await house.send(BOB) for _ in range(2)]
    await house.lease()
    first, second = (outcome(row, status="delivered", via="amtp:far.test") for row in rows)
    assert await writer.settle([first]) == [first]
    await house.database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert await writer.settle([second]) == [second]
    assert await house.balance() == (2, 2, 0)


async def test_a_row_that_somebody_else_touches_meanwhile_is_settled_all_the_same(house: House) -> None:
    row = await house.send(BOB)
    await house.lease()
    async with house.database.transaction() as other:
        await other.execute("update deliveries set delay_reported = true")
        writing = asyncio.create_task(write(house, outcome(row, status="delivered")))
        while not await other.fetchval("select exists (select from pg_locks where not granted)"):
            assert not writing.done()
            await asyncio.sleep(0.01)
    assert len(await writing) == 1
    assert await house.balance() == (1, 1, 0)
