"""TLS before the first request: a connection has its place from the moment it is accepted, and a time to shake hands.

An event loop's own server tells nobody of a connection before its handshake is done, so these are accepted here.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

from gateway.http.connection import Connection
from gateway.http.incoming import NEVER
from gateway.http.listener import Listener
from gateway.http.places import Place, Refusal

ACCEPTED_AT_ONCE = 16  # of one listener, before others have their turn
PAUSE_SECONDS = 0.1  # where the system gives no descriptor


class TlsServer:
    """Accepts the connections of one TLS listener."""

    def __init__(self, listener: Listener, context: ssl.SSLContext, bound: Sequence[socket.socket]) -> None:
        """`bound` are sockets that do not listen yet; copies of them are kept."""
        self._listener = listener
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in bound]

    def listen(self, backlog: int) -> None:
        """Begins to accept."""
        for each in self._sockets:
            each.setblocking(False)
            each.listen(backlog)
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Accepts nothing more; handshakes under way are the door's to end."""
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE_SECONDS, self._resume, listening)
                return
            try:
                place = self._listener.enter(accepted)
            except Refusal:  # what could be said would not be understood before the handshake
                accepted.close()
            else:
                accepted.setblocking(False)
                Handshake(self._listener, self._context, accepted, place)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


class Handshake:
    """Waits for one handshake; the Connection that follows it has the same place."""

    def __init__(
        self, listener: Listener, context: ssl.SSLContext, accepted: socket.socket, place: Place
    ) -> None:
        loop = asyncio.get_running_loop()
        self._listener = listener
        self._accepted = accepted
        self._connection = Connection(listener, loop, place)
        self.place = place
        self.since = loop.time()
        self.waits = True  # for its client
        self.deadline = NEVER  # the handshake has a timer of its own
        listener.connections.add(self)
        self._task = loop.create_task(self._shake_hands(context))
        self._task.add_done_callback(self._over)

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        with suppress(OSError):  # the client hung up, took too long, or speaks no TLS that we do
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connection,
                self._accepted,
                ssl=context,
                ssl_handshake_timeout=self._listener.limits.head_seconds,
            )

    def _over(self, _: "asyncio.Task[None]") -> None:
        self._listener.connections.discard(self)
        if self._connection.task is None:  # it was never made
            self._accepted.close()
            self._listener.places.leave(self.place)

    def retire(self) -> None:
        """The door closes, and nothing was asked yet."""
        self.cut_off()

    def expire(self) -> None:
        """Hangs up."""
        self.cut_off()

    def cut_off(self) -> None:
        """Hangs up."""
        self._task.cancel()
