"""What agents' keys leave at work: webhooks, schedules and queued mail, which outlive the key that made them.

What operators made for an agent is not the agent's, and stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.store.subscriptions import subscribers_changed

LISTED_MAX = 1000
CANCELLED_AT_ONCE = 10_000
ENDED = "The key that made it was taken back."

# Of an agent's own: made with a key of its, or with one that nobody knows any more.
_OWN = "not exists (select from keys k where k.id = t.key and k.agent is distinct from t.agent)"


@dataclass(frozen=True, slots=True)
class Webhook:
    id: UUID
    url: str
    key: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Repeating:
    id: UUID
    repeat: str
    key: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Made:
    """What is still at work, the oldest first."""

    webhooks: tuple[Webhook, ...] = ()
    schedules: tuple[Repeating, ...] = ()
    queued: int = 0  # deliveries, whoever handed them in for the agent

    @property
    def counts(self) -> Mapping[str, int]:
        return {"webhooks": len(self.webhooks), "schedules": len(self.schedules), "queued": self.queued}


async def made_by(connection: Any, agent: int, name: str) -> Made:
    """Returns what an agent's keys made."""
    made = await _made(connection, f"t.agent = $1 and {_OWN}", agent)
    queued = await connection.fetchval(
        f"select count(*) from ({_QUEUED} limit $2) few", name, CANCELLED_AT_ONCE
    )
    return replace(made, queued=queued)


async def made_with(connection: Any, key: str) -> Made:
    """Returns what one key made, for whatever agent."""
    return await _made(connection, "t.key = $1", key)


async def _made(connection: Any, whose: str, value: object) -> Made:
    webhooks = await connection.fetch(
        f"select id, url, key, created_at from subscriptions t where {whose} order by id limit $2",
        value,
        LISTED_MAX,
    )
    schedules = await connection.fetch(
        "select id, repeat, key, created_at from schedules t"
        f" where next_at is not null and {whose} order by id limit $2",
        value,
        LISTED_MAX,
    )
    return Made(tuple(Webhook(*row) for row in webhooks), tuple(Repeating(*row) for row in schedules))


async def drop(connection: Any, made: Made, name: str, actor: str, batch: UUID) -> None:
    """Ends all that an agent's keys made, in the transaction that takes them back."""
    await end(connection, made)
    if made.queued:
        await connection.execute(_CANCEL, name, CANCELLED_AT_ONCE, ENDED, actor, batch)


async def end(connection: Any, made: Made) -> None:
    """Ends these webhooks and schedules."""
    if made.webhooks:
        await connection.execute(
            "delete from subscriptions where id = any ($1::uuid[])", [webhook.id for webhook in made.webhooks]
        )
        await subscribers_changed(connection)
    await connection.execute(
        "update schedules set next_at = null, ended_at = amtp_now(), end_reason = $2"
        " where id = any ($1::uuid[]) and next_at is not null",
        [schedule.id for schedule in made.schedules],
        ENDED,
    )


# What is under way goes on.
_QUEUED = """
select d.message, d.recipient from messages m join deliveries d on d.message = m.id
where m.sender = $1 and m.proven and not (d.token is not null and d.due > amtp_now())
"""

_CANCEL = f"""
with chosen as (
    {_QUEUED} order by d.message, d.recipient limit $2 for update of d skip locked
), gone as (
    delete from deliveries d using chosen c where d.message = c.message and d.recipient = c.recipient
    returning d.message, d.recipient, d.address, d.attempts
), ended as (
    insert into settled (message, recipient, address, status, error, attempts, settled_at)
    select message, recipient, address, 'cancelled', $3, attempts, amtp_now() from gone
    on conflict (message, recipient) do update
    set status = excluded.status, via = null, code = null, error = excluded.error,
        attempts = excluded.attempts, settled_at = excluded.settled_at
), told as (
    insert into events (message, at, event, recipient, actor)
    select message, amtp_now(), 'cancelled', recipient, $4 from gone
)
insert into tallies (id, at, accepted, finished) select $5, amtp_now(), 0, count(*) from gone
"""


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """What a retired name has when it is registered again."""

    unread: int  # entries nobody acknowledged, counted up to a limit
    webhooks: tuple[UUID, ...]  # disabled, until somebody enables them


async def bring_back(connection: Any, agent: int) -> BroughtBack:
    """Disables the webhooks of before, in the transaction that registers the name again."""
    await connection.execute(
        "delete from subscriptions where agent = $1 and proven_at is null", agent
    )  # whose target never answered
    rows = await connection.fetch(
        "update subscriptions set status = 'disabled', disabled_at = amtp_now()"
        " where agent = $1 and status <> 'disabled' returning id",
        agent,
    )
    await subscribers_changed(connection)
    unread = await connection.fetchval(
        "select count(*) from (select from entries where agent = $1 and acknowledged_at is null"
        " and dead_at is null limit $2) few",
        agent,
        LISTED_MAX,
    )
    return BroughtBack(unread, tuple(row["id"] for row in rows))
