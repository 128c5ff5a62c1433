"""Bodies to what they say: small ones here, a little in each turn of the event loop; large ones in child processes.

A 10 MB body takes a fifth of a second to read with the interpreter's lock held; every other caller would wait for it.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TypeVar
from uuid import UUID

from gateway.http.turns import SECONDS_PER_BYTE, Turns
from gateway.journal.journal import Journal
from gateway.net.shares import Holder, Pot
from gateway.protocol.message import Message, parse_message
from gateway.receive.readers import Readers

T = TypeVar("T")

LARGE_BYTES = 256 * 1024
LARGE_BODIES_MAX = 64  # being read or waiting for it


class Parsing:
    """Reads bodies, each within a turn of the event loop or in a child process."""

    def __init__(self, journal: Journal, places: Pot) -> None:
        """`places` counts the large bodies that are read or wait for it."""
        self._readers = Readers(journal, places)
        self.turns = Turns()
        self.close = self._readers.close

    async def message(self, raw: bytes, *, holder: Holder, row: UUID, now: datetime, local: bool) -> Message:
        return await self.read(partial(parse_message, row=row, now=now, local=local), raw, holder)

    async def read(
        self, task: Callable[[bytes], T], raw: bytes, holder: Holder, size: int | None = None
    ) -> T:
        """Returns what the task makes of `raw`; `size` counts what else it has to read, where that is more."""
        size = len(raw) if size is None else size
        if size > LARGE_BYTES:
            return await self._readers.run(holder, task, raw)
        turns, expected = self.turns, size * SECONDS_PER_BYTE
        if not turns.take(expected):
            await turns.wait(expected)
        begun = monotonic()
        try:
            return task(raw)
        finally:
            turns.spend(monotonic() - begun - expected)
