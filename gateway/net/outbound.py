"""The only HTTP client. Every request to a host that someone else's URL or DNS names is sent here.

- URLs are parsed by one parser. A literal address is checked itself, a name by all its addresses, and only checked
  addresses are connected to: there is no second look-up that could answer differently.
- Ports 80, 443 and 1024 up; lower ones belong to services that are not HTTP.
- No redirects (a 3xx is an answer), no proxies from the environment, no cookies, no encoded answers.
- One deadline around a call, one limit on the bytes of its answer.
- TLS contexts are the caller's; nothing of a request is written before the peer's certificate was accepted.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.net.http_answer import AnswerHead
from gateway.net.http_connection import HandshakeError, LostError, NonsenseError, OutboundConnection, connect
from gateway.net.http_request import BadHeader, render_head
from gateway.net.joined_sends import Outbox
from gateway.net.kept_connections import KEPT_MAX, KeptConnections, Server
from gateway.net.pace import Pace
from gateway.net.reachable import Network, judge, judge_port
from gateway.protocol.url import BadUrl, Url, parse_url

Resolve = Callable[[str], Awaitable[DnsAnswer]]

CONNECT_SECONDS: Final = 10.0  # a host that does not accept by then is down
REQUESTS_MAX: Final = 1024  # under way at once; the windows of the destinations are far below it
ADDRESSES_MAX: Final = 8  # of one host that are tried
URLS_REMEMBERED: Final = 4096  # most requests go to the same few


class Kind(StrEnum):
    REFUSED_ADDRESS = "refused_address"  # we won't connect there
    RESOLVE = "resolve"  # the host has no address, or the DNS failed
    CONNECT = "connect"  # the connection was refused or timed out
    TLS = "tls"  # certificate or version
    TIMEOUT = "timeout"  # the deadline of the call
    LOST = "lost"  # the connection ended before the answer did
    PROTOCOL = "protocol"  # the answer is malformed or not accepted
    TOO_LARGE = "too_large"  # the answer passed its limit


class OutboundError(Exception):
    """A request without an answer. `sent`: some of its body may have reached the server."""

    def __init__(self, kind: Kind, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]  # lower-case names; repeated ones joined with a comma
    body: bytes


@dataclass(frozen=True, slots=True)
class Download:
    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts for a large answer; only time spent waiting for the server counts."""

    pause_seconds: float  # without a byte
    pace: Pace


@dataclass(frozen=True, slots=True)
class Greeting:
    """The TLS version and certificate of a server, and what is wrong with them."""

    version: str | None
    certificate: bytes | None  # DER
    fault: str | None


