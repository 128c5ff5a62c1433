"""A line to Postgres that breaks at the worst moment: when COMMIT was sent and no answer came.

A batch that is one statement has no COMMIT: its end is that of the statement.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

# As the intake sends it; transactions of asyncpg's own say COMMIT.
COMMIT = b"Q\x00\x00\x00\x0bcommit\x00"
BEGIN = b"Q\x00\x00\x00\x0abegin\x00"
SYNC = b"S\x00\x00\x00\x04"
PREPARED = re.compile(rb"(__asyncpg_stmt_[0-9a-f]+__)\x00\s*with m as \(\s*insert into messages")
PIECE_BYTES = 65_536

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fate(StrEnum):
    """What becomes of the next COMMIT. The gateway sees the same each time: its line is dead."""

    LOST = "lost"  # it never arrived, and the server noticed that the line is dead
    DONE = "done"  # it happened, and its answer was lost
    LATE = "late"  # the server has not seen it yet, and then does it
    FORGOTTEN = "forgotten"  # the server waits for it for a while, and then gives up

    @property
    def hangs(self) -> bool:
        return self in (Fate.LATE, Fate.FORGOTTEN)


class CutLine:
    """A proxy before Postgres. `arm` it, and the next COMMIT meets its fate; one that hangs does so until `release`."""

    def __init__(self, upstream: str) -> None:
        self._parts = urlsplit(upstream)
        query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        self._host, self._port = query.pop("host"), query.pop("port")
        self._query = query
        self._fate: Fate | None = None
        self._released = asyncio.Event()
        self.dsn = ""
        self.down = False  # a new connection gets no further than here
        self.met: list[Fate] = []

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: str) -> AsyncIterator[Self]:
        line = cls(upstream)
        server = await asyncio.start_server(line._carry, "127.0.0.1", 0)
        query = {**line._query, "host": "127.0.0.1", "sslmode": "disable"}
        query["port"] = str(server.sockets[0].getsockname()[1])
        line.dsn = f"postgresql://{line._parts.path}?{urlencode(query)}"
        try:
            yield line
        finally:
            line.release()
            server.close()

    def arm(self, fate: Fate) -> None:
        self._fate = fate
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def _reach(self) -> Ends:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        return await asyncio.open_connection(self._host, int(self._port))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.close()
            return
        server_reader, server_writer = await self._reach()
        answers = asyncio.create_task(_pour(server_reader, writer))
        commits = Commits()
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                if commits.one_in(piece) and self._fate is not None:
                    answers.cancel()
                    await asyncio.wait({answers})
                    await self._meet(piece, server_reader, server_writer, writer)
                    break
                server_writer.write(piece)
        for end in (writer, server_writer):
            end.close()

    async def _meet(
        self,
        commit: bytes,
        server_reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        fate, self._fate = self._fate, None
        assert fate is not None
        if fate.hangs:
            client.close()
            await self._released.wait()
        if fate in (Fate.DONE, Fate.LATE):
            server.write(commit)
            await server_reader.read(PIECE_BYTES)  # it is done when the server says so
        self.met.append(fate)


class Commits:
    """Tells what commits a batch from the rest of what a client says."""

    def __init__(self) -> None:
        self._statement: bytes | None = None
        self._begun = False

    def one_in(self, piece: bytes) -> bool:
        if prepared := PREPARED.search(piece):
            self._statement = prepared[1]
        if piece == BEGIN:
            self._begun = True
        elif piece == COMMIT:
            self._begun = False
            return True
        bound = self._statement is not None and piece[5:].startswith(b"\0" + self._statement + b"\0")
        if bound and piece.startswith(b"B") and not self._begun:
            assert piece.endswith(SYNC), "the batch is too large for one piece"
            return True
        return False


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
    writer.close()
