"""Bytes that were written and that clients have not taken: whose they are, and who has to go where they are too many."""

from typing import Protocol

from gateway.net.shares import Holder, Pot
from gateway.protocol.errors import AMTPError, Code


class Reader(Protocol):
    """A client that is waited for."""

    @property
    def holder(self) -> Holder:
        """On whose account its bytes are held."""

    @property
    def until(self) -> float:
        """By when it must have taken more. The slowest is the one whose time ends first."""

    def cut(self) -> None:
        """Hangs up on it."""


class Unsent:
    """One pot for all of them."""

    def __init__(self, pot: Pot) -> None:
        self._pot = pot
        self._held: dict[Reader, tuple[Holder, int]] = {}

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self._pot.taken

    def hold(self, reader: Reader, size: int) -> bool:
        """Counts these for a reader, and makes room where there is none; whether that did not cost the reader itself."""
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
        """Ends the counting for a reader, if anything is counted."""
        held = self._held.pop(reader, None)
        if held is not None:
            self._pot.give(*held)

    def _rivals(self, holder: Holder, refusal: AMTPError) -> list[Reader]:
        """The other readers whose bytes stand in the way: of the same share; of strangers for a stranger; else all."""
        if refusal.code is Code.RATE_LIMIT_EXCEEDED:
            return [each for each, (other, _) in self._held.items() if other == holder]
        return [
            each for each, (other, _) in self._held.items() if other.owner is None or holder.owner is not None
        ]
