"""Daily partitions for everything that lives as long as its message.

Each partitioned table has a partition `_other` for the ids no day covers: rows inserted before their day was prepared.
Rows kept past their day are in that day's partition `_kept`.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from gateway.store.database import Database

# Table and the column of message ids it is partitioned by.
LOCK = 0x414D5450  # "AMTP": the advisory lock for changes of the schema
PARTITIONED = {"messages": "id", "settled": "message", "attempts": "message", "events": "message"}
DAYS_AHEAD = 3


def partition_of(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


async def prepare(connection: Any) -> None:
    """Makes sure that today and the days ahead have their partitions. The caller holds the migration lock."""
    today = (await connection.fetchval("select amtp_now()")).astimezone(UTC).date()
    for table, column in PARTITIONED.items():
        await connection.execute(f"create table if not exists {table}_other partition of {table} default")
        present = await days_of(connection, table)
        for ahead in range(-1, DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if day not in present:
                await _create(connection, table, column, day)


async def keep_ahead(database: Database) -> None:
    """Calls `prepare` from a running gateway; skips it where another process holds the lock and does the same."""
    async with database.transaction() as connection:
        if await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK):
            await prepare(connection)


async def days_of(connection: Any, table: str) -> list[date]:
    """Returns the days that have a partition, oldest first."""
    names = await connection.fetch(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = $1::text::regclass",
        table,
    )
    suffixes = (row["relname"].removeprefix(f"{table}_") for row in names)
    return sorted(datetime.strptime(day, "%Y%m%d").date() for day in suffixes if day.isdigit())


async def _create(connection: Any, table: str, column: str, day: date) -> None:
    """Creates the partition of a day, and moves rows into it that meanwhile landed in the default partition."""
    name = partition_of(table, day)
    first, after = (f"amtp_first_id('{day + timedelta(days=d)}T00:00:00Z')" for d in (0, 1))
    async with connection.transaction():
        await connection.execute(f"lock table {table} in access exclusive mode")
        await connection.execute(
            f"create table {name} (like {table} including defaults including constraints including storage)"
        )
        await connection.execute(
            f"with moved as (delete from {table}_other where {column} >= {first} and {column} < {after} returning *)"
            f" insert into {name} select * from moved"
        )
        bounds = await connection.fetchrow(f"select {first}::text as first, {after}::text as after")
        await connection.execute(
            f"alter table {table} attach partition {name} for values from ('{bounds['first']}') to ('{bounds['after']}')"
        )
