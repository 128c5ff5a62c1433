"""A server on loopback that answers with exactly the bytes a test wants, and sees every connection and byte.

async with RawServer(answer(200, b"{}")) as server:
    await outbound.post(f"http://127.0.0.1:{server.port}/", ...)
    assert server.requests[0].body == b"..."
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer with its length; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    return Request(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))


class RawServer:
    """`script` is the bytes that answer each request, or a coroutine that does as it likes."""

    def __init__(self, script: bytes | Script = b"", tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.port = 0
        self.accepted = 0  # connections, before any TLS: what a SYN would have become
        self.received = 0  # bytes of requests, after TLS
        self.requests: list[Request] = []
        self.connected = asyncio.Event()
        self.finished = asyncio.Event()  # one connection ended
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RawServer":
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.connected.set()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._tls is not None:
                await writer.start_tls(self._tls)
            if isinstance(self.script, bytes):
                await self._answer(reader, writer)
            else:
                await self.script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            self.finished.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.received += len(request.line) + len(request.body)
            self.requests.append(request)
            assert isinstance(self.script, bytes)
            writer.write(self.script)
            with suppress(ConnectionError):
                await writer.drain()
