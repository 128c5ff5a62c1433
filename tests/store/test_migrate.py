"""One schema, whoever starts first, and no surprise for whoever comes later."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway import __version__
from gateway.store import migrate as migrating
from gateway.store import partitions
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.migrate import SchemaError, migrate, migrations, pending
from gateway.store.tallies import unaccounted_entries

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


async def test_entries_from_before_they_were_counted_are_in_the_books(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [migration for migration in migrations() if migration.number < 25]
    monkeypatch.setattr(migrating, "migrations", lambda: before)
    database = await open_(empty)
    await migrate(database)
    await database.execute(
        "insert into entries (message, agent) select gen_random_uuid(), n from generate_series(1, 3) n"
    )
    monkeypatch.undo()
    await migrate(database)
    assert await unaccounted_entries(database) == 0
    assert await inbox.with_unread(database, [1, 2, 4]) == [1, 2]
    await database.close()


async def applied_later(database: Database, number: int, oldest: str) -> None:
    """A newer release was here."""
    await database.execute(
        "insert into migrations (number, name, at, oldest) values ($1, 'future', now(), $2)", number, oldest
    )


async def test_going_back_is_allowed_as_far_as_each_migration_says(database: Database) -> None:
    await applied_later(database, 9000, "0.0.9")
    await applied_later(database, 9001, __version__)
    assert await migrate(database) == []


async def test_a_schema_that_this_release_can_not_live_with_is_refused_with_the_release_that_can(
    database: Database,
) -> None:
    await applied_later(database, migrations()[-1].number + 1, "0.10.0")
    await applied_later(database, 9000, "0.1.0")
    with pytest.raises(SchemaError, match=r"future.*install 0\.10\.0 or newer"):
        await migrate(database)


async def test_a_database_from_before_migrations_declared_anything_is_taken_on(database: Database) -> None:
    await database.execute("alter table migrations drop column oldest")
    await database.execute("delete from migrations where number = 31")
    await database.execute("drop table secrets_check")
    assert await migrate(database) == ["0031_one_secrets_key"]
    assert await database.fetchval("select array_agg(distinct oldest) from migrations") == ["0.1.0"]


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
