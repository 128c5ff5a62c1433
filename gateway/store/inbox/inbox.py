"""An inbox: the entries of an agent, oldest first.

1. A consumer's position is the mark on each entry (unread, leased, acknowledged), not a high-water mark, because
   ids are not committed in their order.
2. An entry under a running lease is shown to nobody else. When the lease runs out the entry is unread again, and
   counts a lapse; a lease that is given back early counts none.
3. Reading never waits: it skips rows that another transaction has locked. Acknowledging locks rows in the order of
   ids. So they can't deadlock.
4. A page is bounded in bytes too, unless its first message alone is larger.
5. A consumer that crashes on one message lets the leases of its whole page run out. After some lapses an entry is a
   suspect and leased alone, so that further lapses are its own.
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
UNREAD_COUNTED_MAX = 1000  # beyond, an answer says that there are more
SUSPECT_LAPSES = 3  # lapses that make an entry a suspect
SUSPECTS_LOOKED_AT_MAX = 1000
LAPSED_LOOKED_AT_MAX = 1000  # whose leases ran out: of more, those that ran out first

# Each open entry is in one of three states. Each state has an index of its own, so that a look walks through what it
# hands out, whatever else lies in the inbox. A look that asks for the order of that index has no other to take.
OPEN = "e.acknowledged_at is null and e.dead_at is null"
STATES = {
    "unread": "e.read_at is null",
    "read": "e.read_at is not null and e.lease_until is null",
    "leased": "e.lease_until is not null",
}
BY_ID = "order by e.message nulls first"
BY_END = "order by e.lease_until, e.message"
_LIVE = f"{OPEN} and (e.expires_at is null or e.expires_at > amtp_now())"
_UNREAD = f"{STATES['unread']} and {_LIVE}"
_READ = f"{STATES['read']} and {_LIVE}"
# Unread again, for its lease ran out; not so one whose last allowed lease did: it waits to be put aside.
_LAPSED = f"e.lease_until <= amtp_now() and e.lapses + 1 < $2 and {_LIVE}"

_CAME = "coalesce(e.delivered_at, (select accepted_at from messages where id = e.message))"


class Mark(StrEnum):
    UNREAD = "unread"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Listing:
    """Conditions on the entries asked for."""

    limit: int = 100
    offset: int = 0
    after: UUID | None = None  # the row before the page
    since: datetime | None = None  # when it came into the inbox
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease on the entries of one page until a time; the token proves it when they are acknowledged."""

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


# Rows to write together with the marks; None if there are none: the marks then take one statement.
Riders = Callable[[Sequence[Item]], Iterable[Rider]] | None


async def fetch(
    database: Database,
    agent: int,
    listing: Listing,
    *,
    lapses_max: int,
    bytes_max: int = PAGE_BYTES_MAX,
    lease: Lease | None = None,
    riders: Riders = None,
) -> Page:
    """Returns the entries asked for, marked as read, or leased, by the statement that finds them."""
    arguments: list[Any] = [agent, lapses_max, listing.limit, bytes_max]
    if lease is None:
        arguments.append(listing.offset)
        page = _READ_PAGE
    else:
        arguments += [float(lease.seconds), lease.token, suspect_from(lapses_max), UUID(int=0)]
        page = _LEASED_PAGE
    statement = page.format(**_meant(listing, arguments))
    async with database.connection() if riders is None else database.transaction() as connection:
        rows = await connection.fetch(statement, *arguments)
        items = tuple(Item(*(*row[:11], tuple(row["hops"]))) for row in rows)
        if riders is not None:
            await write_riders(connection, riders(items))
    return Page(items, bool(rows and rows[0]["has_more"]))


def suspect_from(lapses_max: int) -> int:
    """Returns the number of lapses from which an entry is leased alone, so that others do not lapse because of it."""
    return min(SUSPECT_LAPSES, lapses_max - 1)


def _meant(listing: Listing, arguments: list[Any]) -> dict[str, str]:
    """Returns the condition for entries of each state that a listing asks for; appends its values to the arguments."""
    wanted = ""
    if listing.after is not None:
        arguments.append(listing.after)
        wanted += f" and e.message > ${len(arguments)}"
    if listing.since is not None:
        arguments.append(listing.since)
        wanted += f" and {_CAME} >= ${len(arguments)}"
    unread, read = (str(listing.mark in (None, mark)).lower() for mark in Mark)
    return {
        "unread": f"{unread} and {_UNREAD}{wanted}",
        "lapsed": f"{unread} and {_LAPSED}{wanted}",
        "read": f"{read} and {_READ}{wanted}",
    }


