"""A door of its own for a test, and a client that sends what no client library would."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.config.sections import LimitSettings
from gateway.http.limits import Load, Manners
from gateway.http.origin import Network
from gateway.http.roles import EVERYWHERE, Role
from gateway.http.routing import Route
from gateway.http.server import HttpServer
from gateway.store.clock import Clock

DEADLINE_SECONDS = 10.0  # of a test that waits for what never comes
SHORT_SECONDS = 0.2
ALL = {"address_share_percent": 100, "owner_share_percent": 100, "unproven_share_percent": 100}
LIMITS = replace(LimitSettings(), keep_alive_seconds=5.0, **ALL)
MANNERS = Manners(linger_seconds=SHORT_SECONDS)


@dataclass
class Diary:
    """A watch that keeps what it is told."""

    answered: list[tuple[str, str, int]] = field(default_factory=list)
    failed: list[tuple[str, str, Exception]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def request_answered(self, method: str, path: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.answered.append((method, path, status))

    def request_failed(self, request_id: str, path: str, error: Exception) -> None:
        self.failed.append((request_id, path, error))

    def connection_refused(self, cause: str, address: str) -> None:
        self.refused.append((cause, address))

    def reader_cut(self, reason: str) -> None:
        self.cut.append(reason)

    def held(self, amounts: Mapping[str, int]) -> None:
        assert min(amounts.values()) >= 0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, whose envelope must be whole."""
        error = self.json["error"]
        assert set(error) - {"details"} == {"code", "message", "timestamp", "request_id"}
        assert error["request_id"] == self.headers["x-request-id"]
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])


async def read_reply(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
    assert len(headers) == len(lines), "a header came twice"
    length = 0 if bodiless else int(headers.get("content-length", 0))
    return Reply(int(line.split()[1]), headers, await reader.readexactly(length))


async def replies_in(heard: bytes) -> list[Reply]:
    """The answers in these bytes, which must be nothing but answers."""
    reader = asyncio.StreamReader()
    reader.feed_data(heard)
    reader.feed_eof()
    found = []
    while not reader.at_eof():
        found.append(await read_reply(reader))
    return found


class Wire:
    """One connection to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, bodiless: bool = False) -> Reply:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await read_reply(self.reader, bodiless=bodiless)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def rest(self) -> bytes:
        """Everything until the door hangs up."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def rest_of(self, size: int) -> bytes:
        """So many bytes of the body of an answer."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.reader.readuntil(b"\r\n\r\n")
            return await self.reader.readexactly(size)

    def close(self) -> None:
        self.writer.close()


@dataclass
class Doorway:
    door: HttpServer
    port: int
    diary: Diary
    tls: bool
    wires: list[Wire] = field(default_factory=list)

    async def wire(self, address: str = "127.0.0.1", *, tls: bool | None = None) -> Wire:
        """A connection from this address of loopback, with a handshake where the door expects one."""
        tls = self.tls if tls is None else tls
        context = ssl.create_default_context() if tls else None
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, local_addr=(address, 0)
        )
        self.wires.append(Wire(reader, writer))
        return self.wires[-1]

    async def ask(self, data: bytes) -> Reply:
        wire = await self.wire()
        return await wire.ask(data)


@asynccontextmanager
async def doorway(
    routes: Sequence[Route],
    *,
    limits: LimitSettings = LIMITS,
    manners: Manners = MANNERS,
    trusted: Sequence[Network] = (),
    roles: frozenset[Role] = EVERYWHERE,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Doorway]:
    diary = Diary()
    door = HttpServer(
        routes=routes, load=Load(limits), manners=manners, watch=diary, clock=Clock(), trusted=trusted
    )
    port = await door.open("127.0.0.1", 0, roles, tls)
    opened = Doorway(door, port, diary, tls is not None)
    yield opened
    for wire in opened.wires:
        wire.close()
    await door.close(grace_seconds=DEADLINE_SECONDS)


def get(path: str, *lines: str) -> bytes:
    return head("GET", path, *lines)


def post(path: str, body: bytes, *lines: str, content_type: str = "application/json") -> bytes:
    return head("POST", path, f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *lines) + body


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway.test", *lines, "", ""]).encode("latin-1")


async def until(condition: Any) -> None:
    """Wait for what another task is about to do."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0)
