"""What all processes know of the destinations: breakers and pauses."""

from dataclasses import dataclass
from datetime import datetime

from gateway.store.database import Database

RECOVERY_SPREAD_SECONDS = 5  # over which the waiting mail of a recovered destination falls due


@dataclass(frozen=True, slots=True)
class Trouble:
    paused: bool
    failures: int
    open_until: datetime | None


async def troubled(database: Database) -> dict[str, Trouble]:
    """Destinations that are paused or whose breaker is not closed."""
    rows = await database.fetch(
        "select destination, paused_at is not null and (paused_until is null or paused_until > amtp_now()) as paused,"
        " failures, open_until from destinations where open_until is not null or paused_at is not null"
    )
    return {row["destination"]: Trouble(row["paused"], row["failures"], row["open_until"]) for row in rows}


async def note_failure(
    database: Database, destination: str, failures: int, open_until: datetime, error: str
) -> None:
    """The breaker of a destination opened, or stays open longer."""
    await database.execute(
        "insert into destinations as d (destination, failures, open_until, last_error, last_failure)"
        " values ($1, $2, $3, $4, amtp_now())"
        " on conflict (destination) do update set failures = excluded.failures,"
        " open_until = greatest(d.open_until, excluded.open_until), last_error = excluded.last_error,"
        " last_failure = excluded.last_failure",
        destination,
        failures,
        open_until,
        error,
    )


async def note_recovery(database: Database, destination: str) -> None:
    """The breaker closes, and what waited because of it falls due, a little spread."""
    async with database.transaction() as connection:
        await connection.execute(
            "update destinations set failures = 0, open_until = null, last_success = amtp_now() where destination = $1",
            destination,
        )
        await connection.execute(
            "update deliveries set due = amtp_now() + make_interval(secs => random() * $2)"
            " where destination = $1 and state = 'queued' and token is null and attempts > 0 and due > amtp_now()",
            destination,
            float(RECOVERY_SPREAD_SECONDS),
        )


async def forget_quiet(database: Database) -> None:
    """Ended pauses end in the table too, and destinations with nothing left to say leave it."""
    await database.execute(
        "update destinations set paused_at = null, paused_by = null, pause_reason = null, paused_until = null"
        " where paused_until <= amtp_now()"
    )
    await database.execute(
        "delete from destinations d where open_until is null and paused_at is null"
        " and not exists (select from deliveries q where q.destination = d.destination)"
    )