_COLUMNS = """e.message, e.address, e.delivered_at, e.expires_at, e.receipt,
           e.read_at is null or e.lease_until is not null as unread,
           e.lapses + (e.lease_until is not null)::int as lapses"""

# Messages are looked up by their keys, and what is marked by an array of keys: a planner that doesn't know how long a
# page is would join whole tables.
_PICKED = """whole as materialized (
    select found.*, m.*, sum(m.bytes) over (order by found.message) - m.bytes as bytes_before,
           row_number() over (order by found.message) as place
    from found cross join lateral (
        select body, accepted_at, proven, automatic, coalesce(hops, '{{}}') as hops,
               octet_length(body) as bytes
        from messages where id = found.message offset 0
    ) m
), picked as materialized (
    select * from whole where (bytes_before = 0 or bytes_before + bytes <= $4) and place <= $3
)"""

_SHOWN = "message, body, address, accepted_at, delivered_at, expires_at, proven, automatic, unread, lapses"

# A sender that asked for a read receipt gets one, once.
_OWED = """owed as (
    insert into receipts (message, address, kind)
    select message, coalesce(address, (select name from agents where id = $1)), 'read' from {read} where receipt
    on conflict do nothing
)"""

# One entry more than the page holds is found, which tells whether there are more.
_READ_PAGE = f"""
with found as materialized (
    select * from (
        (select {_COLUMNS} from entries e
         where e.agent = $1 and {{unread}} {BY_ID} limit $5::bigint + $3::bigint + 1)
        union all
        (select {_COLUMNS} from entries e
         where e.agent = $1 and {{read}} {BY_ID} limit $5::bigint + $3::bigint + 1)
        union all
        (select {_COLUMNS} from entries e
         where e.agent = $1 and {{lapsed}} {BY_END} limit {LAPSED_LOOKED_AT_MAX})
    ) any_state order by message offset $5 limit $3::bigint + 1
), {_PICKED}, fresh as materialized (
    select e.message, e.address, e.receipt from entries e
    where e.agent = $1 and ({_UNREAD} or {_LAPSED}) and e.message = any (array(select message from picked))
    order by e.message for no key update skip locked
), marked as (
    update entries e
    set read_at = coalesce(e.read_at, amtp_now()), lapses = e.lapses + (e.lease_until is not null)::int,
        lease_until = null, lease_token = null, receipt = null
    where e.agent = $1 and e.message = any (array(select message from fresh))
), {_OWED.format(read="fresh")}
select {_SHOWN}, null::timestamptz, hops,
       (select count(*) from found) > (select count(*) from picked) as has_more
from picked order by message
"""

_FOUND = "message, address, delivered_at, expires_at, receipt, unread, lapses"

