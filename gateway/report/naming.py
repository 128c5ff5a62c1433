"""The names of a message: the ids and the sender that its followers need."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


class Named(Protocol):
    """A message, as its followers name it."""

    @property
    def row(self) -> UUID: ...
    @property
    def message_id(self) -> str: ...
    @property
    def sender(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Name:
    row: UUID
    message_id: str
    sender: str
