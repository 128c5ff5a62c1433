"""The retention of notices: given up when too old or too many, kept a while for replays, then deleted."""

from gateway.store.database import Database

KEPT_DAYS = 7  # what ended, and every try
WAITING_MAX = 100_000  # for one subscriber; beyond that the oldest are given up
AT_ONCE = 5000  # rows in one statement, so that none holds its locks for long

_GIVE_UP = """
with over as ({chosen}), gone as (
    delete from notices n using over where n.id = any (array[over.id]) returning n.*
), ended as (
    insert into notices_ended (id, subscription, event, body, at, ended_at, told)
    select id, subscription, event, body, at, amtp_now(), false from gone
    where event not in ('challenge', 'webhook.test')
    on conflict (id) do update set body = excluded.body, at = excluded.at, ended_at = excluded.ended_at, told = false
)
select count(*) from gone
"""

_TOO_OLD = """
    select id from notices where until <= amtp_now() and (token is null or due <= amtp_now())
    order by until limit $1 for update skip locked
"""

_TOO_MANY = f"""
    select n.id from subscriptions s cross join lateral (
        select due from notices where subscription = s.id order by due desc offset {WAITING_MAX} limit 1
    ) last cross join lateral (
        select id from notices where subscription = s.id and due <= last.due order by due limit $1
    ) n
"""

_ORPHANS = (
    "delete from {table} where {key} in (select t.{key} from {table} t"
    " where not exists (select from subscriptions s where s.id = t.subscription) limit $1)"
)
_OLD = (
    "delete from {table} where {key} in (select {key} from {table}"
    " where {column} < amtp_now() - make_interval(days => $2) order by {column} limit $1)"
)
_KEPT = {"notices_ended": ("id", "at"), "notice_attempts": ("number", "at")}


async def give_up(database: Database) -> int:
    """Gives up notices that are too old or too many for their subscriber; returns their number."""
    given_up = 0
    for chosen in (_TOO_OLD, _TOO_MANY):
        while count := await database.fetchval(_GIVE_UP.format(chosen=chosen), AT_ONCE):
            given_up += count
    return given_up


async def forget(database: Database) -> None:
    """Deletes notices that ended long ago, and all of subscriptions that are gone."""
    for table, (key, column) in {**_KEPT, "notices": ("id", "at")}.items():
        await _empty(database, _ORPHANS.format(table=table, key=key), AT_ONCE)
        if table in _KEPT:
            await _empty(database, _OLD.format(table=table, key=key, column=column), AT_ONCE, KEPT_DAYS)


async def _empty(database: Database, statement: str, *arguments: int) -> None:
    while int((await database.execute(statement, *arguments)).split()[-1]):
        pass
