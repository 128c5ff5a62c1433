"""The bench's own HTTP client: one connection, one request at a time, nothing that could be slow."""

import asyncio
from typing import Self

LIMIT_BYTES = 64 * 1024 * 1024  # of an answer: a thousand messages


class Connection:
    """A keep-alive connection to a gateway on this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=LIMIT_BYTES))

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self.send(request)
        head = await self.head()
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head[9:12]), await self.reader.readexactly(int(length))

    def send(self, request: bytes) -> None:
        self._writer.write(request)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    def close(self) -> None:
        self._writer.close()


class Pool:
    """Connections to one gateway, each used by one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()

    async def fill(self, count: int) -> None:
        for _ in range(count):
            self._free.put_nowait(await Connection.open(self._port))

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        connection = await self._free.get()
        answer = await connection.exchange(request)
        self._free.put_nowait(connection)
        return answer


def rendered(method: str, path: str, key: str, body: bytes = b"", *more: str) -> bytes:
    """A whole request."""
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
