"""Parsing of bodies: small ones here, within the turns of the event loop; large ones in child processes.

Parsing a 10 MB body holds the interpreter's lock for a fifth of a second, for which all other callers would wait.
"""

from collections.abc import Awaitable, Callable
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
LARGE_BODIES_MAX = 64  # being parsed or waiting for it


class Parsing:
    """The parser of bodies, within turns of the event loop or in child processes."""

    def __init__(self, journal: Journal, places: Pot) -> None:
        """`places` counts the large bodies being parsed or waiting for it."""
        self._readers = Readers(journal, places)
        self.turns = Turns()
        self.close = self._readers.close

    def message(
        self, raw: bytes, *, holder: Holder, row: UUID, now: datetime, local: bool
    ) -> Awaitable[Message]:
        return self.read(partial(parse_message, row=row, now=now, local=local), raw, holder)

    async def read(
        self, task: Callable[[bytes], T], raw: bytes, holder: Holder, size: int | None = None
    ) -> T:
        """Returns the task's result for `raw`; `size` is the number of bytes it parses, if more than `raw`."""
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
