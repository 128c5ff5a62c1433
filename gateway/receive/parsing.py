"""Bodies to what they say: small ones here, a bounded number of bytes in each turn of the event loop; large ones in
child processes, so that no body holds the loop.

A 10 MB body takes a fifth of a second to read with the interpreter's lock held; every other caller would wait for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from gateway.journal import Journal
from gateway.protocol.message import Message, parse_message
from gateway.receive.readers import Readers
from gateway.shares import Holder, Pot

T = TypeVar("T")

LARGE_BYTES = 256 * 1024
LARGE_BODIES_MAX = 64  # being read or waiting for it
TURN_BYTES = LARGE_BYTES  # some 20 ms, however hard they are to read


class Parsing:
    """Reads bodies, each within one turn of the event loop or in a child process."""

    def __init__(self, journal: Journal, places: Pot) -> None:
        """`places` counts the large bodies that are read or wait for it."""
        self._readers = Readers(journal, places)
        self._turns = Turns(TURN_BYTES)
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
        if not self._turns.take(size):
            await self._turns.wait(size)
        return task(raw)


class Turns:
    """Bytes to work on in each turn of the event loop; who finds none left waits for a later one, in order."""

    __slots__ = ("_bytes_max", "_left", "_waiting")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._left = bytes_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int) -> bool:
        """Whether this turn has room for so many bytes, which are then taken."""
        if self._waiting or size > self._left:
            return False
        self._spend(size)
        return True

    async def wait(self, size: int) -> None:
        """Until a turn has room, where this one has not."""
        room = asyncio.get_running_loop().create_future()
        self._waiting.append((size, room))
        await room

    def _spend(self, size: int) -> None:
        if self._left == self._bytes_max:
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= size

    def _renew(self) -> None:
        self._left = self._bytes_max
        while self._waiting and self._waiting[0][0] <= self._left:
            size, room = self._waiting.popleft()
            if not room.done():  # else whoever waited is gone
                self._spend(size)
                room.set_result(None)
