"""Connections kept for the next request to the same server, for a while."""

import asyncio
import ssl
from typing import Final

from gateway.http_connection import Connection

IDLE_SECONDS: Final = 30.0  # below the 60–75 s after which peers close, so few requests meet a closing door
LIFE_SECONDS: Final = 60.0  # of a connection, so that a host that moves is followed
CONNECTIONS_MAX: Final = 1024  # descriptors; the windows per destination are far below it

Server = tuple[str, str, int, ssl.SSLContext | None]  # scheme, host, port and what proves the host


class KeptConnections:
    """By server and the TLS that proves it."""

    def __init__(self) -> None:
        self._kept: dict[Server, list[Connection]] = {}
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, server: Server) -> Connection | None:
        """The one used last, so that the others grow old when fewer are needed."""
        kept = self._kept.get(server)
        while kept:
            connection = kept.pop()
            self._count -= 1
            if _is_fresh(connection):
                return connection
            connection.close()
        return None

    def put(self, server: Server, connection: Connection) -> None:
        """Keeps it for later, or closes it where it can't serve again."""
        if self._count >= CONNECTIONS_MAX or not _is_fresh(connection):
            connection.close()
            return
        self._kept.setdefault(server, []).append(connection)
        self._count += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_old)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for kept in self._kept.values():
            for connection in kept:
                connection.close()
        self._kept, self._count = {}, 0

    def _close_old(self) -> None:
        self._sweep = None
        everything, self._kept, self._count = self._kept, {}, 0
        for server, kept in everything.items():
            for connection in kept:
                self.put(server, connection)


def _is_fresh(connection: Connection) -> bool:
    now = asyncio.get_running_loop().time()
    young = now - connection.born < LIFE_SECONDS and now - connection.idle_since < IDLE_SECONDS
    return young and connection.usable
