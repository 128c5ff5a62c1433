"""Writing to clients: piece by piece, at the client's pace and within its share of the unsent bytes.

1. A writer waits while its client does not read. A client that falls behind the least rate is cut.
2. Unsent bytes are counted per owner, for all answers and streams of the process together. When they exceed their
   limit the slowest reader is cut: it can open its stream again, or repeat its request.
3. Pieces are small, so that no layer below buffers more than one of them.
"""

import asyncio

from gateway.http.incoming import NEVER
from gateway.http.request import Request
from gateway.http.transport import HungUp, Wire
from gateway.http.unsent import Unsent
from gateway.net.pace import Pace
from gateway.net.shares import Holder

PIECE_BYTES = 65_536


class Outgoing:
    """The answers of one connection."""

    __slots__ = ("_connection", "_loop", "_pace", "_request", "_seconds_left", "_unsent", "until")

    def __init__(self, connection: Wire, unsent: Unsent, pace: Pace, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._unsent = unsent
        self._loop = loop
        self.until = NEVER  # by when the client must have taken more
        self.begin(None, pace)

    def begin(self, request: Request | None, pace: Pace) -> None:
        """Begins the answer to this request."""
        self._request = request
        self._pace = pace
        self._seconds_left = pace.grace_seconds

    @property
    def holder(self) -> Holder:
        """Returns the owner or address that unsent bytes count for."""
        return self._connection.place.holder if self._request is None else self._request.holder

    @property
    def waits(self) -> bool:
        """Returns whether a write waits for the client to read."""
        return self.until != NEVER

    async def write(self, data: bytes) -> None:
        """Writes these bytes, waiting while the client does not read."""
        pieces = [data] if len(data) <= PIECE_BYTES else cut(data)
        left = len(data)
        for piece in pieces:
            transport = self._connection.transport
            if transport is None or transport.is_closing():
                raise HungUp
            transport.write(piece)
            left -= len(piece)
            if self._connection.paused:
                await self._taken(transport, left)

    async def _taken(self, transport: asyncio.WriteTransport, later_bytes: int) -> None:
        """Waits for the client to read; bytes it reads extend its time."""
        before, begun = transport.get_write_buffer_size(), self._loop.time()
        self.until = self._connection.deadline = begun + self._seconds_left
        try:
            if not self._unsent.hold(self, before + later_bytes):
                raise HungUp
            await self._connection.drained()
        except ConnectionError:
            raise HungUp from None
        finally:
            self._unsent.release(self)
            self.until = self._connection.deadline = NEVER
        left = self._seconds_left - (self._loop.time() - begun)
        self._seconds_left = self._pace.seconds_left(left, before - transport.get_write_buffer_size())

    def cut(self) -> None:
        """Hangs up on the slowest reader, because others need the room."""
        self._connection.cut("crowded")


def cut(data: bytes) -> list[memoryview]:
    """Returns the same bytes in pieces."""
    view = memoryview(data)
    return [view[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
