"""The write of a batch of admitted messages: one statement for all of it, and one for the riders of each kind."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from gateway.store.admitted import Admitted, Place, write_riders
from gateway.store.intake.uniqueness import Wanted
from gateway.store.wakeups.topics import notice_of, topics_of

_WRITE = """
with {registered}m as (
    insert into messages
        (id, public_id, sender, proven, in_reply_to, schema, automatic, hops, body, expires_at, accepted_at)
    select id, public_id, sender, proven, in_reply_to, schema, coalesce(automatic, false),
           string_to_array(hops, ','), body, expires_at, amtp_now()
    from unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::text[], $6::text[], $7::bool[], $8::text[],
                $9::bytea[], $10::timestamptz[])
        as u (id, public_id, sender, proven, in_reply_to, schema, automatic, hops, body, expires_at) {unseen}
), e as (
    insert into entries (message, agent, address, expires_at, receipt, read_at, unproven)
    select message, agent, address, expires_at, receipt, case when promised then amtp_now() end, unproven
    from unnest($11::uuid[], $12::bigint[], $13::text[], $14::timestamptz[], $25::bool[], $27::bool[], $28::int[])
        as u (message, agent, address, expires_at, receipt, promised, unproven) {unseen}
), d as (
    insert into deliveries
        (message, recipient, address, destination, due, expires_at, expiry, token, attempts, accepted_at,
         first_attempt, last_attempt, receipt, unproven)
    select message, recipient, address, destination, due, expires_at, expiry, token,
           case when token is null then 0 else 1 end, amtp_now(),
           case when token is not null then amtp_now() end, case when token is not null then amtp_now() end,
           receipt, unproven
    from unnest($15::uuid[], $16::text[], $17::text[], $18::text[], $19::timestamptz[], $20::timestamptz[],
                $21::text[], $22::bigint[], $26::text[], $29::int[])
        as u (message, recipient, address, destination, due, expires_at, expiry, token, receipt, unproven) {unseen}
), t as (
    insert into tallies (id, at, accepted, finished, entries)
    select $23::uuid, amtp_now(), cardinality($11::uuid[]) + cardinality($15::uuid[]), cardinality($11::uuid[]),
           cardinality($11::uuid[])
    {unseen}
)
select {written}, case when $24::text <> '' then pg_notify('amtp_inbox', $24) end
"""


_INSERT = _WRITE.format(registered="", unseen="", written="amtp_now()")

# The same, and registers keys and ids. If any of them was seen before, nothing is written.
# Each hash is looked up by its key: a plan made while the table was empty would read all of it ever after.
# Where another transaction registers one of them meanwhile, the statement fails by dividing by nought.
_INSERT_UNSEEN = _WRITE.format(
    registered="""seen as materialized (
    select from unnest($30::bytea[]) as u (hash)
    where (select i.message from idempotency i where i.hash = u.hash) is not null limit 1
), h as (
    insert into idempotency (hash, message, content, at)
    select hash, message, content, amtp_now()
    from unnest($30::bytea[], $31::uuid[], $32::bytea[]) as u (hash, message, content)
    where not exists (select from seen)
    on conflict do nothing
    returning hash
), """,
    unseen="where not exists (select from seen)",
    written="""case when exists (select from seen) then null
            when 1 / ((select count(*) from h) = cardinality($30::bytea[]))::int = 1 then amtp_now() end""",
)


async def insert(
    line: Any, batch: UUID, new: Sequence[Admitted], promised: Collection[Place] = ()
) -> datetime:
    """Writes the messages, whose keys and ids are registered, and their riders. Returns the time of acceptance."""
    at: datetime = await line.fetchval(_INSERT, *_columns(batch, new, promised))
    await write_riders(line, (rider for a in new for rider in a.riders))
    return at


async def insert_unseen(
    line: Any, batch: UUID, new: Sequence[Admitted], promised: Collection[Place], wanted: Sequence[Wanted]
) -> datetime | None:
    """Writes the messages and registers their keys and ids by one statement; returns None, writing nothing, if it can't."""
    try:
        at: datetime | None = await line.fetchval(
            _INSERT_UNSEEN, *_columns(batch, new, promised), *map(list, zip(*wanted, strict=True))
        )
    except asyncpg.DivisionByZeroError:
        return None
    return at


def _columns(batch: UUID, new: Sequence[Admitted], promised: Collection[Place]) -> list[Any]:
    messages = [(a.message, a) for a in new]
    entries = [(a.message.row, e, a.message.expires_at) for a in new for e in a.entries]
    queued = [(a.message.row, d) for a in new for d in a.deliveries]
    return [
        [m.row for m, _ in messages],
        _rare([None if m.minted else m.message_id for m, _ in messages]),
        [m.sender.name for m, _ in messages],
        [a.proven for _, a in messages],
        _rare([m.in_reply_to for m, _ in messages]),
        _rare([m.schema for m, _ in messages]),
        _rare([a.automatic or None for _, a in messages]),
        _rare([",".join(a.hops) or None for _, a in messages]),
        [m.body for m, _ in messages],
        _rare([m.expires_at for m, _ in messages]),
        [row for row, _, _ in entries],
        [e.agent for _, e, _ in entries],
        _rare([e.address for _, e, _ in entries]),
        _rare([expires for _, _, expires in entries]),
        [row for row, _ in queued],
        [d.recipient for _, d in queued],
        [d.address for _, d in queued],
        [d.destination for _, d in queued],
        [d.leased_until or d.due for _, d in queued],
        [d.expires_at for _, d in queued],
        [d.expiry for _, d in queued],
        [d.token for _, d in queued],
        batch,
        notice_of(topics_of(new)),
        _rare([e.receipt or None for _, e, _ in entries]),
        _rare([d.receipt for _, d in queued]),
        _rare([(row, e.agent) in promised or None for row, e, _ in entries]) if promised else [],
        _rare([a.weight for a in new for _ in a.entries]),
        _rare([a.weight for a in new for _ in a.deliveries]),
    ]


def _rare(column: list[Any]) -> list[Any]:
    """Returns an empty list for a column without values: unnest pads it with nulls, and the driver encodes none."""
    return [] if column.count(None) == len(column) else column
