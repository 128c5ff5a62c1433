"""A connection as its parts, its requests and its listener see it. The connection itself is in `http/connection.py`."""

import asyncio
from typing import Protocol

from multidict import CIMultiDictProxy

from gateway.http.places import Guest
from gateway.http.roles import Role
from gateway.net.pace import Pace
from gateway.net.shares import Holder


class HungUp(Exception):
    """The client is gone, so nobody waits for an answer."""


class Body(Protocol):
    """The body of the request in work."""

    async def read(self, bytes_max: int, holder: Holder, *, invited: bool) -> bytes: ...

    async def read_piece(self, pace: Pace) -> bytes: ...

    async def invite(self) -> None: ...

    def give_back(self) -> None: ...


class Carrier(Protocol):
    """A connection as its requests see it."""

    @property
    def incoming(self) -> Body: ...

    @property
    def transport(self) -> asyncio.WriteTransport | None: ...

    @property
    def secure(self) -> bool: ...

    @property
    def roles(self) -> frozenset[Role]: ...

    @property
    def gone(self) -> bool: ...

    @property
    def ending(self) -> asyncio.Event: ...

    def client_of(self, headers: CIMultiDictProxy[str], /) -> str: ...

    def prove(self, holder: Holder, /) -> None: ...

    def end(self, last_words: bytes, /) -> None: ...


class Wire(Guest, Protocol):
    """A connection as its own parts see it, which read and write."""

    deadline: float

    @property
    def transport(self) -> asyncio.WriteTransport | None: ...

    @property
    def paused(self) -> bool: ...

    async def write(self, data: bytes, /) -> None: ...

    async def drained(self) -> None: ...

    def cut(self, reason: str, /) -> None: ...


class Member(Guest, Protocol):
    """A connection or a handshake as its listener sees it."""

    deadline: float

    def retire(self) -> None: ...

    def expire(self) -> None: ...
