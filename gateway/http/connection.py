"""One connection: answers requests one after the other, and hangs up on slow or misbehaving clients.

aiohttp's RequestHandler feeds its parser and queues the requests. We handle them without a task or a response
object for each, and with one write per answer. The rules, and why:

- An ambiguously framed request is refused and the connection closed: a proxy in front of us may have read it
  differently (request smuggling).
- A chunked request is the last of its connection: aiohttp's parser carries trailer fields over into the head
  of the next request, which may be another client's behind the same proxy.
- Where bytes are left unread we send the answer, shut down our side and linger: a reset would destroy the answer.
- Each connection has one deadline for its client; a timer of the server checks all of them.
"""

import asyncio
from contextlib import aclosing
from typing import Any, cast

from aiohttp import hdrs
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from multidict import CIMultiDictProxy

from gateway.http.answers import Answer, Stream, render_answer, render_stream_head
from gateway.http.fast_heads import PlainReader
from gateway.http.framing import Head, head_of, unreadable
from gateway.http.incoming import NEVER, Incoming, break_off
from gateway.http.listener import AnsweredRequest, Listener
from gateway.http.origin import client_address
from gateway.http.outgoing import PIECE_BYTES, Outgoing
from gateway.http.places import NOWHERE, Place, Refusal
from gateway.http.roles import Role
from gateway.http.stream import lively
from gateway.http.transport import HungUp
from gateway.net.joined_sends import TOGETHER_BYTES_MAX
from gateway.net.shares import Holder
from gateway.protocol.errors import AMTPError

QUEUED_REQUESTS_MAX = 2  # parsed ahead of the one in work, before the socket is left alone


