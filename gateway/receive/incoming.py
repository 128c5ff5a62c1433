"""The body of the request in work: whole from the start, or piece by piece, within the client's time and our room."""

import asyncio
import math
from typing import TYPE_CHECKING

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

from gateway.receive.framing import malformed
from gateway.receive.limits import BODY_PAUSES_MAX, Load
from gateway.receive.request import HungUp, too_large

if TYPE_CHECKING:  # a connection has the bodies of its requests
    from gateway.receive.connection import Connection

NEVER = math.inf
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Incoming:
    """Of one connection, request after request."""

    __slots__ = ("_connection", "_held_bytes", "_load", "_loop", "_payload", "_until", "_whole", "receiving")

    def __init__(self, connection: "Connection", load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._load = load
        self._loop = loop
        self._held_bytes = 0
        self._until = NEVER
        self.receiving = False
        self.begin(EMPTY_PAYLOAD)

    def begin(self, payload: StreamReader, whole: bytes = b"") -> None:
        """The next request's body; `whole` is one that came with its head."""
        self._payload = payload
        self._whole = whole

    @property
    def arrived(self) -> bool:
        """Whether nothing of it is on the way any more."""
        return self._payload.is_eof()

    def hung_up(self) -> None:
        break_off(self._payload, HungUp())

    def spoil(self) -> None:
        """The parser stumbled in the middle of it, which it tells nobody."""
        break_off(self._payload, RequestPayloadError())

    def prolong(self) -> None:
        """Something came of what is waited for."""
        self._connection.deadline = min(self._loop.time() + self._load.limits.body_seconds, self._until)

    def give_back(self) -> None:
        self._load.give_bytes(self._held_bytes)
        self._held_bytes = 0

    async def read_piece(self, seconds_max: float) -> bytes:
        """The next piece, b"" behind the end. The client has so long for it."""
        if self._whole:
            piece, self._whole = self._whole, b""
            return piece
        self._wait_for(seconds_max)
        try:
            return await self._payload.readany()
        except RequestPayloadError:
            raise badly_framed() from None
        finally:
            self._stop_waiting()

    async def read(self, bytes_max: int, *, invited: bool) -> bytes:
        """All of it; `invited` says that the client waits for a word before it sends."""
        body, self._whole = self._whole, b""
        if body:
            self._hold(body, bytes_max)
            return body
        rest = bytearray()  # many small pieces cost no more than their bytes
        if not self.arrived:
            self._wait_for(BODY_PAUSES_MAX * self._load.limits.body_seconds)
            if invited:
                await self._connection.write(CONTINUE)
        try:
            while piece := await self._payload.readany():
                self._hold(piece, bytes_max)
                if body:
                    rest += piece
                else:
                    body = piece
        except RequestPayloadError:
            raise badly_framed() from None
        finally:
            self._stop_waiting()
        return body + rest if rest else body

    async def invite(self) -> None:
        """Tells a client that waits for a word before it sends its body."""
        if not self.arrived:
            await self._connection.write(CONTINUE)

    def _hold(self, piece: bytes, bytes_max: int) -> None:
        """Counts another piece of a body that is kept together."""
        if self._held_bytes + len(piece) > bytes_max:
            raise too_large(bytes_max)
        self._held_bytes += len(piece)
        self._load.take_bytes(len(piece))

    def _wait_for(self, seconds_max: float) -> None:
        self._until = self._loop.time() + seconds_max
        self.receiving = True
        self.prolong()

    def _stop_waiting(self) -> None:
        self.receiving, self._connection.deadline = False, NEVER


def break_off(payload: StreamReader, reason: Exception) -> None:
    """Whoever waits for the rest of a body learns that it will never come."""
    if not payload.is_eof():
        payload.set_exception(reason)


def badly_framed() -> Exception:
    return malformed("Its body is not framed as its headers say.")
