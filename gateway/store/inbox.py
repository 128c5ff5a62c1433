"""An inbox: what came for an agent, oldest first.

1. A consumer's place is the mark on the entry (unread, leased, acknowledged), never a high-water mark: the
   order of ids is not the order of commits.
2. An entry under a running lease is nobody else's to see. A lease that ends gives it back, unread, and counts
   as a lapse; one that is given back early does not.
3. Reading marks what can be marked and never waits: it skips rows that another statement holds. Acknowledging
   locks in the order of ids. So no two of them deadlock.
4. A page is bounded in bytes too; its last message may go over, so that every message fits a page of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from gateway.store.admitted import Rider, write_riders
from gateway.store.database import Database

PAGE_BYTES_MAX = 8 * 1024 * 1024  # of bodies
UNREAD_COUNTED_MAX = 1000  # a larger number tells nobody more

# The open entries that a consumer may have now. One whose last allowed lease ran out waits to be put aside.
_OPEN = (
    "e.acknowledged_at is null and e.dead_at is null and (e.expires_at is null or e.expires_at > amtp_now())"
)
_VISIBLE = (
    f"e.agent = $1 and {_OPEN}"
    " and (e.lease_until is null or (e.lease_until <= amtp_now() and e.lapses + 1 < $2))"
)
_UNREAD = "(e.read_at is null or e.lease_until is not null)"  # of a visible entry: its lease ran out


_CAME = "coalesce(e.delivered_at, (select accepted_at from messages where id = e.message))"


class Mark(StrEnum):
    UNREAD = "unread"
    READ = "read"


_MARKED = {Mark.UNREAD: _UNREAD, Mark.READ: f"not {_UNREAD}"}


@dataclass(frozen=True, slots=True)
class Listing:
    """Which entries are asked for."""

    limit: int = 100
    offset: int = 0
    after: UUID | None = None  # the row before the page
    since: datetime | None = None  # when it came into the inbox
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The entries of one page are the caller's until then; whoever acknowledges shows the token."""

    seconds: float
    token: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Item:
    """A message as it lies in an inbox."""

    row: UUID
    body: bytes
    address: str | None  # as the sender wrote it, where that is not the agent's name
    accepted_at: datetime
    delivered_at: datetime | None  # where it came into the inbox later than it was accepted
    expires_at: datetime | None
    proven: bool
    automatic: bool
    unread: bool  # until this page
    lapses: int
    lease_until: datetime | None
    hops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    items: tuple[Item, ...]
    has_more: bool


# What is written together with the marks; None where nothing is, which then take one statement.
Riders = Callable[[Sequence[Item]], Iterable[Rider]] | None


async def fetch(
    database: Database,
    agent: int,
    listing: Listing,
    *,
    lapses_max: int,
    lease: Lease | None = None,
    riders: Riders = None,
) -> Page:
    """The entries asked for, marked as read, or leased, by the statement that finds them."""
    arguments: list[Any] = [agent, lapses_max, listing.limit, listing.offset, PAGE_BYTES_MAX]
    marking, until = _READING, "null::timestamptz"
    if lease is not None:
        arguments += [float(lease.seconds), lease.token]
        marking, until = _LEASING, "amtp_now() + make_interval(secs => $6)"
    statement = _FETCH.format(
        wanted=_wanted(listing, arguments),
        lock="" if lease is None else "for update of e skip locked",
        marking=marking,
        until=until,
    )
    async with database.connection() if riders is None else database.transaction() as connection:
        rows = await connection.fetch(statement, *arguments)
        items = tuple(Item(*(*row[:11], tuple(row["hops"]))) for row in rows)
        if riders is not None:
            await write_riders(connection, riders(items))
    return Page(items, bool(rows and rows[0]["has_more"]))


def _wanted(listing: Listing, arguments: list[Any]) -> str:
    """The conditions of a listing; their values join the arguments."""
    wanted = ""
    if listing.mark is not None:
        wanted += f" and {_MARKED[listing.mark]}"
    if listing.after is not None:
        arguments.append(listing.after)
        wanted += f" and e.message > ${len(arguments)}"
    if listing.since is not None:
        arguments.append(listing.since)
        wanted += f" and {_CAME} >= ${len(arguments)}"
    return wanted


