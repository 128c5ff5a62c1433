"""A message by its name: what those who follow it need to know of it."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


class Named(Protocol):
    """A message, as those who follow it name it."""

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
