"""TLS handshakes: a connection counts from the moment it is accepted, and its handshake has a deadline.

asyncio's own server reports a connection only after its handshake, so connections are accepted here.
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

ACCEPTED_AT_ONCE = 16  # by one listener, before others have their turn
PAUSE_SECONDS = 0.1  # where the system gives no descriptor


class TlsServer:
    """A server that accepts the connections of one TLS listener."""

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
        """Stops accepting; the server ends handshakes under way."""
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
            except Refusal:  # no answer can be sent before the handshake
                accepted.close()
            else:
                accepted.setblocking(False)
                Handshake(self._listener, self._context, accepted, place)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


class Handshake:
    """One handshake; the Connection that follows it keeps its place."""

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
        """Hangs up because the server closes; no request was made yet."""
        self.cut_off()

    def expire(self) -> None:
        """Hangs up."""
        self.cut_off()

    def cut_off(self) -> None:
        """Hangs up."""
        self._task.cancel()
