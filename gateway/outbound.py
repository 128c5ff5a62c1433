"""The one HTTP client. Every request that somebody else's URL or DNS can steer leaves through here.

- The host comes from the one parser. A literal is judged itself, a name by every address it has, and only the
  judged addresses are connected to: there is no second look-up that could answer differently.
- Ports 80, 443 and 1024 up; lower ones belong to services that are not HTTP.
- No redirects (a 3xx is an answer), no proxies from the environment, no cookies, no encoded answers.
- One deadline around a call, one limit on the bytes of its answer.
- TLS contexts are the caller's; nothing of a request is written before the peer's certificate was accepted.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC, AddressFamily
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.payload import BytesPayload
from yarl import URL

from gateway.protocol.dns_answer import Absent, DnsAnswer, Records, Trouble
from gateway.protocol.reachable import Network, judge, judge_port
from gateway.protocol.url import BadUrl, Url, parse_url

Resolve = Callable[[str], Awaitable[DnsAnswer]]

CONNECT_SECONDS: Final = 10.0  # a host that does not answer its door by then is down
IDLE_SECONDS: Final = 30.0  # below the 60–75 s after which peers close, so few requests meet a closing door
CONNECTIONS_MAX: Final = 1024  # descriptors; the windows per destination are far below it
ADDRESSES_MAX: Final = 8  # of one host that are tried
HEADER_BYTES_MAX: Final = 8190  # one line of an answer's head
CHUNK_BYTES: Final = 65_536


class Kind(StrEnum):
    REFUSED_ADDRESS = "refused_address"  # we won't connect there
    RESOLVE = "resolve"  # the host has no address, or nobody could tell
    CONNECT = "connect"  # nobody answered the door
    TLS = "tls"  # certificate or version
    TIMEOUT = "timeout"  # the deadline of the call
    LOST = "lost"  # the connection ended before the answer did
    PROTOCOL = "protocol"  # what came back is no answer we take
    TOO_LARGE = "too_large"  # the answer passed its limit


class OutboundError(Exception):
    """A request that brought no answer. `sent`: some of its body may have reached the other side."""

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


def client_context(
    ca_file: str | None = None, certificate_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    """TLS 1.3 towards others: the system's authorities or a CA of our choice, and perhaps our certificate."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate_file:
        context.load_cert_chain(certificate_file, key_file)
    return context


class _JudgedAddresses(AbstractResolver):
    """Gives the connector the addresses of a name after each of them was judged."""

    def __init__(self, resolve: Resolve, allow: Sequence[Network]) -> None:
        self._resolve = resolve
        self._allow = allow

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = [ip_address(text) for text in await self._addresses(host)]
        for address in addresses:
            refuse(address, self._allow, host)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=AF_INET if address.version == 4 else AF_INET6,
                proto=0,
                flags=0,
            )
            for address in addresses[:ADDRESSES_MAX]
        ]

    async def close(self) -> None:
        """The directory belongs to somebody else."""

    async def _addresses(self, host: str) -> tuple[str, ...]:
        match await self._resolve(host):
            case Records(values):
                return values
            case Absent():
                raise OutboundError(Kind.RESOLVE, f"{host} has no address in the DNS")
            case Trouble(reason):
                raise OutboundError(Kind.RESOLVE, f"{host} could not be looked up: {reason}")


def refuse(address: IPv4Address | IPv6Address, allow: Sequence[Network], host: str) -> None:
    reason = judge(address, allow)
    if reason is not None:
        raise OutboundError(Kind.REFUSED_ADDRESS, f"{host} leads to {address} ({reason})")


class _Body(BytesPayload):
    """A body that knows whether its first byte may have left."""

    sent = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.sent = True
        await super().write_with_length(writer, content_length)


