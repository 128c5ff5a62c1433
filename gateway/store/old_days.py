"""The removal of a day of messages while the gateway runs.

1. Rows still needed are copied, in pieces, into tables of the same shape beside the day. No other transaction waits
   for that; after a restart it continues where it stopped.
2. Rows of the day that change meanwhile are noted by triggers, and copied again at the end.
3. The copy takes the place of the day, table by table. That blocks others for some milliseconds, and is put off
   while a transaction holds a table for longer.
4. Rows of other tables about deleted messages are deleted in pieces, then the day's tables are dropped.

A copy in its day's place loses, in pieces, the rows that are not needed any more, and is dropped when it is empty.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from gateway.store.database import Database
from gateway.store.partitions import LOCK, PARTITIONED, days_of, partition_of
from gateway.store.row_ids import Mint

AT_ONCE = 2000  # messages looked at by one statement: some tenths of a second at most
BYTES_AT_ONCE = 32 * 1024 * 1024  # of the bodies that one statement copies
LOCK_MILLISECONDS_MAX = 300  # as long as others may have to wait behind us
TRANSACTION_MINUTES_MAX = 5  # that began before a day's clearing, and commits after it
BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)  # it is done at the next round
NOWHERE = UUID(int=0)

# True if anything still needs the message {id}. Each is looked up by its key, whatever the planner knows.
NEEDED = """coalesce(
    (select true from deliveries d where d.message = {id} limit 1),
    (select true from entries e where e.message = {id} and e.acknowledged_at is null and e.dead_at is null
     and (e.expires_at is null or e.expires_at > amtp_now()) limit 1),
    (select true from dead_letters l where l.message = {id} and l.replayed_at is null limit 1),
    false
)"""

# Notes the ids of rows that change, in the table that the trigger names.
_NOTE = """
create or replace function amtp_note_change() returns trigger language plpgsql as $$
begin
    execute format('insert into %I (message) values ($1) on conflict do nothing', tg_argv[0])
        using (to_jsonb(case when tg_op = 'DELETE' then old else new end) ->> tg_argv[1])::uuid;
    return null;
end $$
"""

_COPY = """
with piece as materialized (
    select id from {messages} where id > (select done_to from {clearing}) order by id limit $1
), needed as materialized (
    select p.id, octet_length(m.body) as bytes
    from piece p cross join lateral (select body from {messages} where id = p.id offset 0) m
    where {is_needed}
), taken as materialized (
    select id from (select id, sum(bytes) over (order by id) - bytes as before from needed) n where before < $2
), {copies}, done as (
    update {clearing} set done_to = coalesce(
        case when (select count(*) from taken) < (select count(*) from needed)
             then (select id from taken order by id desc limit 1)
             else (select id from piece order by id desc limit 1) end,
        done_to)
)
select count(*) from piece
"""

# A message may come to be needed after it was looked at: a repetition added a recipient.
_NEWLY_NEEDED = """
insert into {changes} (message)
select message from (
    select d.message from deliveries d where d.message >= $1 and d.message < $2
    union
    select l.message from dead_letters l where l.message >= $1 and l.message < $2 and l.replayed_at is null
    union
    select e.message from entries e
    where e.message >= $1 and e.message < $2 and e.delivered_at >= (select began_at from {clearing})
) n
where (select true from {kept} k where k.id = n.message limit 1) is null
on conflict do nothing
"""

# What changed of the messages that are kept, or needed by now.
_LATE = "select message from {changes} c where (select true from {kept} k where k.id = c.message limit 1)"

_FORGET_ENTRIES = """
with piece as materialized (
    select message, agent from entries where (message, agent) > ($2, $3) and message < $4
    order by message, agent limit $5
), gone as (
    delete from entries e using piece p
    where e.message = any (array[p.message]) and e.agent = p.agent
      and (select true from messages m where m.id = p.message limit 1) is null
    returning e.message
), counted as (
    insert into tallies (id, at, accepted, finished, entries)
    select $1, amtp_now(), 0, 0, -count(*) from gone having count(*) > 0
)
select message, agent from piece order by message desc, agent desc limit 1
"""

_FORGET_LETTERS = """
delete from dead_letters l where l.message >= $1 and l.message < $2
  and (select true from messages m where m.id = l.message limit 1) is null
