"""A key or id seen before: the same content gets the same answer, other content a conflict."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import same_content
from gateway.store.admitted import Admitted, Rider, write_riders
from gateway.store.database import Database
from gateway.store.intake.owed_receipts import owed_for
from gateway.store.intake.uniqueness import Original, hashes_of, registered
from gateway.store.messages.messages import states
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import QUEUE, Topic, notice_of, reply_topics


@dataclass(frozen=True, slots=True)
class Gained:
    """The recipients that a message has since its repetition: agents whose inbox it is in, and names in the queue."""

    message: UUID
    message_id: str
    agents: frozenset[int]
    queued: frozenset[str]


Riders = Callable[[Gained], Iterable[Rider]]


def no_riders(_gained: Gained) -> Iterable[Rider]:
    return ()


async def originals(database: Database, rows: Collection[UUID]) -> dict[UUID, Original]:
    """Returns these messages with what a receipt for a repetition tells."""
    found = await database.fetch(_ORIGINALS, list(rows))
    known = await states(database, rows)
    return {
        row["id"]: Original(row["message_id"], frozenset(row["agents"]), known.get(row["id"], {}))
        for row in found
    }


_ORIGINALS = """
select m.id, coalesce(m.public_id, m.id::text) as message_id,
       array(select agent from entries where message = m.id) as agents
from messages m where m.id = any ($1)
"""


async def repeat(
    database: Database, mint: Mint, admitted: Admitted, original: UUID, riders: Riders = no_riders
) -> list[Topic]:
    """Adds the new recipients of a repetition to the original message; returns the topics to ring.

    Raises IDEMPOTENCY_CONFLICT or MESSAGE_ID_CONFLICT where the repetition is none.
    """
    async with database.transaction() as connection:
        return await repeat_in(connection, mint, admitted, original, riders)


async def repeat_in(
    connection: Any, mint: Mint, admitted: Admitted, original: UUID, riders: Riders = no_riders
) -> list[Topic]:
    """Does the same in the open transaction."""
    # The lock makes repetitions of one message add their recipients one after the other.
    stored = await connection.fetchrow(
        "select body, coalesce(public_id, id::text) as message_id from messages where id = $1 for update",
        original,
    )
    await _refuse_conflict(connection, admitted, original, stored)
    if stored is None:
        return []
    agents, queued = await _add_recipients(connection, mint, admitted, original)
    if not agents and not queued:
        return []
    await write_riders(connection, owed_for(admitted.riders, agents, original))
    gained = Gained(original, stored["message_id"], frozenset(agents), frozenset(queued))
    await write_riders(connection, riders(gained))
    topics: list[Topic] = [*agents, *reply_topics(admitted.message), *([QUEUE] if queued else ())]
    await connection.execute("select pg_notify('amtp_inbox', $1)", notice_of(topics))
    return topics


async def _refuse_conflict(connection: Any, admitted: Admitted, original: UUID, stored: Any) -> None:
    message, hashes = admitted.message, hashes_of(admitted)
    known = await registered(connection, hashes.values())
    by_key = "key" in hashes and hashes["key"] in known
    row = known.get(hashes["key"] if by_key else hashes.get("id", b""))
    same = (row is not None and row["content"] == message.content) or (
        stored is not None and same_content(stored["body"], message.body)
    )
    if by_key and not same:
        raise AMTPError(
            Code.IDEMPOTENCY_CONFLICT,
            "idempotency_key was used for another message: send new content under a new key.",
            {"field": "idempotency_key", "message_id": str(original)},
        )
    if not by_key and (message.key is not None or not same):
        raise AMTPError(
            Code.MESSAGE_ID_CONFLICT,
            "message_id belongs to another message of this sender: leave it out, or send a new one.",
            {"field": "message_id"},
        )


async def _add_recipients(
    connection: Any, mint: Mint, admitted: Admitted, original: UUID
) -> tuple[list[int], list[str]]:
    """Adds entries and deliveries for new recipients; returns the agents and the queued names that gained one."""
    entries = await connection.fetch(
        "insert into entries (message, agent, address, expires_at, delivered_at, receipt, unproven)"
        " select $1, agent, address, $4, amtp_now(), receipt, $6"
        " from unnest($2::bigint[], $3::text[], $5::bool[]) as u (agent, address, receipt)"
        # An entry that was acknowledged long ago is a line of the history by now.
        " where not exists (select from settled s join agents a on a.name = s.recipient"
        "     where s.message = $1 and s.status = 'delivered' and a.id = u.agent)"
        " on conflict do nothing returning agent",
        original,
        [entry.agent for entry in admitted.entries],
        [entry.address for entry in admitted.entries],
        admitted.message.expires_at,
        [entry.receipt or None for entry in admitted.entries],
        admitted.weight,
    )
    agents = [row["agent"] for row in entries]
    queued = await _queue(connection, admitted, original)
    if agents or queued:
        await connection.execute(
            "insert into tallies (id, at, accepted, finished, entries) values ($1, amtp_now(), $2, $3, $3)",
            mint(),
            len(agents) + len(queued),
            len(agents),
        )
    return agents, queued


async def _queue(connection: Any, admitted: Admitted, original: UUID) -> list[str]:
    """Queues the recipients not seen before, without a lease: the claim finds them."""
    known = await _known(connection, original, [d.recipient for d in admitted.deliveries])
    new = [d for d in admitted.deliveries if d.recipient not in known]
    await connection.executemany(
        "insert into deliveries"
        " (message, recipient, address, destination, due, expires_at, expiry, accepted_at, receipt, unproven)"
        " values ($1, $2, $3, $4, $5, $6, $7, amtp_now(), $8, $9)",
        [
            (
                *(original, d.recipient, d.address, d.destination, d.due, d.expires_at, d.expiry, d.receipt),
                admitted.weight,
            )
            for d in new
        ],
    )
    return [d.recipient for d in new]


async def _known(connection: Any, original: UUID, recipients: Sequence[str]) -> set[str]:
    rows = await connection.fetch(
        "select recipient from deliveries where message = $1 and recipient = any($2)"
        " union all select recipient from settled where message = $1 and recipient = any($2)",
        original,
        recipients,
    )
    return {row["recipient"] for row in rows}
