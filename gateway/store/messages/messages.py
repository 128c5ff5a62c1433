"""The status of messages: found by their public id, with the state of each recipient.

A recipient's state is written in one of three places: a live one in the queue, one whose inbox is here in its
entry, any other in `settled`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from gateway.protocol.errors import Code
from gateway.protocol.status import RecipientState, Status
from gateway.store.database import Database

NAMESAKES_MAX = 100  # messages of different senders under one public id that are looked at


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message as its status names it."""

    row: UUID
    message_id: str
    sender: str
    proven: bool
    accepted_at: datetime


def row_of(message_id: str) -> UUID | None:
    """Returns the row id that this public id contains, if it was minted here."""
    try:
        row = UUID(message_id)
    except ValueError:
        return None
    return row if str(row) == message_id else None


async def find(
    database: Database,
    message_id: str,
    *,
    sender: str | None = None,
    own: str | None = None,
    row: UUID | None = None,
) -> list[FoundMessage]:
    """Returns the messages with this public id: of `sender` and `row` alone if given, those of `own` first, then the
    proven ones, then the newest."""
    rows = await database.fetch(
        "select id, coalesce(public_id, id::text), sender, proven, accepted_at from ("
        " select * from messages where id = $1 and public_id is null"
        " union all select * from messages where public_id = $2) m"
        " where ($3::text is null or sender = $3) and ($6::uuid is null or id = $6)"
        " order by sender = $4 desc nulls last, proven desc, id desc limit $5",
        row_of(message_id),
        message_id,
        sender,
        own,
        NAMESAKES_MAX,
        row,
    )
    return [FoundMessage(*found) for found in rows]


async def body_of(database: Database, row: UUID) -> bytes | None:
    """Returns the message as it is stored; None after its retention ended."""
    body: bytes | None = await database.fetchval("select body from messages where id = $1", row)
    return body


# Later rows override earlier ones of the same recipient: what is live stands above what once ended.
_STATES = """
select e.message, a.name as recipient, coalesce(e.address, a.name) as address, 'delivered' as status,
       null::text as code, null::text as error, null::jsonb as details, t.at, 1 as attempts, t.at as delivered_at,
       null::timestamptz as next_retry,
       'inbox' as via, 1 as rank
from entries e
join agents a on a.id = e.agent
cross join lateral (
    select coalesce(e.delivered_at, (select accepted_at from messages where id = e.message)) as at
) t
where e.message = any ($1)
union all
select s.message, s.recipient, s.address, s.status, s.code, s.error, s.details, s.settled_at, s.attempts,
       case when s.status = 'delivered' then s.settled_at end, null, s.via, 2
from settled s where s.message = any ($1)
union all
select d.message, d.recipient, d.address, d.state, null, coalesce(d.last_error, w.reason), null,
       coalesce(d.last_attempt, d.first_attempt, d.accepted_at), d.attempts, null,
       greatest(d.due, d.accepted_at, w.until), null, 3
from deliveries d
left join lateral (
    select case when paused then coalesce(pause_reason, 'Deliveries there are paused.')
                else last_error end as reason,
           greatest(open_until, case when paused then paused_until end) as until
    from (
        select *, paused_at is not null and (paused_until is null or paused_until > amtp_now()) as paused
        from destinations where destination = d.destination
    ) known
    where paused or open_until > amtp_now()
) w on true
where d.message = any ($1)
order by message, rank, recipient
"""


async def states(database: Database, rows: Collection[UUID]) -> dict[UUID, dict[str, RecipientState]]:
    """Returns the state of each accepted recipient by name, for each of these messages that has any."""
    found: dict[UUID, dict[str, RecipientState]] = {}
    for row in await database.fetch(_STATES, list(rows)):
        found.setdefault(row["message"], {})[row["recipient"]] = RecipientState(
            address=row["address"],
            status=Status(row["status"]),
            error=None if row["code"] is None else (Code(row["code"]), row["error"] or ""),
            details=None if row["details"] is None else msgspec.Raw(row["details"].encode()),
            timestamp=row["at"],
            attempts=row["attempts"],
            delivered_at=row["delivered_at"],
            next_retry=row["next_retry"],
            last_error=row["error"],
            via=row["via"],
        )
    return found
