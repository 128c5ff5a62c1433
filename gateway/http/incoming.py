"""Reading of request bodies, whole or piece by piece, within the least rate and the pot for bodies."""

import asyncio
import math

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestPayloadError

from gateway.http.framing import malformed
from gateway.http.limits import Load, body_pace
from gateway.http.request import too_large
from gateway.http.transport import HungUp, Wire
from gateway.net.pace import Pace
from gateway.net.shares import Holder

NEVER = math.inf
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Incoming:
    """The request bodies of one connection, one after the other."""

    __slots__ = (
        "_connection",
        "_held_bytes",
        "_holder",
        "_load",
        "_loop",
        "_payload",
        "_seconds_left",
        "_whole",
        "receiving",
    )

    def __init__(self, connection: Wire, load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._load = load
        self._loop = loop
        self._held_bytes = 0
        self._holder = Holder()
        self.receiving = False
        self.begin(EMPTY_PAYLOAD)

    def begin(self, payload: StreamReader, whole: bytes = b"") -> None:
        """Begins the next request's body; `whole` is one that came with its head."""
        self._payload = payload
        self._whole = whole
        self._seconds_left = NEVER  # up to the grace of whoever asks first

    @property
    def arrived(self) -> bool:
        """Returns whether the whole body has been received."""
        return self._payload.is_eof()

    def hung_up(self) -> None:
        break_off(self._payload, HungUp())

    def spoil(self) -> None:
        """Fails the body because the parser failed in the middle of it, which it reports to nobody."""
        break_off(self._payload, RequestPayloadError())

    def give_back(self) -> None:
        """Gives the bytes of a body back to the pot once it is no longer held."""
        if self._held_bytes:
            self._load.bodies.give(self._holder, self._held_bytes)
            self._held_bytes = 0

    async def read_piece(self, pace: Pace) -> bytes:
        """Returns the next piece of a body that is not buffered; b"" at its end."""
        if self._whole:
            piece, self._whole = self._whole, b""
            return piece
        return await self._next_piece(pace)

    async def read(self, bytes_max: int, holder: Holder, *, invited: bool) -> bytes:
        """Returns the whole body; with `invited` the client waits for `100 Continue` before it sends."""
        body, self._whole = self._whole, b""
        if body:  # it came with its head, within one read of the socket, and nothing of it is waited for
            if len(body) > bytes_max:
                raise too_large(bytes_max)
            return body
        self._holder = holder
        rest = bytearray()  # many small pieces cost no more than their bytes
        if invited:
            await self.invite()
        pace = body_pace(self._load.limits)
        while piece := await self._next_piece(pace):
            self._hold(piece, bytes_max)
            if body:
                rest += piece
            else:
                body = piece
        return body + rest if rest else body

    async def invite(self) -> None:
        """Sends `100 Continue` to a client that waits for it."""
        if not self.arrived:
            await self._connection.write(CONTINUE)

    def _hold(self, piece: bytes, bytes_max: int) -> None:
        """Counts another piece of a buffered body."""
        if self._held_bytes + len(piece) > bytes_max:
            raise too_large(bytes_max)
        self._load.bodies.take(self._holder, len(piece))
        self._held_bytes += len(piece)

    async def _next_piece(self, pace: Pace) -> bytes:
        """Waits for the next piece; only waiting counts against the client, and bytes received extend its time."""
        left = min(self._seconds_left, pace.grace_seconds)
        begun = self._loop.time()
        self.receiving, self._connection.deadline = True, begun + left
        try:
            piece = await self._payload.readany()
        except RequestPayloadError:
            raise badly_framed() from None
        finally:
            self.receiving, self._connection.deadline = False, NEVER
        self._seconds_left = pace.seconds_left(left - (self._loop.time() - begun), len(piece))
        return piece


def break_off(payload: StreamReader, reason: Exception) -> None:
    """Raises `reason` in whoever waits for the rest of the body."""
    if not payload.is_eof():
        payload.set_exception(reason)


def badly_framed() -> Exception:
    return malformed("Its body is not framed as its headers say.")
