"""Mail that nobody will fetch any more: in the inboxes of removed agents, and what overflows a postmaster's.

Removing an agent only marks it, so that it is done at once whatever its inbox holds; a chore clears the inbox
piece by piece, and also what another process put there before it noticed. Returned mail goes back into the
queue, from where it fails like any other: a dead letter, and a report to its sender.
"""

from collections.abc import Iterable

from gateway.store.agents.agents import POSTMASTER, REMOVED
from gateway.store.database import Database
from gateway.store.inbox.inbox import BY_END, BY_ID, OPEN, STATES
from gateway.store.row_ids import Mint

CLEARED_AT_ONCE = 1000

# Entries leave the inbox: back into the queue where they are returned, else they stay delivered.
CLEAR = """
with chosen as ({chosen}),
gone as (
    delete from entries e using chosen c where e.message = c.message and e.agent = c.agent
    returning e.message, e.agent
), left_by as (
    select c.* from gone join chosen c using (message, agent)
), back as (
    insert into deliveries
        (message, recipient, address, destination, due, accepted_at, expires_at, expiry, delay_reported)
    select l.message, l.name, l.address, $3 || l.name, amtp_now(), coalesce(m.accepted_at, amtp_now()),
           amtp_now() + interval '7 days', 'horizon', true
    from left_by l left join messages m on m.id = l.message where l.returned
    on conflict do nothing returning message
), stayed as (
    insert into settled (message, recipient, address, status, via, settled_at)
    select message, name, address, 'delivered', 'inbox', amtp_now() from left_by where not returned
    on conflict do nothing
), tally as (
    insert into tallies (id, at, accepted, finished, entries)
    select $2::uuid, amtp_now(), 0, -(select count(*) from back), -count(*) from gone having count(*) > 0
)
select count(*) from gone
"""

_OF_REMOVED = """
    select e.message, e.agent, a.name, coalesce(e.address, a.name) as address,
           a.mail = 'return' and (e.expires_at is null or e.expires_at > amtp_now()) as returned
    from agents a cross join lateral (
        select * from entries e
        where e.agent = a.id and {state} and {open} {order} limit $1 for update skip locked
    ) e
    where a.state = 'removed' limit $1
"""

_OF_POSTMASTERS = """
    select e.message, e.agent, a.name, coalesce(e.address, a.name) as address, false as returned
    from agents a cross join lateral (
        select * from entries e
        where e.agent = a.id and {state} and {open} order by e.message desc nulls last offset $4 limit $1
    ) e
    where a.local = $5 and a.state <> 'removed' limit $1
"""


async def clear_removed(database: Database, mint: Mint) -> int:
    """Clears a piece of the inboxes of removed agents; returns the number of entries, 0 when nothing is left."""
    return await _clear(database, mint, _OF_REMOVED, STATES.values())


async def bound_postmasters(database: Database, mint: Mint, kept: int) -> int:
    """Deletes a piece of what a postmaster has beyond the newest `kept`, read or unread; returns the number of entries."""
    states = STATES["unread"], STATES["read"]
    return await _clear(database, mint, _OF_POSTMASTERS, states, kept, POSTMASTER)


async def _clear(
    database: Database, mint: Mint, chosen: str, states: Iterable[str], *arguments: object
) -> int:
    """Clears a piece of the entries in each of these states, which an index finds."""
    cleared = 0
    for state in states:
        order = BY_END if state == STATES["leased"] else BY_ID
        statement = CLEAR.format(chosen=chosen.format(state=state, open=OPEN, order=order))
        cleared += await database.fetchval(statement, CLEARED_AT_ONCE, mint(), REMOVED, *arguments)
    return cleared