# Entries are found without their messages, each message by its key, and what is marked by an array of keys: a
# planner that doesn't know how long a page is would join whole tables.
_FETCH = f"""
with seen as (
    select e.message, e.address, e.delivered_at, e.expires_at, e.receipt, {_UNREAD} as unread,
           e.lapses + (e.lease_until is not null)::int as lapses
    from entries e
    where {_VISIBLE}{{wanted}}
    order by e.message limit $3 offset $4 {{lock}}
), whole as materialized (
    select seen.*, m.*, sum(m.bytes) over (order by seen.message) - m.bytes as bytes_before
    from seen cross join lateral (
        select body, accepted_at, proven, automatic, coalesce(hops, '{{{{}}}}') as hops,
               octet_length(body) as bytes
        from messages where id = seen.message offset 0
    ) m
), picked as materialized (
    select * from whole where bytes_before < $5
), {{marking}}
select message, body, address, accepted_at, delivered_at, expires_at, proven, automatic, unread, lapses,
       {{until}}, hops,
       (select true from entries e
        where {_VISIBLE}{{wanted}} and e.message > (select message from picked order by message desc limit 1)
        order by e.message limit 1) as has_more
from picked order by message
"""

# Whoever asked to hear when it is read, hears it once.
_OWED = """owed as (
    insert into receipts (message, address, kind)
    select message, coalesce(address, (select name from agents where id = $1)), 'read' from {read} where receipt
    on conflict do nothing
)"""

_READING = f"""fresh as materialized (
    select e.message, e.address, e.receipt from entries e
    where {_VISIBLE} and {_UNREAD} and e.message = any (array(select message from picked))
    order by e.message for no key update skip locked
), marked as (
    update entries e
    set read_at = coalesce(e.read_at, amtp_now()), lapses = e.lapses + (e.lease_until is not null)::int,
        lease_until = null, lease_token = null, receipt = null
    where e.agent = $1 and e.message = any (array(select message from fresh))
), {_OWED.format(read="fresh")}"""

_LEASING = f"""marked as (
    update entries e
    set read_at = coalesce(e.read_at, amtp_now()), lapses = e.lapses + (e.lease_until is not null)::int,
        lease_until = amtp_now() + make_interval(secs => $6), lease_token = $7, receipt = null
    where e.agent = $1 and e.message = any (array(select message from picked))
), {_OWED.format(read="picked")}"""


async def unread(database: Database, agent: int, *, lapses_max: int) -> int:
    """How many entries nobody has read yet, counted up to a limit."""
    count: int = await database.fetchval(
        f"select count(*) from (select from entries e where {_VISIBLE} and {_UNREAD} limit $3) counted",
        agent,
        lapses_max,
        UNREAD_COUNTED_MAX,
    )
    return count


async def with_unread(database: Database, agents: Sequence[int]) -> list[int]:
    """Those of the agents who have something to read."""
    rows = await database.fetch(_WITH_UNREAD, agents)
    return [row[0] for row in rows]


# For each agent by itself: a plan made while the table was empty would read all of it ever after.
_WITH_UNREAD = f"""
select a.id from unnest($1::bigint[]) as a (id), lateral (
    select from entries e
    where e.agent = a.id and {_OPEN} and {_UNREAD} and (e.lease_until is null or e.lease_until <= amtp_now())
    limit 1
) e
"""


async def seconds_to_lease_end(database: Database, agent: int) -> float | None:
    """When the next of its running leases ends, after which there may be something to fetch."""
    seconds = await database.fetchval(
        "select extract(epoch from min(e.lease_until) - amtp_now())::float8 from entries e"
        f" where e.agent = $1 and {_OPEN} and e.lease_until > amtp_now()",
        agent,
    )
    return None if seconds is None else float(seconds)


async def renew(database: Database, agent: int, token: UUID, seconds: float) -> int:
    """Lets the lease end that much later; returns how many entries it still holds."""
    return len(await database.fetch(_RENEW, agent, token, float(seconds)))


async def give_back(database: Database, agent: int, token: UUID) -> int:
    """Ends the lease as if it had never been: unread, no lapse. Others who wait are told."""
    return len(await database.fetch(_GIVE_BACK, agent, token, str(agent)))


_HELD = f"""held as materialized (
    select e.message from entries e
    where e.agent = $1 and e.lease_token = $2 and e.lease_until > amtp_now() and {_OPEN}
    order by e.message for no key update
)"""

_RENEW = f"""
with {_HELD}
update entries e set lease_until = amtp_now() + make_interval(secs => $3)
where e.agent = $1 and e.message = any (array(select message from held))
returning e.message
"""

_GIVE_BACK = f"""
with {_HELD}, free as (
    update entries e set read_at = null, lease_until = null, lease_token = null
    where e.agent = $1 and e.message = any (array(select message from held))
    returning e.message
), told as materialized (
    select pg_notify('amtp_inbox', $3) from (select from free limit 1) any_at_all
)
select free.message from free left join told on true
"""