class Outbound:
    def __init__(
        self,
        resolve: Resolve,
        tls: ssl.SSLContext,
        *,
        agent: str,
        allow: Sequence[Network] = (),
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        """`agent` is what we call ourselves; `allow` lists networks to connect to although private."""
        self._tls = tls
        self._allow = tuple(allow)
        self._headers = {"User-Agent": agent, "Accept-Encoding": "identity"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_JudgedAddresses(resolve, self._allow),
                use_dns_cache=False,
                limit=CONNECTIONS_MAX,
                keepalive_timeout=IDLE_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(sock_connect=connect_seconds),
            trust_env=False,
            auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )

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
        """`plain` allows http://; `tls` replaces the default context."""
        request = self.stream(
            url,
            headers,
            method="POST",
            body=body,
            deadline_seconds=deadline_seconds,
            answer_bytes_max=answer_bytes_max,
            tls=tls,
            plain=plain,
        )
        return await _whole(request)

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
        request = self.stream(
            url,
            headers,
            deadline_seconds=deadline_seconds,
            answer_bytes_max=answer_bytes_max,
            tls=tls,
            plain=plain,
        )
        return await _whole(request)

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
        """An answer while it comes; the deadline covers its chunks too."""
        target = self._judged(url, plain=plain)
        payload = _Body(body) if method == "POST" else None
        try:
            async with (
                asyncio.timeout(deadline_seconds),
                self._session.request(
                    method,
                    _yarl(target),
                    data=payload,
                    headers={**self._headers, **headers},
                    allow_redirects=False,
                    ssl=tls or self._tls,
                ) as answer,
            ):
                head = _head(answer)
                yield Download(answer.status, head, _limited(answer, answer_bytes_max))
        except OutboundError as error:
            error.sent = payload is not None and payload.sent
            raise
        except (TimeoutError, aiohttp.ClientError) as error:
            sent = payload is not None and payload.sent
            raise _outbound_error(error, target, deadline_seconds, sent=sent) from None

    async def close(self) -> None:
        await self._session.close()

    def _judged(self, url: Url | str, *, plain: bool) -> Url:
        target = parse_url(url, plain=plain) if isinstance(url, str) else url
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


async def _whole(request: AbstractAsyncContextManager[Download]) -> Response:
    async with request as download:
        body = b"".join([chunk async for chunk in download.chunks])
        return Response(download.status, download.headers, body)


async def _limited(answer: aiohttp.ClientResponse, bytes_max: int) -> AsyncIterator[bytes]:
    too_large = OutboundError(Kind.TOO_LARGE, f"the answer is larger than {bytes_max} bytes")
    if (answer.content_length or 0) > bytes_max:
        raise too_large
    count = 0
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        count += len(chunk)
        if count > bytes_max:
            answer.close()  # the rest is not read, so the connection can't serve again
            raise too_large
        yield chunk


def _head(answer: aiohttp.ClientResponse) -> Mapping[str, str]:
    head: dict[str, str] = {}
    for written, value in answer.headers.items():
        name = written.lower()
        head[name] = f"{head[name]}, {value}" if name in head else value
    if head.get("content-encoding", "identity").lower() != "identity":
        answer.close()
        raise OutboundError(Kind.PROTOCOL, "the answer is encoded although we asked for none")
    return head


def _yarl(url: Url) -> URL:
    return URL.build(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        path=url.path or "/",
        query_string=url.query,
        encoded=True,
    )


def _outbound_error(
    error: TimeoutError | aiohttp.ClientError, url: Url, deadline_seconds: float, *, sent: bool
) -> OutboundError:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            kind, message = Kind.TLS, f"its certificate was refused: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            kind, message = Kind.TLS, "it does not speak TLS as we must"
        case aiohttp.ConnectionTimeoutError():
            kind, message = Kind.CONNECT, "it did not take our connection in time"
        case aiohttp.ClientConnectorError():
            kind, message = Kind.CONNECT, f"it does not take connections ({error.strerror})"
        case TimeoutError():
            kind, message = Kind.TIMEOUT, f"no answer within {deadline_seconds:g} s"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            kind, message = Kind.PROTOCOL, "its answer is not HTTP as we know it"
        case _:
            kind, message = Kind.LOST, "the connection ended before the answer"
    return OutboundError(kind, f"{url.authority}: {message}", sent=sent)
