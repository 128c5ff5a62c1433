"""The queue as workers use it: due deliveries are claimed in batches, under a lease with a fencing token."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from gateway.store.database import Database

CLAIM_MAX = 256  # so that no claim holds its rows for long


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one recipient, under our lease. Attempts include the one at hand."""

    message: UUID
    recipient: str
    address: str
    destination: str
    token: int
    attempts: int
    accepted_at: datetime
    expires_at: datetime
    expiry: str
    first_attempt: datetime | None
    last_code: str | None = None  # of the attempt before
    last_error: str | None = None
    due: datetime | None = field(default=None, compare=False)  # before it was leased


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as couriers need it."""

    row: UUID
    message_id: str
    sender: str
    proven: bool
    automatic: bool
    hops: tuple[str, ...]
    body: bytes


# One plan, whatever the planner knew of the table when it was made: destinations are found by jumping from one to the
# next in the index, so that one with a million rows costs the others nothing, and the rows that are taken by the place
# where they lie. The jumps start behind $6, so that destinations take turns. A leased row is one whose due lies at the
# end of its lease: when that passes, it is simply due. The last row tells what is left.
_CLAIM = """
with recursive lanes (destination, due) as (
    (select destination, due from deliveries where state = 'queued' and destination > $6
     order by destination, due limit 1)
    union all
    select next.destination, next.due from lanes cross join lateral (
        select d.destination, d.due from deliveries d
        where d.state = 'queued' and d.destination > lanes.destination order by d.destination, d.due limit 1
    ) next
), open as materialized (
    select destination, due, destination in (select unnest($7::text[])) as busy
    from lanes where destination not in (select unnest($1::text[]))
), picked as (
    select due.place, due.due
    from open cross join lateral (
        select d.ctid as place, d.due from deliveries d
        where d.destination = open.destination and d.state = 'queued' and d.due <= amtp_now()
        order by d.due limit $2 for update skip locked
    ) due
    where open.due <= amtp_now() and not open.busy
    limit $3
), taken as (
    update deliveries d
    set due = amtp_now() + make_interval(secs => $4), token = $5, attempts = d.attempts + 1,
        first_attempt = coalesce(d.first_attempt, amtp_now()), last_attempt = amtp_now()
    from picked where d.ctid = picked.place
    returning d.message, d.recipient, d.address, d.destination, d.token, d.attempts, d.accepted_at, d.expires_at,
              d.expiry, d.first_attempt, d.last_code, d.last_error, picked.due
)
select taken.*, null::float8 as seconds, null::text[] as behind from taken
union all
select null, null, null, null, null, null, null, null, null, null, null, null, null,
       extract(epoch from min(case when due > amtp_now() then due else (
           select d.due from deliveries d
           where d.destination = open.destination and d.state = 'queued' and d.due > amtp_now()
           order by d.due limit 1
       ) end) - amtp_now())::float8,
       array_agg(destination) filter (where busy and due <= amtp_now())
from open
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The deliveries leased by a claim, and what is left at the destinations it looked at."""

    deliveries: list[Delivery]
    next_seconds: float | None  # until the next falls due; None where nothing waits
    behind: Collection[str]  # the busy destinations of which something is due


async def claim(
    database: Database,
    *,
    shut: Collection[str] = (),
    busy: Collection[str] = (),
    per_destination: int,
    limit: int,
    lease_seconds: float,
    token: int,
    after: str = "",
) -> Claimed:
    """Leases what is due, oldest first in each destination behind `after` that is neither shut nor busy."""
    rows = await database.fetch(
        _CLAIM,
        list(shut),
        per_destination,
        min(limit, CLAIM_MAX),
        float(lease_seconds),
        token,
        after,
        list(busy),
    )
    (left,) = [row for row in rows if row["message"] is None]
    taken = sorted((row for row in rows if row is not left), key=lambda row: (row["destination"], row["due"]))
    return Claimed([Delivery(*row[:13]) for row in taken], left["seconds"], left["behind"] or ())


async def hand_back(database: Database, leased: Sequence[Delivery]) -> int:
    """Releases leases as if they had never been taken: due as before, and not counted as attempts."""
    done = await database.execute(
        "update deliveries d set due = coalesce(u.due, amtp_now()), token = null, attempts = d.attempts - 1,"
        " first_attempt = case when d.attempts > 1 then d.first_attempt end,"
        " last_attempt = case when d.attempts > 1 then d.last_attempt end"
        " from unnest($1::uuid[], $2::text[], $3::bigint[], $4::timestamptz[]) as u (message, recipient, token, due)"
        " where d.message = any (array[u.message]) and d.recipient = u.recipient and d.token = u.token",
        [delivery.message for delivery in leased],
        [delivery.recipient for delivery in leased],
        [delivery.token for delivery in leased],
        [delivery.due for delivery in leased],
    )
    return int(done.split()[-1])


async def letters(
    database: Database, rows: Collection[UUID], *, bytes_max: int | None = None
) -> dict[UUID, Letter]:
    """Returns the messages of claimed rows; with `bytes_max` the oldest of them whose bodies fit."""
    found = await database.fetch(
        "select id, coalesce(public_id, id::text), sender, proven, automatic, coalesce(hops, '{}'), body from ("
        "    select *, sum(octet_length(body)) over (order by id) as bytes_so_far"
        "    from messages where id = any($1)) m"
        " where $2::bigint is null or bytes_so_far <= $2",
        list(rows),
        bytes_max,
    )
    return {row[0]: Letter(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6]) for row in found}


async def claim_expired(
    database: Database, *, limit: int, lease_seconds: float, token: int
) -> list[Delivery]:
    """Leases expired deliveries wherever they wait: behind a breaker, paused, or held."""
    rows = await database.fetch(
        "with picked as (select ctid as place from deliveries"
        "    where expires_at <= amtp_now() and (token is null or due <= amtp_now())"
        "    order by expires_at limit $1 for update skip locked)"
        " update deliveries d set due = amtp_now() + make_interval(secs => $2), token = $3"
        " from picked where d.ctid = picked.place"
        " returning d.message, d.recipient, d.address, d.destination, d.token, d.attempts, d.accepted_at,"
        " d.expires_at, d.expiry, d.first_attempt, d.last_code, d.last_error",
        min(limit, CLAIM_MAX),
        float(lease_seconds),
        token,
    )
    return [Delivery(*row) for row in rows]
