"""Acknowledgements: the agent is done with an entry, and never sees it again.

1. Acknowledging twice is the same as once.
2. Several entries may share a public id. It then means, in this order: one that was handed out and is open, the
   earliest hand-out first; one that is acknowledged; one that was never handed out. An id named twice in one request
   means two of those handed out, if there are two. A lease, or the sender, narrows it down.
3. An ended lease does not acknowledge an entry that another consumer holds by now.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from gateway.store.admitted import Rider, write_riders
from gateway.store.database import Database
from gateway.store.messages.messages import row_of


@dataclass(frozen=True, slots=True)
class EntryName:
    """An entry as its agent names it."""

    message_id: str
    sender: str | None = None


class Result(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    TAKEN = "taken"  # by another lease
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The result for one name, with the row and sender of the entry it meant, if it meant one."""

    result: Result
    row: UUID | None = None
    sender: str | None = None
    at: datetime | None = None
    again: bool = False
    sent: tuple[str, ...] = ()  # the ids of what the first acknowledgement sent


@dataclass(frozen=True, slots=True)
class Meant:
    """The entry that a name means at a moment."""

    row: UUID
    done: bool  # acknowledged already


# Rows to write together with acknowledgements; None if there are none: these then take one statement.
Riders = Callable[[Sequence[EntryName], Sequence[Acknowledgement]], Iterable[Rider]] | None


async def acknowledge(
    database: Database,
    agent: int,
    names: Sequence[EntryName],
    lease: UUID | None = None,
    riders: Riders = None,
) -> list[Acknowledgement]:
    """Acknowledges the named entries; returns a result for each name, in their order."""
    async with database.connection() if riders is None else database.transaction() as connection:
        return await acknowledge_in(connection, agent, names, lease, riders)


async def acknowledge_in(
    connection: Any, agent: int, names: Sequence[EntryName], lease: UUID | None, riders: Riders = None
) -> list[Acknowledgement]:
    """Does the same on a connection whose transaction may hold more."""
    rows = await connection.fetch(_ACKNOWLEDGE, *_asked(agent, names, lease))
    results = [
        Acknowledgement(Result(result), row, sender, at, again, tuple(sent))
        for result, row, sender, at, again, sent in rows
    ]
    if riders is not None:
        await write_riders(connection, riders(names, results))
    return results


async def look(
    database: Database, agent: int, names: Sequence[EntryName], lease: UUID | None = None
) -> list[Meant | None]:
    """Returns the entry that each name means now; None where it means none."""
    rows = await database.fetch(_LOOK, *_asked(agent, names, lease))
    return [None if row[0] is None else Meant(*row) for row in rows]


def _asked(agent: int, names: Sequence[EntryName], lease: UUID | None) -> tuple[object, ...]:
    ids = [name.message_id for name in names]
    return agent, ids, [row_of(message_id) for message_id in ids], [name.sender for name in names], lease


# Subqueries end in `offset 0` and keys come as arrays, so that a planner that can't know how many were asked
# for finds every row by its key.
_MEANT = """
asked as materialized (
    select id, row_id, sender, n, row_number() over (partition by id, sender order by n) as nth
    from unnest($2::text[], $3::uuid[], $4::text[]) with ordinality as u (id, row_id, sender, n)
), known as (
    select a.n, a.nth, e.message, m.sender,
           row_number() over (
               partition by a.n
               order by (e.lease_token = $5) is true desc, e.rank, e.read_at nulls last, e.message
           ) as place,
           count(*) filter (where e.rank = 0) over (partition by a.n) as out
    from asked a, lateral (
        select id, sender from messages where id = a.row_id and public_id is null
        union all
        select id, sender from messages where public_id = a.id
        offset 0
    ) m, lateral (
        select message, read_at, lease_token,
               case when acknowledged_at is not null or dead_at is not null then 1
                    when read_at is not null then 0 else 2 end as rank
        from entries where message = m.id and agent = $1 offset 0
    ) e
    where a.sender is null or a.sender = m.sender
), meant as materialized (
    select n, message, sender from known where place = least(nth, greatest(out, 1))
)
"""

_LOOK = f"""
with {_MEANT}
select e.message, e.acknowledged_at is not null
from asked a left join meant on meant.n = a.n
left join entries e on e.message = meant.message and e.agent = $1
order by a.n
"""

_ACKNOWLEDGE = f"""
with {_MEANT}, locked as materialized (
    select message, address, acknowledged_at, dead_at, receipt, sent,
           acknowledged_at is null and lease_until > amtp_now() and lease_token <> $5 as taken
    from entries where agent = $1 and message = any (array(select message from meant))
    order by message for update
), done as (
    update entries e
    set acknowledged_at = amtp_now(), lease_until = null, lease_token = null, receipt = null
    where e.agent = $1
      and e.message = any (
          array(select message from locked where acknowledged_at is null and taken is not true)
      )
), owed as (
    insert into receipts (message, address, kind)
    select message, coalesce(address, (select name from agents where id = $1)), 'read' from locked
    where acknowledged_at is null and taken is not true and receipt
    on conflict do nothing
), closed as (
    delete from dead_letters d using locked l
    where d.agent = $1 and d.message = l.message and l.dead_at is not null
)
select case when l.message is null then 'unknown' when l.taken then 'taken' else 'acknowledged' end,
       l.message, meant.sender, coalesce(l.acknowledged_at, amtp_now()), l.acknowledged_at is not null,
       coalesce(l.sent, '{{}}')
from asked a left join meant on meant.n = a.n left join locked l on l.message = meant.message
order by a.n
"""
