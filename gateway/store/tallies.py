"""The conservation laws: accepted = finished + live, and entries gained = entries let go of + entries there.

A broken law means a message lost or doubled. Every transaction that accepts or ends deliveries, or makes or deletes
entries, adds a tally row, so no transaction waits for a counter.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

from gateway.store.database import Database

FOLDED_AT_ONCE = 10_000  # rows in one statement, so that none takes long
TOTAL = UUID(int=0)  # the row that the others are folded into
COUNTED_AT_ONCE = 100_000  # entries: some 20 ms of an index
COUNTING_SECONDS_MAX = 60.0  # in one snapshot, which holds the cleaning up of all tables back
PIECE_REST = 3  # times as long as a piece took is waited before the next
ROUND_REST = (
    100  # the same between rounds: counting takes a hundredth of a core, however many entries there are
)


@dataclass(frozen=True, slots=True)
class Balance:
    """The counts of recipients at one moment, in one snapshot."""

    accepted: int
    finished: int
    queued: int
    held: int
    oldest_seconds: float  # how long the longest waiting delivery has been due

    @property
    def unaccounted(self) -> int:
        """Returns the difference of the books: 0, or a message was lost or doubled."""
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


async def unaccounted_entries(database: Database) -> int | None:
    """Returns the entries that should be there less those that are: unread, leased, read, acknowledged, dead or expired.

    Counts in pieces, with rests, all in one snapshot. None where that would have taken too long.
    """
    deadline = monotonic() + COUNTING_SECONDS_MAX
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        expected: int = await connection.fetchval("select coalesce(sum(entries), 0)::bigint from tallies")
        place: Any = (UUID(int=0), 0)
        while True:
            started = monotonic()
            end = await connection.fetchrow(_PIECE_END, *place, COUNTED_AT_ONCE - 1)
            if end is None:
                rest: int = await connection.fetchval(_COUNT, *place)
                return expected - rest
            expected -= COUNTED_AT_ONCE
            place = end
            if monotonic() > deadline:
                return None
            await asyncio.sleep(PIECE_REST * (monotonic() - started))


# By the order of the primary key, without a look at the rows where they are old.
_PIECE_END = """
select message, agent from entries where (message, agent) > ($1, $2) order by message, agent offset $3 limit 1
"""
_COUNT = "select count(*) from entries where (message, agent) > ($1, $2)"


class EntryBooks:
    """The second law, measured as often as that is cheap."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rests_until = 0.0

    async def measure(self) -> int | None:
        """Returns how many entries are unaccounted for; None where it is too early to count them again."""
        started = monotonic()
        if started < self._rests_until:
            return None
        unaccounted = await unaccounted_entries(self._database)
        now = monotonic()
        self._rests_until = now + ROUND_REST * (now - started) / (1 + PIECE_REST)
        return unaccounted


# A young row may still have to prove that a batch was written. Rows that another process is folding are passed over.
_FOLD = """
with old as (
    delete from tallies where id = any (array(
        select id from tallies
        where id > $1 and id < amtp_first_id(amtp_now() - interval '5 minutes')
          and at < amtp_now() - interval '5 minutes'
        order by id limit $2 for update skip locked
    ))
    returning accepted, finished, entries
), total as (
    insert into tallies as t (id, at, accepted, finished, entries)
    select $1, amtp_now(), sum(accepted), sum(finished), sum(entries) from old having count(*) > 0
    on conflict (id) do update
    set at = excluded.at, accepted = t.accepted + excluded.accepted, finished = t.finished + excluded.finished,
        entries = t.entries + excluded.entries
)
select count(*) from old
"""


async def fold(database: Database) -> int:
    """Adds old rows to the one that holds their sum; returns how many went."""
    folded = count = await database.fetchval(_FOLD, TOTAL, FOLDED_AT_ONCE)
    while count == FOLDED_AT_ONCE:
        count = await database.fetchval(_FOLD, TOTAL, FOLDED_AT_ONCE)
        folded += count
    return int(folded)
