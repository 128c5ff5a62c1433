"""Delay warnings for late messages: each is sent once, in the transaction that marks it as sent."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.store.admitted import Admitted, Rider, write_riders
from gateway.store.database import Database
from gateway.store.intake.insertion import insert
from gateway.store.queue.deliveries import Letter, letters
from gateway.store.row_ids import Mint


@dataclass(frozen=True, slots=True)
class Late:
    """A recipient who still waits."""

    recipient: str
    address: str
    attempts: int
    last_attempt: datetime | None
    due: datetime
    code: str | None
    error: str | None


# Undelivered for $2 seconds since its first chance and not told of yet; what has expired is told of as that.
_LATE = (
    "not delay_reported and state = 'queued' and expires_at > amtp_now()"
    " and coalesce(first_attempt, greatest(due, accepted_at)) < amtp_now() - make_interval(secs => $2)"
)


async def late_messages(database: Database, *, hours: float, limit: int) -> dict[UUID, Letter]:
    """Returns messages with a recipient undelivered for so long and no warning sent yet."""
    rows = await database.fetch(
        f"select distinct message from deliveries where {_LATE} limit $1",
        limit,
        hours * 3600,
    )
    return await letters(database, [row["message"] for row in rows])


async def tell(
    database: Database,
    mint: Mint,
    message: UUID,
    *,
    hours: float,
    report: Callable[[Sequence[Late]], Awaitable[Admitted | None]],
    riders: Callable[[Sequence[Late]], Iterable[Rider]],
) -> Admitted | None:
    """Marks the late recipients of a message, accepts the report about them and writes what goes with it."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            f"update deliveries set delay_reported = true where message = $1 and {_LATE}"
            " returning recipient, address, attempts, last_attempt, due, last_code, last_error",
            message,
            hours * 3600,
        )
        if not rows:
            return None
        late = [Late(*row) for row in rows]
        told = await report(late)
        if told is not None:
            await insert(connection, mint(), [told])
        await write_riders(connection, riders(late))
        return told