"""

_SWEEP = """
with piece as materialized (
    select id from {messages} where id > $2 and id < $3 order by id limit $4
), over as materialized (
    select id from piece p where not {is_needed}
), e as (
    delete from entries where message = any (array(select id from over)) returning message
), l as (
    delete from dead_letters where message = any (array(select id from over))
), {deletions}, counted as (
    insert into tallies (id, at, accepted, finished, entries)
    select $1, amtp_now(), 0, 0, -count(*) from e having count(*) > 0
)
select id from piece order by id desc limit 1
"""


class OldDays:
    """The days whose time is over."""

    def __init__(self, database: Database, mint: Mint) -> None:
        self._database = database
        self._mint = mint

    async def forget(self, days: int) -> None:
        """Drops every day older than that, and deletes copied rows of dropped days that are not needed any more."""
        async with self._database.connection() as connection:
            today = (await connection.fetchval("select amtp_now()")).astimezone(UTC).date()
            oldest = today - timedelta(days=days)
            for day in [day for day in await days_of(connection, "messages") if day < oldest]:
                await self.begin(connection, day)
            begun = await _days_with(connection, "clearing_")
        for day in begun:
            with suppress(asyncpg.UndefinedTableError):  # another process has done it meanwhile
                await self._clear(day)
        async with self._database.connection() as connection:
            begun = await _days_with(connection, "clearing_")
            kept = [day for day in await _days_with(connection, "messages_", "_kept") if day not in begun]
        for day in kept:
            with suppress(asyncpg.UndefinedTableError):
                await self._sweep(kept_of("messages", day), *_bounds(day))
                await self._drop_if_empty(day)
        await self._sweep("messages_other", NOWHERE, _first_id(oldest))

    async def begin(self, connection: Any, day: date) -> None:
        """Makes the tables for what is kept, and has changes noted from now on."""
        clearing, changes = f"clearing_{day:%Y%m%d}", f"changes_{day:%Y%m%d}"
        with suppress(*BUSY):
            async with _briefly(connection) as held:
                if not held or await connection.fetchval("select to_regclass($1) is not null", clearing):
                    return
                await connection.execute(_NOTE)
                await connection.execute(f"create table {changes} (message uuid primary key)")
                for table, column in PARTITIONED.items():
                    name, kept = partition_of(table, day), kept_of(table, day)
                    first, after = _bounds(day)
                    await connection.execute(
                        f"create table {kept} (like {name} including all,"
                        f" constraint {kept}_bounds"
                        f" check ({column} is not null and {column} >= '{first}' and {column} < '{after}'))"
                    )
                    await connection.execute(
                        f"create trigger note_change after insert or update or delete on {name}"
                        f" for each row execute function amtp_note_change('{changes}', '{column}')"
                    )
                # Made last: where it is there, everything is.
                await connection.execute(
                    f"create table {clearing} as select '{NOWHERE}'::uuid as done_to,"
                    f" amtp_now() - interval '{TRANSACTION_MINUTES_MAX} min' as began_at"
                )

    async def _clear(self, day: date) -> None:
        """Finishes a day whose removal was begun."""
        while await self.copy(day) > 0:
            pass
        for table, column in PARTITIONED.items():
            if not await self.take_place(table, column, day):
                return
        await self._forget_followers(*_bounds(day))
        async with self._database.transaction() as connection:
            for table in PARTITIONED:
                await connection.execute(f"drop table if exists {partition_of(table, day)}")
            await connection.execute(f"drop table if exists clearing_{day:%Y%m%d}, changes_{day:%Y%m%d}")

    async def copy(self, day: date) -> int:
        """Copies what is needed of some messages; returns how many it looked at."""
        async with self._database.transaction() as connection:
            if not await _attached(connection, partition_of("messages", day)):
                return 0
            await connection.execute(f"select from clearing_{day:%Y%m%d} for update")  # one process at a time
            return await copy_piece(connection, day)

    async def take_place(self, table: str, column: str, day: date) -> bool:
        """Puts the copy in the place of a table's day; returns False where that has to wait for other transactions."""
        name, kept, changes = partition_of(table, day), kept_of(table, day), f"changes_{day:%Y%m%d}"
        first, after = _bounds(day)
        async with self._database.connection() as connection:
            with suppress(*BUSY):
                async with _briefly(connection) as held:
                    if not held:
                        return False
                    if not await _attached(connection, name):
                        return True
                    await connection.execute(f"lock table {name} in exclusive mode")
                    if table == "messages":
                        newly = _NEWLY_NEEDED.format(
                            changes=changes, clearing=f"clearing_{day:%Y%m%d}", kept=kept
                        )
                        await connection.execute(newly, first, after)
                    late = _LATE.format(changes=changes, kept=kept_of("messages", day))
                    if table == "messages":
                        late = f"{late} or {NEEDED.format(id='c.message')}"
                    late = f"{column} = any (array({late}))"
                    await connection.execute(f"delete from {kept} where {late}")
                    await connection.execute(f"insert into {kept} select * from {name} where {late}")
                    await connection.execute(f"lock table {table} in access exclusive mode")
                    await connection.execute(f"alter table {table} detach partition {name}")
                    await connection.execute(
                        f"alter table {table} attach partition {kept} for values from ('{first}') to ('{after}')"
                    )
                    await connection.execute(f"alter table {kept} drop constraint {kept}_bounds")
                    return True
        return False

    async def _forget_followers(self, first: UUID, after: UUID) -> None:
        """Deletes what inboxes and dead letters hold of messages that are gone."""
        place: Any = (first, -1)
        while place is not None:
            place = await self._database.fetchrow(_FORGET_ENTRIES, self._mint(), *place, after, AT_ONCE)
        await self._database.execute(_FORGET_LETTERS, first, after)

    async def _sweep(self, messages: str, after: UUID, before: UUID) -> None:
        """Deletes the messages of a table, and all about them, that nobody needs any more."""
        suffix = messages.removeprefix("messages")
        deletions = ", ".join(
            f"{table}_gone as (delete from {table}{suffix} where {column} = any (array(select id from over)))"
            for table, column in PARTITIONED.items()
        )
        statement = _SWEEP.format(messages=messages, is_needed=NEEDED.format(id="p.id"), deletions=deletions)
        place: UUID | None = after
        while place is not None:
            place = await self._database.fetchval(statement, self._mint(), place, before, AT_ONCE)

    async def _drop_if_empty(self, day: date) -> None:
        async with self._database.connection() as connection:
            kept = kept_of("messages", day)
            if await connection.fetchval(f"select exists (select from {kept} limit 1)"):
                return
            for table in PARTITIONED:
                with suppress(*BUSY):
                    async with _briefly(connection) as held:
                        if held:
                            await connection.execute(f"drop table {kept_of(table, day)}")


