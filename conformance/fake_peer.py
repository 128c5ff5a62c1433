"""Another gateway as a check wants it: over real TLS, answering as it is told, well or badly.

authority = Authority()
async with FakePeer(authority).listening() as peer:
    peer.will(answers(503), resets_after_body, accepts)   # request by request; the last one stays
    ...
    assert peer.requests[0].messages[0]["sender"] == "a@acme.test"
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import trustme

HTTPS = 443
SIZE_BYTES_DEFAULT = 10 * 1024 * 1024  # of a record that names no other


class Authority:
    """A private certificate authority, and the certificates it signs."""

    def __init__(self, ca: trustme.CA | None = None) -> None:
        self._ca = ca or trustme.CA()

    @classmethod
    def kept_in(cls, folder: Path) -> "Authority":
        """The same each time: a gateway reads whom to trust when it starts."""
        certificate, key = folder / "ca.pem", folder / "ca.key"
        if certificate.exists():
            return cls(trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes()))
        folder.mkdir(parents=True, exist_ok=True)
        authority = cls()
        authority.write_ca(folder)
        key.touch(mode=0o600)
        authority._ca.private_key_pem.write_to_path(key)
        return authority

    def write_ca(self, folder: Path) -> Path:
        path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(path)
        return path

    def write_pair(self, folder: Path, name: str) -> tuple[Path, Path]:
        """A certificate for `name` and its key, as files."""
        pair = self._ca.issue_cert(name)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        pair.private_key_pem.write_to_path(key)
        return certificate, key

    def trusting_context(self) -> ssl.SSLContext:
        """For a client that believes this authority alone."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._ca.configure_trust(context)
        return context

    def server_context(self, host: str, *, expired: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        end = datetime.now(UTC) - timedelta(days=1) if expired else None
        self._ca.issue_cert(host, not_after=end).configure_cert(context)
        self._ca.configure_trust(context)
        return context


@dataclass(frozen=True)
class Received:
    """A request as it came; `body` is empty where nobody read it."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes = b""
    certificate: str | None = None  # common or alternative name of the client's
    at: float = field(default_factory=time.monotonic)

    @property
    def batch(self) -> bool:
        return self.headers.get("content-type") == "application/x-ndjson"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages in it: one, or those of a batch."""
        return [json.loads(line) for line in (self.body.splitlines() if self.batch else [self.body])]


@dataclass
class Exchange:
    """One request in the hands of a behaviour."""

    peer: "FakePeer"
    place: int  # among all the peer got
    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    keep_alive: bool = True

    async def read_body(self) -> Received:
        body = await self.reader.readexactly(int(self.request.headers.get("content-length", "0")))
        self.request = self.peer.requests[self.place] = replace(self.request, body=body)
        return self.request

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Names of headers are written with underscores."""
        told = {"content_type": "application/json", "content_length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
        phrase = HTTPStatus(status).phrase
        await self.write(f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode() + body)

    async def write(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    def reset(self) -> None:
        """Ends the connection without a goodbye."""
        self.keep_alive = False
        end = self.writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def accepts(exchange: Exchange) -> None:
    """Takes everything, as a gateway does."""
    request = await exchange.read_body()
    receipts = [receipt(message) for message in request.messages] if request.body else [{}]
    if request.batch:
        lines = b"".join(json.dumps(each).encode() + b"\n" for each in receipts)
        await exchange.answer(200, lines, content_type="application/x-ndjson")
    else:
        await exchange.answer(202 if request.method == "POST" else 200, json.dumps(receipts[0]).encode())


def receipt(message: dict[str, Any], **errors: str) -> dict[str, Any]:
    """What a gateway answers to a message; `errors` are codes by local part of those it refuses."""
    recipients: list[dict[str, Any]] = []
    for address in message["recipients"]:
        code = errors.get(address.partition("@")[0])
        refused = {"status": "failed", "error": {"code": code, "message": "No."}}
        recipients.append({"address": address, **(refused if code else {"status": "delivered"})})
    return {"message_id": message["message_id"], "status": "delivered", "recipients": recipients}


def answers(status: int, body: Any = b"", **headers: str) -> Behaviour:
    """Reads the body and answers this; what is not bytes is sent as JSON."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.answer(
            status, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers
        )

    return behave


def refuses(status: int, code: str, message: str = "No.", **headers: str) -> Behaviour:
    """Answers an AMTP error about the whole message."""
    return answers(status, {"error": {"code": code, "message": message}}, **headers)


def writes(content: bytes) -> Behaviour:
    """Reads the body, writes these bytes for an answer, whatever they are, and hangs up."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.write(content)
        exchange.keep_alive = False

    return behave


async def resets_before_body(exchange: Exchange) -> None:
    exchange.reset()


async def resets_after_body(exchange: Exchange) -> None:
    await exchange.read_body()
    exchange.reset()


async def hangs(exchange: Exchange) -> None:
    """Reads the body and never answers; ends when the client does."""
    await exchange.read_body()
    exchange.keep_alive = False
    await exchange.reader.read()


def answers_endlessly(status: int = 200) -> Behaviour:
    """Sends an answer that has no end, for as long as somebody reads it."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read_body()
        await exchange.answer(status, content_length=str(2**40))
        while not exchange.writer.is_closing():
            await exchange.write(b" " * 65_536)
            await asyncio.sleep(0)  # a drain need not wait, and then nobody would hear that the client left

    return behave


def redirects(location: str, status: int = 307) -> Behaviour:
    return answers(status, location=location)


@dataclass
class FakePeer:
    """A gateway for `domain` at `host`; `certificate_host` and the other switches spoil its TLS."""

    authority: Authority
    domain: str = "peer.test"
    host: str = "amtp.peer.test"
    certificate_host: str | None = None
    expired: bool = False
    tls_version_max: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    wants_certificate: bool = False  # of the client
    features: frozenset[str] = frozenset()
    max_size: int = SIZE_BYTES_DEFAULT
    path: str = ""  # of its URL
    address: str = "127.0.0.1"
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0  # that reached HTTP
    _behaviours: list[Behaviour] = field(default_factory=lambda: [accepts])
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def will(self, *behaviours: Behaviour) -> None:
        """One behaviour for each request to come; the last one stays."""
        self._behaviours = list(behaviours)

    @property
    def posts(self) -> list[Received]:
        return [request for request in self.requests if request.method == "POST"]

    @property
    def url(self) -> str:
        port = "" if self.port == HTTPS else f":{self.port}"
        return f"https://{self.host}{port}{self.path}"

    @property
    def record(self) -> str:
        """What its domain publishes at _amtp.<domain>."""
        features = f";features={','.join(sorted(self.features))}" if self.features else ""
        return f"v=amtp1;gateway={self.url};max-size={self.max_size}{features}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FakePeer"]:
        """Listens on its port, or a free one that it keeps: it may be stopped and started again."""
        context = self.authority.server_context(self.certificate_host or self.host, expired=self.expired)
        context.maximum_version = self.tls_version_max
        if self.wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        server = await asyncio.start_server(self._serve, self.address, self.port, ssl=context, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client left
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        self.requests.append(Received(method, path, headers, certificate=_name_in(writer)))
        exchange = Exchange(self, len(self.requests) - 1, self.requests[-1], reader, writer)
        behave = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
        await behave(exchange)
        return exchange.keep_alive


def _name_in(writer: asyncio.StreamWriter) -> str | None:
    certificate = writer.get_extra_info("peercert")
    return certificate["subjectAltName"][0][1] if certificate else None
