"""Cancellation: queued, scheduled or held deliveries end before an attempt; those under way go on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway.store.admitted import Rider, write_riders
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.row_ids import Mint


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The recipients whose delivery was stopped, and those whose delivery is under way."""

    cancelled: tuple[str, ...]
    under_way: tuple[str, ...]


_LIVE = """
select recipient, token is not null and due > amtp_now() as leased
from deliveries where message = $1 order by recipient for update
"""

_CANCEL = """
with gone as (
    delete from deliveries where message = $1 and recipient = any ($2)
    returning message, recipient, address, attempts
), ended as (
    insert into settled (message, recipient, address, status, error, attempts, settled_at)
    select message, recipient, address, 'cancelled', $3, attempts, amtp_now() from gone
    on conflict (message, recipient) do update
    set status = excluded.status, via = null, code = null, error = excluded.error,
        attempts = excluded.attempts, settled_at = excluded.settled_at
), told as (
    insert into events (message, at, event, recipient, actor)
    select message, amtp_now(), 'cancelled', recipient, $4 from gone
)
insert into tallies (id, at, accepted, finished) select $5, amtp_now(), 0, count(*) from gone
"""


class Cancellations:
    def __init__(self, database: Database, mint: Mint, audit: Audit) -> None:
        self._database = database
        self._mint = mint
        self._audit = audit

    async def cancel(
        self,
        message: UUID,
        *,
        actor: str,
        reason: str,
        operator: bool,
        riders: Callable[[Sequence[str]], Iterable[Rider]] = lambda _: (),
    ) -> Cancellation:
        """Ends every delivery of the message that is not leased; audits it where an operator does it."""
        async with self._database.transaction() as connection:
            live = await connection.fetch(_LIVE, message)
            free = [row["recipient"] for row in live if not row["leased"]]
            if free:
                await connection.execute(_CANCEL, message, free, reason, actor, self._mint())
                await write_riders(connection, riders(free))
                if operator:
                    await self._audit.write(
                        connection, actor, "message.cancelled", str(message), {"recipients": len(free)}
                    )
        return Cancellation(tuple(free), tuple(row["recipient"] for row in live if row["leased"]))