# A suspect is leased alone. Else those whose leases ran out come first, then those that were read, then the others.
_LEASED_PAGE = f"""
with ran_out as materialized (
    select e.message, e.lapses from entries e
    where e.agent = $1 and {{lapsed}} {BY_END} limit {LAPSED_LOOKED_AT_MAX}
), lapsed_suspect as materialized (
    select {_FOUND} from (
        select {_COLUMNS}, {{lapsed}} as still from entries e
        where e.agent = $1 and e.message = (
            select message from ran_out where lapses + 1 >= $7 order by message limit 1)
        for update skip locked
    ) locked where still
), worn as materialized (
    select e.message from generate_series($7::int, $2::int) as lapsed_so_often (lapses) cross join lateral (
        select e.message from entries e
        where e.lapses = lapsed_so_often.lapses and e.lapses > 0 and e.agent = $1
          and e.lease_until is null and {OPEN} and ({{unread}} or {{read}})
        {BY_ID} limit {SUSPECTS_LOOKED_AT_MAX}
    ) e
    limit {SUSPECTS_LOOKED_AT_MAX}
), free_suspect as materialized (
    select {_FOUND} from (
        select {_COLUMNS}, {{unread}} or {{read}} as still from entries e
        where e.agent = $1 and e.message = (select message from worn order by message limit 1)
          and not exists (select from lapsed_suspect)
        for update skip locked
    ) locked where still
), suspect as (
    select * from lapsed_suspect union all select * from free_suspect
), room as materialized (
    select case when exists (select from suspect) then 0 else $3 end as places
), lapsed as materialized (
    select {_COLUMNS} from entries e
    where e.agent = $1 and {{lapsed}} and e.lapses + 1 < $7
    {BY_END} limit (select places from room) for update skip locked
), read as materialized (
    select {_COLUMNS} from entries e
    where e.agent = $1 and {{read}} and e.lapses < $7
    {BY_ID}
    limit (select places from room) - (select count(*) from lapsed) for update skip locked
), unread as materialized (
    select {_COLUMNS} from entries e
    where e.agent = $1 and {{unread}} and e.lapses < $7
    {BY_ID}
    limit (select places from room) - (select count(*) from lapsed) - (select count(*) from read)
    for update skip locked
), found as materialized (
    select * from suspect
    union all select * from lapsed union all select * from read union all select * from unread
), {_PICKED}, marked as (
    update entries e
    set read_at = coalesce(e.read_at, amtp_now()), lapses = e.lapses + (e.lease_until is not null)::int,
        lease_until = amtp_now() + make_interval(secs => $5), lease_token = $6, receipt = null
    where e.agent = $1 and e.message = any (array(select message from picked))
), {_OWED.format(read="picked")}
select {_SHOWN}, amtp_now() + make_interval(secs => $5), hops,
       (select count(*) from found) > (select count(*) from picked)
       or exists (select from ran_out where message not in (select message from found))
       or (select true from entries e where e.agent = $1 and {{read}}
           and e.message > coalesce((select message from read order by message desc limit 1), $8) {BY_ID} limit 1)
       or (select true from entries e where e.agent = $1 and {{unread}}
           and e.message > coalesce((select message from unread order by message desc limit 1), $8) {BY_ID} limit 1)
       as has_more
from picked order by message
"""


@dataclass(frozen=True, slots=True)
class Unread:
    """A count of unread entries, exact or a lower bound."""

    count: int
    at_least: bool


async def unread(database: Database, agent: int, *, lapses_max: int) -> Unread:
    count: int = await database.fetchval(_COUNT_UNREAD, agent, lapses_max, UNREAD_COUNTED_MAX + 1)
    return Unread(min(count, UNREAD_COUNTED_MAX), count > UNREAD_COUNTED_MAX)


_COUNT_UNREAD = f"""
select count(*) from (
    (select from entries e where e.agent = $1 and {_UNREAD} {BY_ID} limit $3)
    union all
    (select from entries e where e.agent = $1 and {_LAPSED} {BY_END} limit $3)
) counted
"""


async def with_unread(database: Database, agents: Sequence[int]) -> list[int]:
    """Returns those of the agents that have unread entries."""
    rows = await database.fetch(_WITH_UNREAD, agents)
    return [row[0] for row in rows]


# For each agent by itself: a plan made while the table was empty would read all of it ever after.
_WITH_UNREAD = f"""
select a.id from unnest($1::bigint[]) as a (id), lateral (
    (select from entries e where e.agent = a.id and {_UNREAD} {BY_ID} limit 1)
    union all
    (select from entries e where e.agent = a.id and e.lease_until <= amtp_now() and {_LIVE} {BY_END} limit 1)
    limit 1
) e
"""


async def seconds_to_lease_end(database: Database, agent: int) -> float | None:
    """Returns the seconds until the next of its running leases ends and its entries can be fetched again."""
    seconds = await database.fetchval(
        "select extract(epoch from e.lease_until - amtp_now())::float8 from entries e"
        f" where e.agent = $1 and e.lease_until > amtp_now() and {_LIVE} {BY_END} limit 1",
        agent,
    )
    return None if seconds is None else float(seconds)


async def renew(database: Database, agent: int, token: UUID, seconds: float) -> int:
    """Renews the lease for that many seconds from now; returns how many entries it still holds."""
    return len(await database.fetch(_RENEW, agent, token, float(seconds)))


async def give_back(database: Database, agent: int, token: UUID) -> int:
    """Ends the lease without counting a lapse: its entries are unread again, and waiting consumers are woken."""
    return len(await database.fetch(_GIVE_BACK, agent, token, str(agent)))


_HELD = f"""held as materialized (
    select e.message from entries e
    where e.agent = $1 and e.lease_token = $2 and e.lease_until > amtp_now() and {_LIVE}
    {BY_END} for no key update
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
