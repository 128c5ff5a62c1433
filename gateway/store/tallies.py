"""The conservation law: accepted = finished + live. What breaks it is a lost message, or one from nowhere.

Whoever accepts or ends deliveries adds a tally row in the same transaction, so nobody waits for a counter.
"""

from dataclasses import dataclass

from gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Balance:
    """Recipients of one moment, in one snapshot."""

    accepted: int
    finished: int
    queued: int
    held: int
    oldest_seconds: float  # how long the longest waiting delivery has been due

    @property
    def unaccounted(self) -> int:
        """Nought, or something is broken."""
        return self.accepted - self.finished - self.queued - self.held


async def balance(database: Database) -> Balance:
    row = await database.fetchrow(
        "select t.accepted, t.finished, d.queued, d.held, d.oldest from"
        " (select coalesce(sum(accepted), 0)::bigint as accepted,"
        "         coalesce(sum(finished), 0)::bigint as finished from tallies) t,"
        " (select count(*) filter (where state = 'queued') as queued,"
        "         count(*) filter (where state = 'held') as held,"
        "         greatest(0, extract(epoch from amtp_now() - min(due)"
        "         filter (where state = 'queued')))::float8 as oldest from deliveries) d"
    )
    return Balance(*row)


# A compacted row has the first id of its hour. A young row may still have to prove that a batch was written.
_COMPACT = """
with old as (
    delete from tallies
    where at < date_trunc('hour', amtp_now()) - interval '1 hour'
      and id <> amtp_first_id(date_trunc('hour', at))
    returning date_trunc('hour', at) as hour, accepted, finished
), hours as (
    insert into tallies as t (id, at, accepted, finished)
    select amtp_first_id(hour), hour, sum(accepted), sum(finished) from old group by hour order by hour
    on conflict (id) do update
    set accepted = t.accepted + excluded.accepted, finished = t.finished + excluded.finished
)
select count(*) from old
"""


async def compact(database: Database) -> int:
    """Leaves one row of each old hour; returns how many rows went."""
    count: int = await database.fetchval(_COMPACT)
    return count
