"""The state of destinations shared by all processes: breakers and pauses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.protocol.retry import CAP_SECONDS
from gateway.store.admitted import Rider, write_riders
from gateway.store.database import Database

# What an outage made wait is tried again when the destination is back, but not before this part of its usual delay is
# over: one that takes some messages and fails others must not use up the attempts of those within minutes.
HASTE = 8
SOON_SECONDS = (
    30.0  # what is due sooner keeps its time: retries come when they were promised, unless that is far away
)
# A destination that has no room for one agent, or for one sender's pace, says nothing about the others.
_OUTAGES = ("RECIPIENT_UNAVAILABLE", "TEMPORARY_FAILURE")


@dataclass(frozen=True, slots=True)
class BreakerState:
    paused: bool
    failures: int
    open_until: datetime | None
    unreachable: bool = False
    paused_until: datetime | None = None


UNTROUBLED = BreakerState(paused=False, failures=0, open_until=None)


async def troubled(database: Database) -> dict[str, BreakerState]:
    """Returns the destinations that are paused or whose breaker is open, or half open while mail waits for them."""
    rows = await database.fetch(
        "select destination, paused, failures, open_until, unreachable, paused_until from ("
        "    select *, paused_at is not null and (paused_until is null or paused_until > amtp_now()) as paused"
        "    from destinations where open_until is not null or paused_at is not null) d"
        " where paused or open_until > amtp_now() or open_until is not null and exists"
        "    (select from deliveries q where q.destination = d.destination and q.state = 'queued')"
    )
    return {row[0]: BreakerState(*row[1:]) for row in rows}


async def note_failure(
    database: Database,
    destination: str,
    failures: int,
    open_until: datetime,
    error: str,
    *,
    unreachable: bool = False,
    riders: Sequence[Rider] = (),
) -> None:
    """Records that the breaker of a destination opened, or stays open longer."""
    async with database.transaction() as connection:
        await connection.execute(
            "insert into destinations as d "
            " (destination, failures, open_until, last_error, unreachable, last_failure)"
            " values ($1, $2, $3, $4, $5, amtp_now())"
            " on conflict (destination) do update set failures = excluded.failures,"
            " open_until = greatest(d.open_until, excluded.open_until), last_error = excluded.last_error,"
            " unreachable = excluded.unreachable, last_failure = excluded.last_failure",
            destination,
            failures,
            open_until,
            error,
            unreachable,
        )
        await write_riders(connection, riders)


async def note_contact(database: Database, destination: str) -> None:
    """Sets the breaker of a failing destination half open: its gateway, proven, contacted us."""
    await database.execute(
        "update destinations set open_until = amtp_now() where destination = $1 and open_until > amtp_now()",
        destination,
    )


async def note_recovery(database: Database, destination: str) -> None:
    """Closes the breaker."""
    await database.execute(
        "update destinations set failures = 0, open_until = null, unreachable = false,"
        " last_success = amtp_now() where destination = $1",
        destination,
    )


async def hasten(database: Database, destination: str, *, before: datetime, at_once: bool, limit: int) -> int:
    """Makes deliveries that failed before a recovery due now or soon, the earliest first; returns the number of rows.

    `at_once`: the attempts say nothing about the mail itself, because nothing of it was sent. What is due much later
    than our own delay tells was put off by the destination (Retry-After), and stays so.
    """
    done = await database.execute(
        _HASTEN, destination, before, at_once, limit, HASTE, CAP_SECONDS, _OUTAGES, SOON_SECONDS
    )
    return int(done.split()[-1])


_HASTEN = """
with soon as (
    select d.ctid as place, at.due from deliveries d cross join lateral (
        select least(2 ^ (d.attempts - 1), $6::float8) as seconds
    ) own cross join lateral (
        select case when $3 then amtp_now() else greatest(amtp_now(), d.last_attempt
               + make_interval(secs => own.seconds / $5::float8)) end as due
    ) at
    where d.destination = $1 and d.state = 'queued' and d.token is null and d.attempts > 0
      and d.due > amtp_now() + make_interval(secs => case when $3 then 0 else $8::float8 end)
      and d.last_attempt < $2 and d.last_code = any ($7::text[]) and at.due < d.due
      and d.due - d.last_attempt <= make_interval(secs => 1.5 * own.seconds + 0.5)
    order by d.due limit $4 for update of d skip locked
)
update deliveries d set due = soon.due from soon where d.ctid = soon.place
"""


async def forget_quiet(database: Database) -> None:
    """Deletes expired pauses, and destinations without queued mail."""
    await database.execute(
        "update destinations set paused_at = null, paused_by = null, pause_reason = null, paused_until = null"
        " where paused_until <= amtp_now()"
    )
    await database.execute(
        "delete from destinations d where (open_until is null or open_until <= amtp_now()) and paused_at is null"
        " and not exists (select from deliveries q where q.destination = d.destination and q.state = 'queued')"
        " and not exists (select from deliveries q where q.destination = d.destination and q.state = 'held')"
    )
