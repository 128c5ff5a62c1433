"""Uniqueness of messages: the idempotency key and the sender's own message id, each within its sender's scope.

The first writer wins, by a unique constraint in the transaction that commits the message.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID

from gateway.protocol.message import Message
from gateway.protocol.status import RecipientState
from gateway.store.admitted import Admitted


@dataclass(frozen=True, slots=True)
class Original:
    """A message that is repeated: its public id, the agents whose inbox it is in, and how each recipient stands."""

    message_id: str
    agents: frozenset[int]
    states: Mapping[str, RecipientState]

    def has_all(self, admitted: Admitted) -> bool:
        """Returns whether the repetition adds no recipients."""
        return all(entry.agent in self.agents for entry in admitted.entries) and all(
            queued.recipient in self.states for queued in admitted.deliveries
        )


@dataclass(frozen=True, slots=True)
class Repeat:
    """A key or id that was seen before; the message registered under it decides the answer."""

    row: UUID
    same: bool = field(
        default=False, compare=False
    )  # its content is known to be the same, and is no conflict
    original: Original | None = field(default=None, compare=False)  # where it was looked up


def key_hash(kind: bytes, message: Message, proven: bool, text: str) -> bytes:
    """Returns the hash of a key within its scope: the sender, and whether that sender was proven."""
    scope = b"%s%d%s\0%s" % (kind, proven, message.sender.name.encode(), text.encode())
    return blake2b(scope, digest_size=16).digest()


def hashes_of(admitted: Admitted) -> dict[str, bytes]:
    """Returns the hashes that must be unique for the message, by kind."""
    message = admitted.message
    found = {}
    if message.key is not None:
        found["key"] = key_hash(b"k", message, admitted.proven, message.key)
    if not message.minted:
        found["id"] = key_hash(b"m", message, admitted.proven, message.message_id)
    return found


Claim = tuple[Admitted, Mapping[str, bytes]]  # a message and its hashes
Wanted = tuple[bytes, UUID, bytes]  # a hash, the message that wants it, and that one's content


def wanted_of(batch: Sequence[Claim]) -> list[Wanted]:
    """Returns what a batch registers, sorted by hash: the same lock order in every transaction."""
    return sorted(
        (hashed, admitted.message.row, admitted.message.content)
        for admitted, hashes in batch
        for hashed in hashes.values()
    )


async def claim(line: Any, batch: Sequence[Claim]) -> dict[UUID, Repeat]:
    """Registers keys and ids; returns the messages that repeat an earlier one, and registers nothing for those."""
    wanted = wanted_of(batch)
    if not wanted:
        return {}
    inserted = await line.fetch(
        "insert into idempotency (hash, message, content, at)"
        " select h, m, c, amtp_now() from unnest($1::bytea[], $2::uuid[], $3::bytea[]) as u (h, m, c)"
        " on conflict do nothing returning hash",
        *map(list, zip(*wanted, strict=True)),
    )
    fresh = {row["hash"] for row in inserted}
    taken = [hashed for hashed, _, _ in wanted if hashed not in fresh]
    owners = await registered(line, taken) if taken else {}
    minted = await _minted_before(line, [admitted for admitted, _ in batch])
    repeats = {}
    for admitted, hashes in batch:
        message = admitted.message
        kind, owner = next(((kind, owners[h]) for kind, h in hashes.items() if h in owners), ("", None))
        if owner is not None:
            by_it = kind == "key" or message.key is None
            repeats[message.row] = Repeat(owner["message"], by_it and owner["content"] == message.content)
        elif message.row in minted:
            repeats[message.row] = Repeat(minted[message.row])
    orphans = [hashed for hashed, row, _ in wanted if row in repeats and hashed in fresh]
    if orphans:
        await line.execute("delete from idempotency where hash = any($1)", orphans)
    return repeats


async def registered(line: Any, hashes: Collection[bytes]) -> dict[bytes, Any]:
    """Returns the message and content registered under each hash, each by its own index look-up."""
    rows = await line.fetch(
        "select u.hash, i.message, i.content from unnest($1::bytea[]) as u (hash) cross join lateral"
        " (select message, content from idempotency where hash = u.hash offset 0) i",
        list(hashes),
    )
    return {row["hash"]: row for row in rows}


async def _minted_before(line: Any, batch: Sequence[Admitted]) -> dict[UUID, UUID]:
    """Returns the ids given by our own agents that we minted for an earlier message of theirs."""
    asked = {row: admitted for admitted in batch if (row := may_be_ours(admitted)) is not None}
    if not asked:
        return {}
    rows = await line.fetch(
        "select id, sender, proven from messages where id = any($1) and public_id is null", list(asked)
    )
    return {
        asked[row["id"]].message.row: row["id"]
        for row in rows
        if (row["sender"], row["proven"]) == (asked[row["id"]].message.sender.name, asked[row["id"]].proven)
    }


def may_be_ours(admitted: Admitted) -> UUID | None:
    """Returns the row of ours that the id given by an agent of ours may name."""
    message = admitted.message
    if not admitted.local or message.minted or len(message.message_id) != 36:
        return None
    try:
        return UUID(message.message_id)
    except ValueError:
        return None
