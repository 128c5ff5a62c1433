"""Poison messages: entries whose leases ran out again and again become dead letters of their own agent.

The entry's status stays delivered, for the inbox had it. The agent lists them, puts them back, or drops them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.journal.journal import Journal
from gateway.protocol.errors import Code
from gateway.store.admitted import Rider, write_riders
from gateway.store.database import Database
from gateway.store.inbox.inbox import PAGE_BYTES_MAX

BURIED_MAX = 1000  # by one statement
REASON = "The agent took the message {lapses} times and never acknowledged it."


@dataclass(frozen=True, slots=True)
class Buried:
    agent: str
    message_id: str
    lapses: int
    row: UUID
    sender: str


@dataclass(frozen=True, slots=True)
class Undigested:
    """One of an agent's own dead letters."""

    number: int
    row: UUID
    body: bytes
    reason: str
    attempts: int
    first_attempt: datetime | None
    last_attempt: datetime | None
    at: datetime


async def bury(
    database: Database,
    journal: Journal,
    *,
    lapses_max: int,
    riders: Callable[[Sequence[Buried]], Iterable[Rider]] = lambda _: (),
) -> list[Buried]:
    """Turns entries whose last allowed lease ran out into dead letters, and tells the operator."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_BURY, lapses_max, Code.RECIPIENT_UNAVAILABLE.value, BURIED_MAX, REASON)
        buried = [Buried(*row) for row in rows]
        await write_riders(connection, riders(buried))
    for each in buried:
        journal.poisoned(each.agent, each.message_id, each.lapses)
    return buried


# Only an entry with a lapse behind it is in the index, so a house of healthy agents pays nothing. The last lapses were
# of a lease that held nothing else.
_BURY = """
with worn as (
    select ctid as place, lease_until from entries
    where lapses > 0 and lapses >= $1 - 1 and lease_until <= amtp_now()
      and acknowledged_at is null and dead_at is null
    order by lapses limit $3 for update skip locked
), dead as (
    update entries e
    set dead_at = amtp_now(), lapses = e.lapses + 1, lease_until = null, lease_token = null
    from worn where e.ctid = worn.place
    returning e.message, e.agent, e.address, e.lapses, e.read_at, worn.lease_until as last
), letters as (
    insert into dead_letters
        (message, recipient, address, agent, failure_code, failure_reason, attempts,
         first_attempt, last_attempt, at)
    select d.message, a.name, coalesce(d.address, a.name), d.agent, $2,
           replace($4, '{lapses}', d.lapses::text), d.lapses, d.read_at, d.last, amtp_now()
    from dead d join agents a on a.id = d.agent
)
select a.name, coalesce(m.public_id, m.id::text), d.lapses, m.id, m.sender
from dead d join agents a on a.id = d.agent join messages m on m.id = d.message
"""


async def undigested(
    database: Database, agent: int, *, after: int, limit: int, bytes_max: int = PAGE_BYTES_MAX
) -> tuple[list[Undigested], bool]:
    """Returns a page of the agent's open dead letters, oldest first, and whether there are more."""
    rows = await database.fetch(_UNDIGESTED, agent, after, limit, bytes_max)
    return [Undigested(*row[:8]) for row in rows], bool(rows and rows[0]["found"] > len(rows))


_UNDIGESTED = """
with found as materialized (
    select d.id, m.id as message, m.body, d.failure_reason, d.attempts, d.first_attempt, d.last_attempt, d.at
    from dead_letters d join messages m on m.id = d.message
    where d.agent = $1 and d.replayed_at is null and d.id > $2 order by d.id limit $3::bigint + 1
), sized as (
    select *, count(*) over () as found, row_number() over (order by id) as place,
           sum(octet_length(body)) over (order by id) as bytes_so_far
    from found
)
select * from sized where place <= $3 and (place = 1 or bytes_so_far <= $4) order by id
"""


async def revive(database: Database, agent: int, number: int) -> bool:
    """Puts the entry back into the inbox, unread and without lapses, and wakes whoever waits for it."""
    return await database.fetchval(_REVIVE, agent, number, str(agent)) is not None


_REVIVE = """
with letter as (
    update dead_letters set replayed_at = amtp_now()
    where id = $2 and agent = $1 and replayed_at is null
    returning message
), alive as (
    update entries e set dead_at = null, read_at = null, lapses = 0
    from letter where e.message = letter.message and e.agent = $1
    returning e.message
)
select pg_notify('amtp_inbox', $3)::text from alive
"""


async def drop(database: Database, agent: int, number: int) -> bool:
    """Deletes the dead letter; its entry counts as acknowledged."""
    return await database.fetchval(_DROP, agent, number) is not None


_DROP = """
with letter as (
    delete from dead_letters where id = $2 and agent = $1 and replayed_at is null returning message
)
update entries e set acknowledged_at = amtp_now()
from letter where e.message = letter.message and e.agent = $1 and e.acknowledged_at is null
returning e.message
"""
