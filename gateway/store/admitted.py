"""Messages that may enter, and where each of their recipients goes: what the intake writes."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from gateway.protocol.message import Message


class Rider(Protocol):
    """A row of another table that is written in a message's own transaction, or a settlement's."""

    @staticmethod
    async def write(line: Any, riders: Sequence[Any], /) -> None:
        """Writes all of a batch that are of this kind, in the open transaction."""


async def write_riders(line: Any, riders: Iterable[Rider]) -> None:
    """Writes them, each kind by one statement, the kinds in one order everywhere."""
    kinds: dict[type[Rider], list[Rider]] = {}
    for rider in riders:
        kinds.setdefault(type(rider), []).append(rider)
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        await kind.write(line, kinds[kind])


class Entry(msgspec.Struct, frozen=True):
    """A recipient whose inbox is in this house: delivered by the commit itself."""

    agent: int
    address: str | None  # as written, where that is not the agent's name
    receipt: bool = False  # the sender hears when it is read


ENTRY_BYTES = 1024  # what a place costs beside the body


def weight_of(body_bytes: int, places: int) -> int:
    """Returns the bytes that each of its places counts for, where a message's sender proved nothing."""
    return body_bytes // max(places, 1) + ENTRY_BYTES


Place = tuple[UUID, int]  # where an entry lies: its message and its agent


class Queued(msgspec.Struct, frozen=True):
    """A recipient who is delivered to later."""

    recipient: str
    address: str
    destination: str
    due: datetime
    expires_at: datetime
    expiry: str  # "ttl", "horizon", or "once"
    token: int | None = None  # with leased_until: a worker of this process takes it straight from memory
    leased_until: datetime | None = None
    receipt: str | None = None  # "delivered" or "read", where this house is to tell the sender of it


class Admitted(msgspec.Struct, frozen=True):
    """A message that may enter, and where each accepted recipient of it goes."""

    message: Message
    proven: bool
    entries: tuple[Entry, ...] = ()
    deliveries: tuple[Queued, ...] = ()
    automatic: bool = False
    hops: tuple[str, ...] = ()
    local: bool = True  # handed in by an agent of ours: its id may repeat one that we minted
    riders: tuple[Rider, ...] = ()

    @property
    def weight(self) -> int | None:
        """Bytes that each place counts for in the room of unproven senders; None for others."""
        if self.proven:
            return None
        return weight_of(len(self.message.body), len(self.entries) + len(self.deliveries))
