"""The audit: a row stands exactly when its act does, and nobody changes one unseen."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest

from gateway.store.audit import Audit, verify
from gateway.store.database import Database


async def act(database: Database, audit: Audit, subject: str) -> None:
    async with database.transaction() as connection:
        await audit.write(connection, "ops", "agent.registered", subject, {"grace": 1, "tags": ["ä", "b"]})


async def test_an_act_that_is_undone_leaves_no_row_and_no_gap(database: Database) -> None:
    audit = Audit(uuid4())
    await act(database, audit, "one")
    with suppress(LookupError):
        async with database.transaction() as connection:
            await audit.write(connection, "ops", "agent.registered", "undone")
            raise LookupError
    await act(database, audit, "two")

    rows = await database.fetch("select number, subject from audit order by number")

    assert [tuple(row) for row in rows] == [(1, "one"), (2, "two")]
    assert await verify(database) == []


async def test_acts_of_one_process_at_the_same_time_form_one_chain(database: Database) -> None:
    audit = Audit(uuid4())
    await asyncio.gather(*(act(database, audit, f"agent {number}") for number in range(20)))

    assert await database.fetchval("select max(number) from audit") == 20
    assert await verify(database) == []


@pytest.mark.parametrize(
    "tampering",
    [
        "update audit set subject = 'somebody else' where number = 2",
        "update audit set details = '{\"grace\": 2}' where number = 2",
        "update audit set at = at + interval '1 second' where number = 2",
        "update audit set link = sha256('') where number = 2",
        "delete from audit where number = 2",
    ],
)
async def test_a_changed_or_missing_row_is_found(database: Database, tampering: str) -> None:
    one, other = Audit(uuid4()), Audit(uuid4())
    for subject in ("first", "second", "third"):
        await act(database, one, subject)
        await act(database, other, subject)

    await database.execute(f"{tampering} and process = $1", one._process)
    breaks = await verify(database)

    assert [found.process for found in breaks] == [one._process]
    assert breaks[0].number in {2, 3}


async def test_a_chain_may_begin_after_its_first_rows_were_dropped_for_their_age(database: Database) -> None:
    audit = Audit(uuid4())
    for subject in ("first", "second", "third"):
        await act(database, audit, subject)

    await database.execute("delete from audit where number = 1")

    assert await verify(database) == []