class Outbound:
    def __init__(
        self,
        resolve: Resolve,
        tls: ssl.SSLContext,
        *,
        agent: str,
        allow: Sequence[Network] = (),
        connect_seconds: float = CONNECT_SECONDS,
        requests_max: int = REQUESTS_MAX,
        kept_max: int = KEPT_MAX,
    ) -> None:
        """`agent` is our User-Agent; `allow` lists private networks that may be connected to."""
        self._resolve, self._tls, self._allow = resolve, tls, tuple(allow)
        self._headers = {"User-Agent": agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._connect_seconds = connect_seconds
        self._idle, self._outbox = KeptConnections(kept_max), Outbox()
        self._exchanges = asyncio.Semaphore(requests_max)

    async def post(
        self,
        url: Url | str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        deadline_seconds: float,
        answer_bytes_max: int,
        tls: ssl.SSLContext | None = None,
        plain: bool = False,
    ) -> Response:
        """Sends a POST. `plain` allows http://; `tls` replaces the default context."""
        target = self._judged(url, plain=plain)
        asked = self._request("POST", target, headers, len(body))
        return await self._exchange(target, tls, asked, body, deadline_seconds, answer_bytes_max)

    async def get(
        self,
        url: Url | str,
        headers: Mapping[str, str],
        *,
        deadline_seconds: float,
        answer_bytes_max: int,
        tls: ssl.SSLContext | None = None,
        plain: bool = False,
    ) -> Response:
        target = self._judged(url, plain=plain)
        asked = self._request("GET", target, headers)
        return await self._exchange(target, tls, asked, None, deadline_seconds, answer_bytes_max)

    async def _exchange(
        self,
        target: Url,
        tls: ssl.SSLContext | None,
        asked: bytes,
        body: bytes | None,
        seconds: float,
        bytes_max: int,
    ) -> Response:
        """Sends a request and returns its whole answer; cheaper than `stream`, which yields pieces."""
        loop = asyncio.get_running_loop()
        server, end, sent = self._server(target, tls), loop.time() + seconds, False
        try:
            connection = await self._connected(server, target, end)
            timer = loop.call_at(end, connection.expire)
            try:
                sent = body is not None
                head = await connection.ask(asked, body or b"")
                return Response(head.status, head.headers, await _whole(connection, head, bytes_max))
            finally:
                timer.cancel()
                self._leave(server, connection)
        except OutboundError as error:
            error.sent |= sent
            raise
        except (LostError, NonsenseError, HandshakeError, TimeoutError) as error:
            raise _outbound_error(error, target, seconds, sent=sent) from None

    @asynccontextmanager
    async def stream(
        self,
        url: Url | str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        body: bytes = b"",
        deadline_seconds: float,
        answer_bytes_max: int,
        tls: ssl.SSLContext | None = None,
        plain: bool = False,
    ) -> AsyncIterator[Download]:
        """Opens an answer that is read in chunks; the deadline covers reading them, too."""
        target = self._judged(url, plain=plain)
        server = self._server(target, tls)
        asked = self._request(method, target, headers, len(body))
        sent = False
        try:
            async with asyncio.timeout(deadline_seconds) as deadline:
                connection = await self._connected(server, target)
                try:
                    sent = method == "POST"
                    head = await connection.ask(asked, body)
                    yield Download(head.status, head.headers, _limited(connection, head, answer_bytes_max))
                finally:
                    self._leave(server, connection)
        except OutboundError as error:
            error.sent |= sent
            raise
        except TimeoutError as error:
            if not deadline.expired():  # the caller's own, from between two chunks
                raise
            raise _outbound_error(error, target, deadline_seconds, sent=sent) from None
        except (LostError, NonsenseError, HandshakeError) as error:
            raise _outbound_error(error, target, deadline_seconds, sent=sent) from None

    @asynccontextmanager
    async def download(
        self, url: Url | str, headers: Mapping[str, str], *, times: Patience, answer_bytes_max: int
    ) -> AsyncIterator[Download]:
        """Opens a large answer that is read at our own pace; only time spent waiting for the server counts."""
        target = self._judged(url, plain=False)
        server = self._server(target, None)
        asked = self._request("GET", target, headers)
        try:
            async with asyncio.timeout(times.pause_seconds):
                connection = await self._connected(server, target)
            try:
                async with asyncio.timeout(times.pause_seconds):
                    head = await connection.ask(asked, b"")
                chunks = _paced(_limited(connection, head, answer_bytes_max), times)
                yield Download(head.status, head.headers, chunks)
            finally:
                self._leave(server, connection)
        except (LostError, NonsenseError, HandshakeError, TimeoutError) as error:
            raise _outbound_error(error, target, times.pause_seconds, sent=False) from None

    async def greet(
        self, url: Url | str, *, deadline_seconds: float, tls: ssl.SSLContext | None = None
    ) -> Greeting:
        """Returns the TLS version and certificate a server shows, valid or not. No request is sent."""
        target = self._judged(url, plain=False)
        try:
            async with asyncio.timeout(deadline_seconds):
                try:
                    return _greeting(await self._dial(target, tls or self._tls), None)
                except HandshakeError as error:
                    fault = str(error)
                try:
                    return _greeting(await self._dial(target, _curious_context()), fault)
                except HandshakeError:
                    return Greeting(None, None, fault)
        except (TimeoutError, OSError) as error:
            raise _outbound_error(error, target, deadline_seconds, sent=False) from None

    def fault(self, url: str, *, plain: bool = False) -> str | None:
        """Returns why requests to this URL would be refused, judged without resolving its host; None if allowed."""
        try:
            self._judged(url, plain=plain)
        except OutboundError as error:
            return error.message
        return None

    async def close(self) -> None:
        self._idle.close()

    def _judged(self, url: Url | str, *, plain: bool) -> Url:
        target = _parsed(url, plain) if isinstance(url, str) else url
        if isinstance(target, BadUrl):
            raise OutboundError(Kind.REFUSED_ADDRESS, f"the URL {target.reason}")
        if target.scheme != "https" and not plain:
            raise OutboundError(Kind.REFUSED_ADDRESS, "the URL must begin with https://")
        reason = judge_port(target.port)
        if reason is not None:
            raise OutboundError(Kind.REFUSED_ADDRESS, reason)
        if target.literal is not None:
            refuse(target.literal, self._allow, target.host)
        return target

    def _request(self, method: str, target: Url, headers: Mapping[str, str], body_bytes: int = 0) -> bytes:
        try:
            return render_head(method, target, {**self._headers, **headers}, body_bytes)
        except BadHeader as fault:
            raise OutboundError(Kind.PROTOCOL, str(fault)) from None

    def _server(self, target: Url, tls: ssl.SSLContext | None) -> Server:
        context = (tls or self._tls) if target.scheme == "https" else None
        return target.scheme, target.host, target.port, context

    async def _connected(self, server: Server, target: Url, end: float | None = None) -> OutboundConnection:
        """Returns a pooled or new connection, within the limit of requests at once; `_leave` gives both back."""
        if self._exchanges.locked():
            async with asyncio.timeout_at(end):
                await self._exchanges.acquire()
        else:
            await self._exchanges.acquire()
        try:
            if (kept := self._idle.take(server)) is not None:
                return kept
            async with asyncio.timeout_at(end):
                return await self._dial(target, server[-1])
        except BaseException:
            self._exchanges.release()
            raise

    def _leave(self, server: Server, connection: OutboundConnection) -> None:
        self._idle.put(server, connection)
        self._exchanges.release()

    async def _dial(self, target: Url, tls: ssl.SSLContext | None) -> OutboundConnection:
        """Connects to the first address that accepts; each address gets its share of the time."""
        addresses = await self._addresses(target)
        end = asyncio.get_running_loop().time() + self._connect_seconds
        for left in range(len(addresses), 0, -1):
            share = (end - asyncio.get_running_loop().time()) / left
            try:
                async with asyncio.timeout(share):
                    return await connect(addresses[-left], target.port, tls, target.host, self._outbox)
            except TimeoutError:
                fault = "it did not take our connection in time"
            except OSError as error:
                fault = f"it does not take connections ({error.strerror})"
        raise OutboundError(Kind.CONNECT, f"{target.authority}: {fault}")

    async def _addresses(self, target: Url) -> Sequence[IPv4Address | IPv6Address]:
        if target.literal is not None:
            return [target.literal]
        match await self._resolve(target.host):
            case Records(values):
                addresses = [ip_address(text) for text in values]
            case Absent():
                raise OutboundError(Kind.RESOLVE, f"{target.host} has no address in the DNS")
            case DnsFailure(reason):
                raise OutboundError(Kind.RESOLVE, f"{target.host} could not be looked up: {reason}")
        for address in addresses:
            refuse(address, self._allow, target.host)
        return addresses[:ADDRESSES_MAX]


@lru_cache(URLS_REMEMBERED)
def _parsed(url: str, plain: bool) -> Url | BadUrl:
    return parse_url(url, plain=plain)


def refuse(address: IPv4Address | IPv6Address, allow: Sequence[Network], host: str) -> None:
    reason = judge(address, allow)
    if reason is not None:
        raise OutboundError(Kind.REFUSED_ADDRESS, f"{host} leads to {address} ({reason})")


async def _whole(connection: OutboundConnection, head: AnswerHead, bytes_max: int) -> bytes:
    if head.length is not None and head.length <= bytes_max:
        _refuse_encoded(head)
        return await connection.whole(head.length)
    return b"".join([chunk async for chunk in _limited(connection, head, bytes_max)])


def _refuse_encoded(head: AnswerHead) -> None:
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise OutboundError(Kind.PROTOCOL, "the answer is encoded although we asked for none")


async def _limited(connection: OutboundConnection, head: AnswerHead, bytes_max: int) -> AsyncIterator[bytes]:
    _refuse_encoded(head)
    count = head.length or 0
    async for chunk in connection.answer(head):
        if head.length is None:
            count += len(chunk)
        if count > bytes_max:
            raise OutboundError(Kind.TOO_LARGE, f"the answer is larger than {bytes_max} bytes")
        yield chunk


async def _paced(chunks: AsyncIterator[bytes], times: Patience) -> AsyncIterator[bytes]:
    clock, left = asyncio.get_running_loop().time, times.pace.grace_seconds
    while True:
        begun = clock()
        async with asyncio.timeout(min(times.pause_seconds, left)):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        left = times.pace.seconds_left(left - (clock() - begun), len(chunk))
        yield chunk


def _greeting(connection: OutboundConnection, fault: str | None) -> Greeting:
    tls = connection.tls
    assert tls is not None
    greeting = Greeting(tls.version(), tls.getpeercert(binary_form=True), fault)
    connection.close()
    return greeting


def _curious_context() -> ssl.SSLContext:
    """Returns a context without verification, to look at a certificate that was refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _outbound_error(error: Exception, url: Url, deadline_seconds: float, *, sent: bool) -> OutboundError:
    match error:
        case HandshakeError():
            kind, message = Kind.TLS, str(error)
        case TimeoutError():
            kind, message = Kind.TIMEOUT, f"no answer within {deadline_seconds:g} s"
        case NonsenseError():
            kind, message = Kind.PROTOCOL, f"its answer is not valid HTTP: {error}"
        case _:
            kind, message = Kind.LOST, "the connection ended before the answer"
    return OutboundError(kind, f"{url.authority}: {message}", sent=sent)
