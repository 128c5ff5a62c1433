"""Deliveries that another gateway accepted and later reported as failed: they end as failed.

A report may come before we recorded that the gateway took the message. So it ends a live delivery, too; the worker that
carries it finds a newer token, and changes nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.store.database import Database
from gateway.store.messages.messages import row_of


@dataclass(frozen=True, slots=True)
class Given:
    """A message that another gateway took for these recipients, or is taking now."""

    row: UUID
    message_id: str
    sender: str
    recipients: tuple[str, ...]


_GIVEN = """
select m.id, coalesce(m.public_id, m.id::text), m.sender, array_agg(r.name)
from unnest($4::text[]) as r (name) cross join (
    select * from messages where id = $1 and public_id is null union all select * from messages where public_id = $2
) m
where m.sender = any ($3) and m.proven
  and (exists (select from settled s where s.message = m.id and s.recipient = r.name
               and s.status = 'delivered' and s.via like 'amtp:%')
       or exists (select from deliveries d where d.message = m.id and d.recipient = r.name and d.attempts > 0))
group by m.id, m.public_id, m.sender
"""


async def given(
    database: Database, message_id: str, senders: Collection[str], recipients: Collection[str]
) -> list[Given]:
    """Returns the messages of this id by `senders` that another gateway has for any of the recipients."""
    rows = await database.fetch(_GIVEN, row_of(message_id), message_id, list(senders), list(set(recipients)))
    return [Given(row[0], row[1], row[2], tuple(row[3])) for row in rows]


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The change written with the report. A repeated report changes nothing."""

    message: UUID
    recipients: tuple[str, ...]
    code: str
    error: str
    details: str | None  # JSON
    tally: UUID

    @staticmethod
    async def write(line: Any, riders: Sequence["Undelivered"], /) -> None:
        for rider in riders:
            await line.execute(
                _FAIL,
                rider.message,
                list(rider.recipients),
                rider.code,
                rider.error,
                rider.details,
                rider.tally,
            )


_FAIL = """
with live as (
    delete from deliveries where message = $1 and recipient = any ($2) and attempts > 0
    returning recipient, address, attempts, first_attempt
), ended as (
    insert into settled (message, recipient, address, status, code, error, details, attempts, settled_at)
    select $1, recipient, address, 'failed', $3, $4, $5::jsonb, attempts, amtp_now() from live
), taken as (
    update settled set status = 'failed', code = $3, error = $4, details = $5::jsonb, settled_at = amtp_now()
    where message = $1 and recipient = any ($2) and status = 'delivered' and via like 'amtp:%'
    returning recipient, address, attempts
), counted as (
    insert into tallies (id, at, accepted, finished)
    select $6, amtp_now(), 0, count(*) from live having count(*) > 0
)
insert into dead_letters
    (message, recipient, address, failure_code, failure_reason, failure_details, attempts, first_attempt,
     last_attempt, at)
select $1, recipient, address, $3, $4, $5::jsonb, attempts, first_attempt, amtp_now(), amtp_now()
from (select recipient, address, attempts, first_attempt from live
      union all select recipient, address, attempts, null from taken) gone
"""
