"""Message ids on either side, where a gateway did not take the sender's own id.

We send derived ids to peers that take no others, and recognise them in replies. For a message that came under a derived
id, and has its sender's own here, an event records the derived one: a reply to it uses the id that the peer knows.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.identifiers import derived_id
from gateway.store.database import Database

RESTORED = "restored"  # the event


class CameAs(msgspec.Struct, frozen=True):
    """A message that came under another id than its sender's own."""

    message: UUID
    message_id: str

    @staticmethod
    async def write(line: Any, riders: Sequence["CameAs"], /) -> None:
        await line.execute(
            "insert into events (message, at, event, details)"
            " select message, amtp_now(), $3, jsonb_build_object('message_id', id)"
            " from unnest($1::uuid[], $2::text[]) as u (message, id)",
            [rider.message for rider in riders],
            [rider.message_id for rider in riders],
            RESTORED,
        )


# A stranger may bring any id: what a peer was proven to send, and what agents here sent, comes before it.
_KNOWN_THERE = """
select u.id, m.row, m.theirs, m.came_as
from unnest($1::text[]) as u (id) cross join lateral (
    select m.id as row, theirs,
           (select e.details ->> 'message_id' from events e where e.message = m.id and e.event = $3 limit 1) as came_as
    from messages m cross join lateral (select split_part(m.sender, '@', 2) = $2 as theirs) of
    where m.public_id = u.id and (theirs or m.proven)
    order by theirs and m.proven desc, theirs, m.id desc limit 1
) m
"""


async def known_there(database: Database, domain: str, message_ids: Collection[str]) -> dict[str, str]:
    """Returns the id under which the gateway of `domain` knows each of these messages, as far as it can know them."""
    rows = await database.fetch(_KNOWN_THERE, list(message_ids), domain, RESTORED)
    return {
        row["id"]: (row["came_as"] or row["id"]) if row["theirs"] else derived_id(row["row"]) for row in rows
    }


async def known_here(database: Database, derived: str) -> str | None:
    """Returns the id of the message that we sent under this derived one; None where we did not."""
    milliseconds = UUID(derived).int >> 80 << 80
    rows = await database.fetch(
        "select id, public_id from messages where id between $1 and $2 and public_id is not null",
        UUID(int=milliseconds),
        UUID(int=milliseconds | (1 << 80) - 1),
    )
    return next((row["public_id"] for row in rows if derived_id(row["id"]) == derived), None)
