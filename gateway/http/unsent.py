"""Accounting of bytes that clients have not read yet; beyond the limit the slowest reader is cut."""

from typing import Protocol

from gateway.net.shares import Holder, Pot
from gateway.protocol.errors import AMTPError, Code


class Reader(Protocol):
    """A client that has bytes to read."""

    @property
    def holder(self) -> Holder:
        """Returns the account its bytes count for."""

    @property
    def until(self) -> float:
        """Returns its deadline for reading more. The slowest reader is the one with the earliest."""

    def cut(self) -> None:
        """Hangs up on it."""


class Unsent:
    """The unsent bytes of all readers, in one pot."""

    def __init__(self, pot: Pot) -> None:
        self._pot = pot
        self._held: dict[Reader, tuple[Holder, int]] = {}

    @property
    def size(self) -> int:
        """Returns the number of unsent bytes."""
        return self._pot.taken

    def hold(self, reader: Reader, size: int) -> bool:
        """Counts bytes for a reader, cutting slower readers to make room; False if it was itself the slowest."""
        holder = reader.holder
        while True:
            try:
                self._pot.take(holder, size)
            except AMTPError as refusal:
                slowest = min((reader, *self._rivals(holder, refusal)), key=lambda each: each.until)
                self.release(slowest)
                slowest.cut()
                if slowest is reader:
                    return False
            else:
                self._held[reader] = holder, size
                return True

    def release(self, reader: Reader) -> None:
        """Stops counting a reader's bytes, if any."""
        held = self._held.pop(reader, None)
        if held is not None:
            self._pot.give(*held)

    def _rivals(self, holder: Holder, refusal: AMTPError) -> list[Reader]:
        """Returns the readers that may be cut for this one: of its share, or unproven ones for an unproven one, or all."""
        if refusal.code is Code.RATE_LIMIT_EXCEEDED:
            return [each for each, (other, _) in self._held.items() if other == holder]
        return [
            each for each, (other, _) in self._held.items() if other.owner is None or holder.owner is not None
        ]
