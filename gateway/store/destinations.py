"""What all processes know of the destinations: breakers and pauses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.store.admitted import Rider, write_riders
from gateway.store.database import Database

RECOVERY_SPREAD_SECONDS = 5  # over which the waiting mail of a recovered destination falls due
RECOVERY_REST_SECONDS = 600  # since the last attempt of what was answered badly, before a recovery moves it


@dataclass(frozen=True, slots=True)
class Trouble:
    paused: bool
    failures: int
    open_until: datetime | None
    unreachable: bool = False


UNTROUBLED = Trouble(paused=False, failures=0, open_until=None)


async def troubled(database: Database) -> dict[str, Trouble]:
    """Destinations that are paused or whose breaker is not closed."""
    rows = await database.fetch(
        "select destination, paused_at is not null and (paused_until is null or paused_until > amtp_now()) as paused,"
        " failures, open_until, unreachable from destinations where open_until is not null or paused_at is not null"
    )
    return {row[0]: Trouble(*row[1:]) for row in rows}


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
    """The breaker of a destination opened, or stays open longer."""
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
    """A closed destination, proven, contacted us: its breaker is half open at once."""
    await database.execute(
        "update destinations set open_until = amtp_now() where destination = $1 and open_until > amtp_now()",
        destination,
    )


async def note_recovery(database: Database, destination: str) -> None:
    """The breaker closes, and what waited because of it falls due, a little spread.

    Where mail arrived and was answered badly, what was tried just now keeps its turn: a destination that takes
    some and fails others must not use up the attempts of those.
    """
    async with database.transaction() as connection:
        was_unreachable = await connection.fetchval(
            "with old as (select destination, unreachable from destinations where destination = $1 for update)"
            " update destinations d set failures = 0, open_until = null, unreachable = false,"
            " last_success = amtp_now() from old where d.destination = old.destination returning old.unreachable",
            destination,
        )
        await connection.execute(
            "update deliveries set due = amtp_now() + make_interval(secs => random() * $2)"
            " where destination = $1 and state = 'queued' and token is null and attempts > 0 and due > amtp_now()"
            " and last_attempt <= amtp_now() - make_interval(secs => $3)",
            destination,
            float(RECOVERY_SPREAD_SECONDS),
            0.0 if was_unreachable else float(RECOVERY_REST_SECONDS),
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
