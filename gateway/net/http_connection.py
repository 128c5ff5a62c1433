"""One connection to an HTTP/1.1 server, for one exchange at a time. net/outbound.py chooses the server."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final, cast

from gateway.net.http_answer import AnswerHead, BadHead, parse_chunk_size, parse_head
from gateway.net.joined_sends import TOGETHER_BYTES_MAX, Outbox

HEAD_BYTES_MAX: Final = 16_384  # all headers of an answer together
LINE_BYTES_MAX: Final = 1024  # before a chunk, and after the last one
INTERIM_MAX: Final = 4  # answers 1xx before the real one
READ_AHEAD_BYTES: Final = 262_144  # of an answer, buffered until it is read
WRITE_BYTES: Final = 65_536  # of a body at once: a large one must not block the event loop


class LostError(Exception):
    """A connection that ended before its answer was complete."""


class NonsenseError(Exception):
    """An answer that is malformed or not accepted here."""


class HandshakeError(Exception):
    """A failed TLS handshake: no acceptable TLS, or no valid certificate for the name."""


async def connect(
    address: IPv4Address | IPv6Address,
    port: int,
    tls: ssl.SSLContext | None,
    host: str,
    outbox: Outbox | None = None,
) -> "OutboundConnection":
    """Connects to that address; with `tls` the server must prove to be `host`. Raises OSError if it can't."""
    loop = asyncio.get_running_loop()
    end = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        end.setblocking(False)
        await loop.sock_connect(end, (str(address), port))
    except BaseException:
        end.close()
        raise
    try:
        _, connection = await loop.create_connection(
            partial(OutboundConnection, outbox or Outbox()),
            sock=end,
            ssl=tls,
            server_hostname=host if tls else None,
        )
    except (ssl.SSLError, ConnectionError) as error:
        raise HandshakeError(_tls_trouble(error)) from None
    return connection


def _tls_trouble(error: OSError | None) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate was refused: {error.verify_message.rstrip('.')}"
        case ssl.SSLError():
            return f"it does not speak TLS as we must ({error.reason or 'no reason given'})"
        case _:
            return "it hung up during the TLS handshake; it must speak TLS 1.3"


class OutboundConnection(asyncio.Protocol):
    """A connection to a server: sends a request and reads its answer."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._fault: Exception | None = None
        self._write_paused = self._read_paused = False
        self._busy = False  # an exchange is under way
        self._spoiled = False  # it can't be used for another one
        self._late = False  # the deadline has passed
        self.born = asyncio.get_running_loop().time()
        self.idle_since = self.born

    @property
    def usable(self) -> bool:
        """Returns whether another request may be sent. Unsolicited bytes forbid it: they would be read as its answer."""
        return not (self._busy or self._spoiled or self._ended or self._buffer)

    @property
    def tls(self) -> ssl.SSLObject | None:
        found: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return found

    async def ask(self, head: bytes, body: bytes) -> AnswerHead:
        """Sends a request; returns the head of its answer."""
        self._busy = True
        if len(body) <= TOGETHER_BYTES_MAX:
            self._outbox.post(self._transport, head + body)
        else:
            await self._write(head, body)
        for _ in range(INTERIM_MAX):
            answer = parse_head(await self._until(b"\r\n\r\n", HEAD_BYTES_MAX))
            if isinstance(answer, BadHead):
                raise NonsenseError(answer.reason)
            if not answer.interim:
                self._spoiled |= not answer.keep_alive
                return answer
        raise NonsenseError("it announces its answer and does not give it")

    async def answer(self, head: AnswerHead) -> AsyncIterator[bytes]:
        """Yields the body that belongs to `head`, piece by piece."""
        if head.chunked:
            pieces = self._chunks()
        elif head.length is None:
            pieces = self._rest()
        else:
            pieces = self._exactly(head.length)
        async for piece in pieces:
            yield piece
        self._over()

    async def whole(self, count: int) -> bytes:
        """Returns the whole body, for a head with a length."""
        while len(self._buffer) < count:
            await self._more()
        body = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._over()
        return body

    def _over(self) -> None:
        self._busy = False
        self.idle_since = asyncio.get_running_loop().time()

    def expire(self) -> None:
        """Raises TimeoutError in the coroutine that waits for the server, now or later."""
        self._late = True
        self._happened()

    def close(self) -> None:
        self._transport.abort()

    async def _write(self, head: bytes, body: bytes) -> None:
        """Sends the request piece by piece; stops if the server answers before it has all of it."""
        self._transport.write(head)
        for start in range(0, len(body), WRITE_BYTES):
            while self._write_paused and not (self._buffer or self._ended):
                await self._wake()
            if self._buffer or self._ended:
                self._spoiled = True
                return
            self._transport.write(body[start : start + WRITE_BYTES])

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = parse_chunk_size(await self._until(b"\r\n", LINE_BYTES_MAX))
            if size is None:
                raise NonsenseError("its chunks are not written like chunks")
            if size == 0:
                break
            async for piece in self._exactly(size):
                yield piece
            if await self._until(b"\r\n", LINE_BYTES_MAX):
                raise NonsenseError("its chunks are not as long as they say")
        if await self._until(b"\r\n", LINE_BYTES_MAX):
            self._spoiled = True  # trailers: not needed, so they are not read

    async def _exactly(self, count: int) -> AsyncIterator[bytes]:
        while count > 0:
            if not self._buffer:
                await self._more()
            piece = bytes(self._buffer[:count])
            del self._buffer[: len(piece)]
            count -= len(piece)
            yield piece

    async def _rest(self) -> AsyncIterator[bytes]:
        while not self._ended or self._buffer:
            if self._buffer:
                piece = bytes(self._buffer)
                self._buffer.clear()
                yield piece
            else:
                await self._wake()
        if self._fault is not None:
            raise self._loss()

    async def _until(self, mark: bytes, bytes_max: int) -> bytes:
        """Returns the bytes before `mark`, and removes both from the buffer."""
        while (end := self._buffer.find(mark, 0, bytes_max)) < 0:
            if len(self._buffer) >= bytes_max:
                raise NonsenseError(f"a line or head of it is longer than {bytes_max} bytes")
            await self._more()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    async def _more(self) -> None:
        if self._ended:
            raise self._loss()
        await self._wake()

    def _loss(self) -> Exception:
        if isinstance(self._fault, ssl.SSLError):  # e.g. it wants a client certificate
            return HandshakeError(_tls_trouble(self._fault))
        return LostError()

    async def _wake(self) -> None:
        """Waits for the next event of the connection; raises TimeoutError past the deadline."""
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
        if not self._late:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._late:
            raise TimeoutError

    def _happened(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > READ_AHEAD_BYTES and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()
        self._happened()

    def eof_received(self) -> None:
        self._ended = True
        self._happened()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._fault = True, error
        self._happened()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._happened()
