"""Retention: deletes what is old. A message stays while a live delivery, an open entry or an open dead letter needs it.

Days are dropped whole, never emptied row by row: see old_days.py.
"""

from gateway.config.sections import RetentionSettings
from gateway.store.database import Database
from gateway.store.old_days import OldDays
from gateway.store.row_ids import Mint

AT_ONCE = 5000  # rows in one statement, so that none holds its locks for long


async def forget(database: Database, mint: Mint, settings: RetentionSettings) -> None:
    """Runs one round of all retention."""
    await _old_keys(database, settings.keys_days)
    await _acknowledged(database, mint, settings.acknowledged_days)
    await database.execute(
        "delete from audit where at < amtp_now() - make_interval(days => $1)", settings.audit_days
    )
    await database.execute(
        "delete from attempts where at < amtp_now() - make_interval(days => $1)"
        " and message < amtp_first_id(amtp_now() - make_interval(days => $1))",  # not in the days since
        settings.attempts_days,
    )
    await database.execute(
        "delete from dead_letters where replayed_at < amtp_now() - make_interval(days => $1)",
        settings.attempts_days,
    )
    await OldDays(database, mint).forget(settings.messages_days)


async def _old_keys(database: Database, days: int) -> None:
    while await database.fetchval(
        "with gone as (delete from idempotency where ctid = any (array(select ctid from idempotency"
        " where at < amtp_now() - make_interval(days => $1) limit $2)) returning hash) select count(*) from gone",
        days,
        AT_ONCE,
    ):
        pass


async def _acknowledged(database: Database, mint: Mint, days: int) -> None:
    """Turns old acknowledged entries into settled rows, like those of any other finished recipient."""
    while await database.fetchval(
        "with gone as (delete from entries where ctid = any (array(select ctid from entries"
        "     where acknowledged_at < amtp_now() - make_interval(days => $1) order by acknowledged_at limit $2))"
        "     returning *),"
        " kept as (insert into settled (message, recipient, address, status, via, attempts, settled_at)"
        "     select gone.message, a.name, coalesce(gone.address, a.name), 'delivered', 'inbox', 1,"
        "            coalesce(gone.delivered_at, m.accepted_at)"
        "     from gone cross join lateral (select name from agents where id = gone.agent offset 0) a"
        "     cross join lateral (select accepted_at from messages where id = gone.message offset 0) m"
        "     on conflict do nothing),"
        " counted as (insert into tallies (id, at, accepted, finished, entries)"
        "     select $3, amtp_now(), 0, 0, -count(*) from gone having count(*) > 0)"
        " select count(*) from gone",
        days,
        AT_ONCE,
        mint(),
    ):
        pass
