"""A pool of idle connections, for the next request to the same server."""

import asyncio
import ssl
from collections import OrderedDict
from typing import Final

from gateway.net.http_connection import OutboundConnection

IDLE_SECONDS: Final = 30.0  # below the 60–75 s after which peers close, so few requests meet a close
LIFE_SECONDS: Final = 60.0  # of a connection, so that changes in the DNS are followed
KEPT_MAX: Final = 2048  # descriptors: one for each of 1 400 peers, and some for busy ones

Server = tuple[str, str, int, ssl.SSLContext | None]  # scheme, host, port and TLS context


class KeptConnections:
    """Idle connections by server and TLS context. Beyond the limit the least recently used is closed."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._kept: dict[Server, list[OutboundConnection]] = {}
        self._servers: OrderedDict[OutboundConnection, Server] = (
            OrderedDict()
        )  # the most recently used at the end
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, server: Server) -> OutboundConnection | None:
        """Returns the most recently used connection, so that unneeded ones become idle and are closed."""
        while kept := self._kept.get(server):
            connection = kept.pop()
            del self._servers[connection]
            if not kept:
                del self._kept[server]
            if _is_fresh(connection):
                return connection
            connection.close()
        return None

    def put(self, server: Server, connection: OutboundConnection) -> None:
        """Keeps the connection for later, or closes it if it can't be reused."""
        if not _is_fresh(connection):
            connection.close()
            return
        self._kept.setdefault(server, []).append(connection)
        self._servers[connection] = server
        if len(self._servers) > self._kept_max:
            self._drop(next(iter(self._servers)))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_old)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._servers):
            self._drop(connection)

    def _close_old(self) -> None:
        self._sweep = None
        for connection in list(self._servers):
            if not _is_fresh(connection):
                self._drop(connection)
        if self._servers:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close_old)

    def _drop(self, connection: OutboundConnection) -> None:
        server = self._servers.pop(connection)
        self._kept[server].remove(connection)
        if not self._kept[server]:
            del self._kept[server]
        connection.close()


def _is_fresh(connection: OutboundConnection) -> bool:
    now = asyncio.get_running_loop().time()
    young = now - connection.born < LIFE_SECONDS and now - connection.idle_since < IDLE_SECONDS
    return young and connection.usable