async def copy_piece(connection: Any, day: date) -> int:
    """Copies what is needed of the next messages of a day; returns how many it looked at."""
    copies = ", ".join(
        f"{table}_copied as (insert into {kept_of(table, day)} select * from {partition_of(table, day)}"
        f" where {column} = any (array(select id from taken)))"
        for table, column in PARTITIONED.items()
    )
    statement = _COPY.format(
        messages=partition_of("messages", day),
        clearing=f"clearing_{day:%Y%m%d}",
        is_needed=NEEDED.format(id="p.id"),
        copies=copies,
    )
    looked_at: int = await connection.fetchval(statement, AT_ONCE, BYTES_AT_ONCE)
    return looked_at


def kept_of(table: str, day: date) -> str:
    """Returns the name of the table for what is kept of a day."""
    return f"{partition_of(table, day)}_kept"


def _bounds(day: date) -> tuple[UUID, UUID]:
    return _first_id(day), _first_id(day + timedelta(days=1))


def _first_id(day: date) -> UUID:
    """Returns the smallest id of a day, as amtp_first_id does."""
    milliseconds = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    return UUID(f"{milliseconds:012x}70008000000000000000")


async def _days_with(connection: Any, prefix: str, suffix: str = "") -> list[date]:
    """Returns the days that have a table of such a name, oldest first."""
    rows = await connection.fetch(
        "select substr(relname, length($1) + 1, 8) from pg_class"
        " where relkind = 'r' and relnamespace = to_regnamespace(current_schema()) and relname ~ $2 order by 1",
        prefix,
        f"^{prefix}[0-9]{{8}}{suffix}$",
    )
    return [datetime.strptime(row[0], "%Y%m%d").date() for row in rows]


async def _attached(connection: Any, name: str) -> bool:
    """Returns whether the table is a partition; it may not exist any more."""
    found: bool = await connection.fetchval(
        "select exists (select from pg_inherits where inhrelid = to_regclass($1))", name
    )
    return found


@asynccontextmanager
async def _briefly(connection: Any) -> AsyncIterator[bool]:
    """Opens a transaction that changes the schema, and gives up where it would block others for long.

    Yields False where another process changes the schema.
    """
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = {LOCK_MILLISECONDS_MAX}")
        yield await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK)
