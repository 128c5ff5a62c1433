"""A store that is filled by hand, through the statements that fill it in earnest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.message import parse_message
from gateway.protocol.status import RecipientState, status_of_message
from gateway.store.admitted import Admitted, Entry, Queued
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.intake.insertion import insert
from gateway.store.messages import listing
from gateway.store.messages.listing import MessagePage, Wanted
from gateway.store.messages.messages import states
from gateway.store.queue.cancellation import Cancellation, Cancellations
from gateway.store.queue.deliveries import claim
from gateway.store.queue.settle import Settlement, settle
from gateway.store.row_ids import Mint

TOKEN = 7
REASON = "Cancelled by its sender."


@dataclass
class House:
    """One process's view of a store."""

    database: Database
    mint: Mint
    clock: Clock

    async def agent(self, local: str) -> int:
        number: int = await self.database.fetchval(
            "insert into agents (local, domain, created_at) values ($1, 'acme.test', amtp_now())"
            " returning id",
            local,
        )
        return number

    async def send(
        self, *queued: str, sender: str = "alice", to: Sequence[int] = (), due: float = 0, **members: Any
    ) -> UUID:
        """A message in the inboxes `to`, and in the queue for the others."""
        now = self.clock.now()
        body = {
            "version": "1.0",
            "sender": f"{sender}@acme.test" if "@" not in sender else sender,
            "recipients": [*queued, *(f"n{n}@acme.test" for n in to)],
            "payload": None,
            **members,
        }
        message = parse_message(msgspec.json.encode(body), row=self.mint(), now=now, local=False)
        deliveries = tuple(
            Queued(
                recipient=address.name,
                address=address.written,
                destination=address.domain,
                due=now + timedelta(seconds=due),
                expires_at=now + timedelta(days=7),
                expiry="horizon",
            )
            for address in message.recipients[: len(queued)]
        )
        entries = tuple(Entry(agent, None) for agent in to)
        async with self.database.transaction() as connection:
            await insert(
                connection,
                self.mint(),
                [Admitted(message, proven=True, entries=entries, deliveries=deliveries)],
            )
        return message.row

    async def lease(self, seconds: float = 30) -> None:
        """A worker takes whatever is due."""
        await claim(self.database, per_destination=100, limit=100, lease_seconds=seconds, token=TOKEN)

    async def end(self, row: UUID, recipient: str, **outcome: Any) -> None:
        """The worker that holds the lease settles."""
        settlement = Settlement(row, recipient, recipient, TOKEN, 1, None, **outcome)
        async with self.database.transaction() as connection:
            assert await settle(connection, self.mint, [settlement]) == [settlement]

    async def states(self, row: UUID) -> dict[str, RecipientState]:
        return (await states(self.database, [row]))[row]

    async def status(self, row: UUID) -> str:
        return status_of_message(state.status for state in (await self.states(row)).values())

    async def list(self, **wanted: Any) -> MessagePage:
        return await listing.listing(self.database, Wanted(**wanted))

    async def cancel(self, row: UUID, *, operator: bool = False) -> Cancellation:
        cancellations = Cancellations(self.database, self.mint, Audit(self.mint()))
        return await cancellations.cancel(row, actor="alice@acme.test", reason=REASON, operator=operator)

    async def balance(self) -> tuple[int, int, int]:
        """Accepted, finished, live."""
        sums = await self.database.fetchrow(
            "select sum(accepted)::int, sum(finished)::int, (select count(*)::int from deliveries)"
            " from tallies"
        )
        return sums[0], sums[1], sums[2]

    def turn(self, seconds: float) -> None:
        self.clock.offset += timedelta(seconds=seconds)
