"""One schema, whoever starts first, and no surprise for whoever comes later."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.clock import Clock
from gateway.store import partitions
from gateway.store.database import Database
from gateway.store.migrate import SchemaError, migrate, migrations, pending

if TYPE_CHECKING:
    from tests.conftest import Server


@pytest.fixture
async def empty(server: "Server") -> AsyncIterator[str]:
    """The DSN of a database with nothing in it."""
    connection = await asyncpg.connect(server.dsn_of("postgres"))
    await connection.execute("drop database if exists emptied with (force)")
    await connection.execute("create database emptied")
    yield server.dsn_of("emptied")
    await connection.execute("drop database emptied with (force)")
    await connection.close()


async def open_(dsn: str) -> Database:
    database = Database(dsn, clock=Clock())
    await database.open()
    return database


async def test_three_that_start_at_once_on_an_empty_database_make_one_schema(empty: str) -> None:
    databases = [await open_(empty) for _ in range(3)]
    applied = await asyncio.gather(*(migrate(database) for database in databases))
    names = [migration.name for migration in migrations()]
    assert sorted(applied) == [[], [], names]
    assert await databases[0].fetchval("select count(*) from migrations") == len(names)
    assert await pending(databases[0]) == []
    for database in databases:
        await database.close()


async def test_what_is_pending_is_named_before_it_is_applied(empty: str) -> None:
    database = await open_(empty)
    assert await pending(database) == [migration.name for migration in migrations()]
    await database.close()


async def test_a_schema_of_a_much_newer_release_is_refused(database: Database) -> None:
    await database.execute("insert into migrations (number, name, at) values (9000, 'future', now())")
    with pytest.raises(SchemaError, match="newer release"):
        await migrate(database)


async def test_a_day_prepared_late_takes_in_what_strayed_into_the_default_partition(
    database: Database, clock: Clock
) -> None:
    await database.execute(
        "insert into messages (id, sender, proven, body, accepted_at)"
        " values (amtp_first_id(now() + interval '9 days' + interval '1 hour'), 'a@acme.test', true, '{}', now())"
    )
    assert await database.fetchval("select count(*) from messages_other") == 1
    clock.offset += timedelta(days=9)
    await partitions.keep_ahead(database)
    assert await database.fetchval("select count(*) from messages_other") == 0
    assert await database.fetchval("select count(*) from messages") == 1