class Connection(RequestHandler):
    """An HTTP connection: takes requests to the listener and sends the answers."""

    __slots__ = (
        "_begun",
        "_ending",
        "_head_bytes",
        "_listener",
        "_over",
        "_plain",
        "_refused",
        "_serving",
        "deadline",
        "incoming",
        "outgoing",
        "place",
        "since",
        "task",
    )

    def __init__(
        self, listener: Listener, loop: asyncio.AbstractEventLoop, place: Place | None = None
    ) -> None:
        """`place` is the one it was given before its TLS handshake."""
        manners = listener.manners
        super().__init__(
            cast(Any, listener),
            loop=loop,
            keepalive_timeout=0,  # the deadline sees to it
            access_log=cast(Any, None),
            max_line_size=manners.line_bytes_max,
            max_field_size=manners.line_bytes_max,
            max_headers=manners.headers_max,
            read_bufsize=manners.read_bytes,
            auto_decompress=False,
        )
        self._max_msg_queue_size = QUEUED_REQUESTS_MAX
        self._msg_queue_resume_size = 0
        self._listener = listener
        self._ending: asyncio.Event | None = None
        self.incoming = Incoming(self, listener.load, loop)
        self.outgoing = Outgoing(self, listener.load.unsent, listener.reading, loop)
        self._plain = PlainReader(listener.plain)
        self._begun = True  # a head: the first one is due from the start
        self._head_bytes = 0  # of one that is not complete
        self._serving = False
        self._refused = False  # what the parser could not read, so more of it may come
        self._over = False
        self.place = place or NOWHERE
        self.deadline = NEVER
        self.since = 0.0
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        if self.place is NOWHERE:
            try:
                self.place = listener.enter(transport.get_extra_info("socket"))
            except Refusal as refusal:
                self._turn_away(cast(asyncio.Transport, transport), refusal.error)
                return
        self.since = self._loop.time()
        self.deadline = self.since + listener.limits.head_seconds
        super().connection_made(transport)
        if listener.secure:  # else TLS would hold ten times as much as other transports do
            cast(asyncio.Transport, transport).set_write_buffer_limits(PIECE_BYTES)
        self.task = self._task_handler

    def _turn_away(self, transport: asyncio.Transport, error: AMTPError) -> None:
        """Answers that there are too many connections, and reads nothing."""
        self._manager = None
        self._close = True
        transport.write(self._listener.refusal(error))
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._manager is None:  # turned away
            return
        super().connection_lost(exc)
        self.incoming.hung_up()
        if self._ending is not None:
            self._ending.set()
        self._leave_when_over()

    def _leave_when_over(self) -> None:
        """Frees the place once the client is gone and its last request has ended; until then it counts."""
        if self._over and self.transport is None:
            self._listener.leave(self, self.place)

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        idle = waiter is not None and not (waiter.done() or self._close or self._force_close)
        if data and (plain := self._plain.take(data, idle=idle)) is not None and waiter is not None:
            self._messages.append(plain)  # type: ignore[arg-type] # aiohttp queues what its own parser read
            waiter.set_result(None)
            return
        messages = self._messages
        queued, in_head = len(messages), self._in_head
        if self._head_bytes > self._listener.manners.head_bytes_max:
            return
        try:
            super().data_received(data)
        except (ValueError, LookupError) as error:  # of its URL library, over targets it should have refused
            self._refuse(error)
        if len(messages) > queued:
            self._head_bytes = 0
        elif in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._listener.manners.head_bytes_max:
                self._refuse(ValueError("the head is too long"))
        if messages:
            if type(messages[-1][0]) is _ErrInfo:
                if len(messages) > 1:
                    break_off(messages[-2][1], RequestPayloadError())
                else:
                    self.incoming.spoil()
        elif not data or self._close:
            pass
        elif not (self._begun or self.incoming.receiving) and self.incoming.arrived:
            self._begun = True
            if not self._serving:
                self.deadline = self._loop.time() + self._listener.limits.head_seconds

    @property
    def _in_head(self) -> bool:
        """Returns whether the next bytes belong to a head rather than a body."""
        if not self._messages:
            return self.incoming.arrived
        body = cast(bytes | StreamReader, self._messages[-1][1])
        return isinstance(body, bytes) or body.is_eof()

    def _refuse(self, error: Exception) -> None:
        """Queues a refusal, as aiohttp does for what its parser rejects."""
        self._messages.append((_ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def start(self) -> None:
        """Answers requests until the client or the server ends the connection."""
        try:
            while await self._wait_for_request() and await self._serve():
                pass
        finally:
            self._over = True
            self._hang_up()
            self._leave_when_over()

    async def _wait_for_request(self) -> bool:
        if self._close or self._force_close:
            return False
        if self._messages:
            return True
        if self._listener.load.closing:
            return False
        limits = self._listener.limits
        self.since = self._loop.time()
        self.deadline = self.since + (limits.head_seconds if self._begun else limits.keep_alive_seconds)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:  # the client went away, or the door closes
            return False
        finally:
            self._waiter = None
        return not self._force_close

    async def _serve(self) -> bool:
        """Answers the next request; returns whether another may follow."""
        self._serving, self._begun, self.deadline = True, False, NEVER
        head = self._next_head()
        started = self._loop.time()
        listener = self._listener
        try:
            reply = await listener.answer(head, self)
            last = reply.last or not self.incoming.arrived or self._close or listener.load.closing
            await self._send(reply, last=last)
            listener.watch.request_answered(
                reply.method, reply.path, reply.answer.status, self._loop.time() - started
            )
        except HungUp:
            return False
        finally:
            self._serving = False
            self.incoming.give_back()
        return not last

    def _next_head(self) -> Head:
        message: Any
        body: Any
        message, body = self._messages.popleft()
        if isinstance(message, Head):  # a plain request
            self.incoming.begin(EMPTY_PAYLOAD, body)
            return message
        self.incoming.begin(body)
        if self._parser is not None:
            self._parser.message_consumed()
            if self._buffer_paused and not self._messages:
                self._resume_reading_if_drained()
        self._refused = isinstance(message, _ErrInfo)
        return (
            unreadable()
            if isinstance(message, _ErrInfo)
            else head_of(message, self._listener.manners.head_bytes_max)
        )

    async def _send(self, reply: AnsweredRequest, *, last: bool) -> None:
        head = self._listener.fixed_head
        match reply.answer:
            case Answer() as answer:
                bodiless = reply.method == hdrs.METH_HEAD
                large = len(answer.body) > PIECE_BYTES and not bodiless
                data = render_answer(answer, head, reply.request_id, bodiless=bodiless or large, close=last)
                if len(data) <= TOGETHER_BYTES_MAX and not (large or last or self._paused):
                    if self.transport is None or self.transport.is_closing():
                        raise HungUp
                    self._listener.outbox.post(self.transport, data)
                    return
                self.outgoing.begin(reply.request, self._listener.reading)
                await self.write(data)
                if large:
                    await self.write(answer.body)
            case Stream() as stream:
                await self._send_stream(stream, head, reply)

    async def _send_stream(self, stream: Stream, head: str, reply: AnsweredRequest) -> None:
        """Sends each item as it comes, until the items end or the client leaves."""
        self.outgoing.begin(reply.request, self._listener.reading)
        try:
            await self.write(render_stream_head(stream, head, reply.request_id))
            if reply.method != hdrs.METH_HEAD:
                quiet_seconds = self._listener.manners.quiet_seconds
                endless = stream.length is None
                items = lively(stream, self.ending, quiet_seconds) if endless else stream.items
                async with aclosing(items):
                    async for item in items:
                        await self.write(item)
                        del item  # may be large, and the next may take long
        except HungUp:
            raise
        except Exception as error:
            if stream.length is None or not isinstance(error, AMTPError):
                self._listener.watch.request_failed(reply.request_id, reply.path, error)
            self.abort()  # what was sent must not look whole
            raise HungUp from error
        finally:
            await stream.items.aclose()

    async def write(self, data: bytes) -> None:
        """Writes these bytes now, waiting while the client does not read."""
        self._listener.outbox.flush()
        await self.outgoing.write(data)

    @property
    def paused(self) -> bool:
        """Returns whether writing must wait until the client has read more."""
        return bool(self._paused)

    async def drained(self) -> None:
        """Waits until more may be written; raises ConnectionError if the client is gone."""
        await self._drain_helper()

    def _hang_up(self) -> None:
        """Closes the connection; if bytes are left unread, lingers so that the client can read the answer."""
        transport = self.transport
        unread = self._unread
        self._close = True
        manners = self._listener.manners
        self.deadline = self._loop.time() + (manners.linger_seconds if unread else manners.write_seconds)
        if transport is None or transport.is_closing():
            return
        if not unread:
            transport.close()
            return
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the client is gone, which we had not heard yet
            transport.close()
            return
        if self._reading_paused or self._buffer_paused:
            self._resume_transport_reading()

    @property
    def _unread(self) -> bool:
        """Returns whether the client may still be sending bytes that will not be read."""
        return self._refused or bool(self._messages) or not self.incoming.arrived

    def retire(self) -> None:
        """Closes an idle connection at once and a busy one after its answer, because the server closes."""
        if self._ending is not None:
            self._ending.set()
        if not self._serving and not self._messages:
            self.close()

    def expire(self) -> None:
        """Hangs up on a client whose deadline has passed."""
        if self.outgoing.waits:
            self.cut("slow")
        self.abort()

    def cut(self, reason: str) -> None:
        """Hangs up on a client that reads too slowly."""
        self._listener.watch.reader_cut(reason)
        self.abort()

    def end(self, last_words: bytes) -> None:
        """Ends the current stream with these bytes, or at once if its client does not read."""
        self._listener.watch.reader_cut("replaced")
        self.ending.set()
        if self.outgoing.waits:
            self.abort()
        elif self.transport is not None:
            self.transport.write(last_words)

    def abort(self) -> None:
        """Hangs up at once; unsent bytes are dropped."""
        if self.transport is not None:
            self.transport.abort()

    def cut_off(self) -> None:
        """Cancels the request and hangs up: the grace of the shutdown is over, or the place is needed for another."""
        if self.task is not None:
            self.task.cancel()
        self.abort()

    @property
    def waits(self) -> bool:
        """Returns whether we wait for the client to send."""
        return self.incoming.receiving or not (self._serving or self._messages)

    def prove(self, holder: Holder) -> None:
        """Counts the connection for the owner whose key a request showed."""
        if self.place.holder.owner is None:
            self._listener.places.prove(self.place, holder)

    @property
    def gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    @property
    def secure(self) -> bool:
        return self._listener.secure

    @property
    def roles(self) -> frozenset[Role]:
        return self._listener.router.roles

    @property
    def ending(self) -> asyncio.Event:
        if self._ending is None:
            self._ending = asyncio.Event()
            if self.gone or self._listener.load.closing:
                self._ending.set()
        return self._ending

    def client_of(self, headers: CIMultiDictProxy[str]) -> str:
        place = self.place
        if not place.trusted:
            return place.address
        return client_address(place.address, headers.getall(hdrs.X_FORWARDED_FOR, ()), self._listener.trusted)
