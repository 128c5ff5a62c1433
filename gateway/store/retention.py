"""What is forgotten, and when. A message stays while a live delivery, an open entry or an open dead letter needs it.

Days are dropped whole, never emptied row by row. What of a day is still needed moves to the default partition first,
and leaves it, in pieces, when nobody needs it any more.
"""

from datetime import UTC, date, timedelta
from typing import Any

from gateway.config_sections import Retention
from gateway.mint import Mint
from gateway.store.database import Database
from gateway.store.partitions import LOCK, PARTITIONED, days_of, partition_of

AT_ONCE = 5000  # rows in one statement, so that none holds its locks for long

# Whether anybody still needs the message {id}.
_NEEDED = """
    exists (select from deliveries d where d.message = {id})
    or exists (select from entries e where e.message = {id} and e.acknowledged_at is null and e.dead_at is null
               and (e.expires_at is null or e.expires_at > amtp_now()))
    or exists (select from dead_letters l where l.message = {id} and l.replayed_at is null)
"""


_FORGET_ENTRIES = """
with gone as (delete from entries where message in ({forgotten}) returning message)
insert into tallies (id, at, accepted, finished, entries)
select $1, amtp_now(), 0, 0, -count(*) from gone having count(*) > 0
"""


async def forget(database: Database, mint: Mint, settings: Retention) -> None:
    """One round of everything whose time is over."""
    await _old_keys(database, settings.keys_days)
    await _acknowledged(database, mint, settings.acknowledged_days)
    await database.execute(
        "delete from audit where at < amtp_now() - make_interval(days => $1)", settings.audit_days
    )
    await database.execute(
        "delete from attempts where at < amtp_now() - make_interval(days => $1)", settings.attempts_days
    )
    await database.execute(
        "delete from dead_letters where replayed_at < amtp_now() - make_interval(days => $1)",
        settings.attempts_days,
    )
    await _old_days(database, mint, settings.messages_days)
    await _leftovers(database, mint, settings.messages_days)


async def _old_keys(database: Database, days: int) -> None:
    while await database.fetchval(
        "with gone as (delete from idempotency where hash in (select hash from idempotency"
        " where at < amtp_now() - make_interval(days => $1) limit $2) returning hash) select count(*) from gone",
        days,
        AT_ONCE,
    ):
        pass


async def _acknowledged(database: Database, mint: Mint, days: int) -> None:
    """Acknowledged entries become what any other finished recipient is: a settled row."""
    while await database.fetchval(
        "with gone as (delete from entries where (message, agent) in (select message, agent from entries"
        "     where acknowledged_at < amtp_now() - make_interval(days => $1) limit $2) returning *),"
        " kept as (insert into settled (message, recipient, address, status, via, attempts, settled_at)"
        "     select gone.message, a.name, coalesce(gone.address, a.name), 'delivered', 'inbox', 1,"
        "            coalesce(gone.delivered_at, m.accepted_at)"
        "     from gone join agents a on a.id = gone.agent join messages m on m.id = gone.message"
        "     on conflict do nothing),"
        " counted as (insert into tallies (id, at, accepted, finished, entries)"
        "     select $3, amtp_now(), 0, 0, -count(*) from gone having count(*) > 0)"
        " select count(*) from gone",
        days,
        AT_ONCE,
        mint(),
    ):
        pass


async def _old_days(database: Database, mint: Mint, days: int) -> None:
    async with database.transaction() as connection:
        if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", LOCK):
            return
        today = (await connection.fetchval("select amtp_now()")).astimezone(UTC).date()
        for day in await days_of(connection, "messages"):
            if day < today - timedelta(days=days):
                await _drop(connection, mint, day)


async def _drop(connection: Any, mint: Mint, day: date) -> None:
    """Takes a day off, moves what is still needed to the default partition, and drops the rest."""
    messages = partition_of("messages", day)
    needed = f"select id from {messages} m where {_NEEDED.format(id='m.id')}"
    await connection.execute(f"create temporary table needed on commit drop as {needed}")
    forgotten = f"select id from {messages} except select id from needed"
    await connection.execute(_FORGET_ENTRIES.format(forgotten=forgotten), mint())
    await connection.execute(f"delete from dead_letters where message in ({forgotten})")
    for table, column in PARTITIONED.items():
        name = partition_of(table, day)
        await connection.execute(f"alter table {table} detach partition {name}")
        await connection.execute(
            f"insert into {table} select * from {name} where {column} in (select id from needed)"
        )
        await connection.execute(f"drop table {name}")
    await connection.execute("drop table needed")


async def _leftovers(database: Database, mint: Mint, days: int) -> None:
    """What was kept past its day, once nobody needs it."""
    bound = "amtp_first_id(amtp_now() - make_interval(days => $1))"
    needed = _NEEDED.format(id="m.id")
    old = f"select id from messages_other m where id < {bound} and not ({needed}) order by id limit $2"
    forgotten = old.replace("$2", "$3").replace("$1", "$2")
    await database.execute(_FORGET_ENTRIES.format(forgotten=forgotten), mint(), days, AT_ONCE)
    await database.execute(f"delete from dead_letters where message in ({old})", days, AT_ONCE)
    for table, column in reversed(PARTITIONED.items()):
        await database.execute(f"delete from {table}_other where {column} in ({old})", days, AT_ONCE)
