"""The HTTP server of a process: listeners, deadlines, and a close that loses no answer."""

import asyncio
import ssl
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.config.sections import LimitSettings
from gateway.http.connection import Connection
from gateway.http.handshake import TlsServer
from gateway.http.limits import Load, Manners, tick_seconds
from gateway.http.listener import Listener, Watch
from gateway.http.origin import Network
from gateway.http.roles import Role
from gateway.http.routing import Route, Router
from gateway.http.transport import Member
from gateway.store.clock import Clock

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Open:
    server: asyncio.Server | TlsServer
    listener: Listener


class HttpServer:
    """The HTTP listeners of one process."""

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        load: Load,
        manners: Manners,
        watch: Watch,
        clock: Clock,
        trusted: Sequence[Network],
    ) -> None:
        self._routes = routes
        self._manners = manners
        self._watch = watch
        self._clock = clock
        self._trusted = trusted
        self.load = load
        self._open: list[Open] = []
        self._tick_handle: asyncio.TimerHandle | None = None

    async def open(
        self,
        address: str,
        port: int,
        roles: Collection[Role],
        ssl_context: ssl.SSLContext | None = None,
        *,
        reuse_port: bool = False,
    ) -> int:
        """Opens a listener; returns the bound port, which the system chooses for port 0."""
        listener = Listener(
            router=Router(self._routes, roles),
            load=self.load,
            manners=self._manners,
            watch=self._watch,
            clock=self._clock,
            trusted=self._trusted,
            secure=ssl_context is not None,
        )
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            partial(Connection, listener, loop),
            address,
            port,
            start_serving=ssl_context is None,
            reuse_port=reuse_port or None,
            backlog=BACKLOG,
        )
        bound: int = server.sockets[0].getsockname()[1]
        if ssl_context is None:
            self._open.append(Open(server, listener))
        else:
            tls_server = TlsServer(listener, ssl_context, server.sockets)
            server.close()
            tls_server.listen(BACKLOG)
            self._open.append(Open(tls_server, listener))
        if self._tick_handle is None:
            self._tick()
        return bound

    async def close(self, grace_seconds: float) -> None:
        """Stops accepting and answers every request already received; cuts off those that outlast the grace."""
        for each in self._open:
            each.server.close()
        await asyncio.sleep(
            0
        )  # a request that has already arrived is read before its connection counts as idle
        self.load.closing = True
        for connection in self._connections():
            connection.retire()
        try:
            async with asyncio.timeout(grace_seconds):
                await self.load.empty.wait()
        except TimeoutError:
            for connection in self._connections():
                connection.cut_off()
            await self.load.empty.wait()
        self._open.clear()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None

    def adopt(self, limits: LimitSettings, trusted: Sequence[Network]) -> None:
        """Applies a changed configuration; an open connection keeps its address and owner."""
        self.load.adopt(limits)
        self._trusted = trusted
        for each in self._open:
            each.listener.trusted = trusted

    def _connections(self) -> list[Member]:
        return [connection for each in self._open for connection in each.listener.connections]

    def _tick(self) -> None:
        """Hangs up on clients past their deadline, renews the date, reports what is in use, and repeats itself later."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in self._connections():
            if connection.deadline < now:
                connection.expire()
        for each in self._open:
            each.listener.renew_head()
        self._watch.held(self.load.held())
        self._tick_handle = loop.call_later(tick_seconds(self.load.limits, self._manners), self._tick)
