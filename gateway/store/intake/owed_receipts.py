"""Receipts that are owed: noted in the transaction that delivered or read, deleted by the one that writes them.

So no receipt is lost in a crash or written twice, and messages without one pay nothing.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from gateway.store.admitted import Admitted, Rider
from gateway.store.database import Database
from gateway.store.intake.insertion import insert
from gateway.store.row_ids import Mint

AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Owed:
    """A message that its own transaction puts into an inbox, and whose sender wants to hear of it."""

    message: UUID
    agent: int
    address: str  # the recipient as written

    @staticmethod
    async def write(line: Any, riders: Sequence["Owed"], /) -> None:
        await line.execute(
            "insert into receipts (message, address, kind)"
            " select message, address, 'delivered' from unnest($1::uuid[], $2::text[]) as u (message, address)"
            " on conflict do nothing",
            [owed.message for owed in riders],
            [owed.address for owed in riders],
        )


def owed_for(riders: Iterable[Rider], agents: Collection[int], message: UUID) -> list[Owed]:
    """Returns the receipts owed for these agents, where the message stands for another row."""
    return [replace(r, message=message) for r in riders if isinstance(r, Owed) and r.agent in agents]


@dataclass(frozen=True, slots=True)
class DueReceipt:
    """The receipt owed to one message's sender: the recipients that got it, or that read it."""

    kind: str  # "delivered" or "read"
    body: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SentReceipts:
    """The result of one round: what was owed, and the receipts written for it."""

    owed: int
    written: Sequence[Admitted]


async def send_owed(
    database: Database, mint: Mint, receipts: Callable[[DueReceipt], Awaitable[Sequence[Admitted]]]
) -> SentReceipts:
    """Writes some of the receipts that are owed, and deletes what they settle, in one transaction."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_TAKE, AT_ONCE)
        written = [admitted for row in rows for admitted in await receipts(_due(row))]
        if written:
            await insert(connection, mint(), written)
        return SentReceipts(sum(len(row["addresses"]) for row in rows), written)


def _due(row: Any) -> DueReceipt:
    return DueReceipt(row["kind"], row["body"], tuple(row["addresses"]))


_TAKE = """
with owed as (
    select message, address, kind from receipts order by message, address, kind limit $1
    for update skip locked
), struck as (
    delete from receipts r using owed
    where r.message = owed.message and r.address = owed.address and r.kind = owed.kind
    returning r.message, r.address, r.kind
), grouped as (
    select message, kind, array_agg(address order by address) as addresses from struck group by message, kind
)
select g.kind, g.addresses, m.body
from grouped g join messages m on m.id = g.message order by g.message, g.kind
"""
