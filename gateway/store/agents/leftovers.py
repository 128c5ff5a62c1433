"""Work that agents' keys leave behind: what features keep for agents, and queued mail. It outlives the key that made it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.store.agents.leaving import ENDED, LISTED_MAX, OF_AGENT, OF_KEY, Leavings, Left

CANCELLED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Made:
    """The work still active, by kind."""

    left: Mapping[str, list[Left]]
    queued: int = 0  # deliveries, whoever handed them in for the agent

    @property
    def counts(self) -> Mapping[str, int]:
        return {**{name: len(left) for name, left in self.left.items()}, "queued": self.queued}


async def made_by(connection: Any, leavings: Leavings, agent: int, name: str) -> Made:
    """Returns what an agent's keys made."""
    queued = await connection.fetchval(
        f"select count(*) from ({_QUEUED} limit $2) few", name, CANCELLED_AT_ONCE
    )
    left = {each.name: await each.made(connection, OF_AGENT, agent) for each in leavings}
    return Made(left, queued)


async def made_with(connection: Any, leavings: Leavings, key: str) -> Made:
    """Returns what one key made, for whatever agent."""
    return Made({each.name: await each.made(connection, OF_KEY, key) for each in leavings})


async def drop(connection: Any, leavings: Leavings, made: Made, name: str, actor: str, batch: UUID) -> None:
    """Ends all that an agent's keys made, in the transaction that takes them back."""
    await end(connection, leavings, made)
    if made.queued:
        await connection.execute(_CANCEL, name, CANCELLED_AT_ONCE, ENDED, actor, batch)


async def end(connection: Any, leavings: Leavings, made: Made) -> None:
    """Ends what was listed, but for the mail."""
    for each in leavings:
        await each.end(connection, [left.id for left in made.left[each.name]], ENDED)


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
    """The mail and the disabled things that a retired name gets back when it is registered again."""

    unread: int  # entries nobody acknowledged, counted up to a limit
    disabled: Mapping[str, list[UUID]]  # by the name of its kind, until somebody enables them


async def bring_back(connection: Any, leavings: Leavings, agent: int) -> BroughtBack:
    """Disables what was there before, in the transaction that registers the name again."""
    disabled = {each.name: await each.bring_back(connection, agent) for each in leavings}
    unread = await connection.fetchval(
        "select count(*) from (select from entries where agent = $1 and acknowledged_at is null"
        " and dead_at is null limit $2) few",
        agent,
        LISTED_MAX,
    )
    return BroughtBack(unread, {name: ids for name, ids in disabled.items() if ids})
