"""Limits of what clients may occupy, and how much of each is in use in this process."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from gateway.config.sections import LimitSettings
from gateway.http.unsent import Unsent
from gateway.net.pace import Pace
from gateway.net.shares import Pot, Shares

TICK_SECONDS_MAX = 1.0  # the date in answers is no older
LATELY_SECONDS = 0.25  # far less arrives in this time than the room kept free
TICKS_PER_LIMIT = 4  # so a deadline is noticed a quarter of its time late at most


@dataclass(frozen=True, slots=True)
class Manners:
    """Fixed limits of the HTTP server, beside those of the configuration."""

    write_seconds: float = 60.0  # a client may be behind the least rate so long
    linger_seconds: float = 2.0  # for a refused client to read why, before we hang up
    waited_seconds: float = 1.0  # for a client, before its connection may be closed for another one
    quiet_seconds: float = 15.0  # of silence on a stream before it says that it lives
    line_bytes_max: int = 8190  # request line; each header
    headers_max: int = 100
    head_bytes_max: int = 65_536  # all of them together
    read_bytes: int = 65_536  # of a body waiting in the parser, before the socket is left alone


def tick_seconds(limits: LimitSettings, manners: Manners) -> float:
    """Returns how often deadlines are checked."""
    times = (
        limits.head_seconds,
        limits.body_seconds,
        limits.keep_alive_seconds,
        manners.write_seconds,
        manners.linger_seconds,
    )
    return min(TICK_SECONDS_MAX, min(times) / TICKS_PER_LIMIT)


class Load:
    """The pots of this process, and how many connections its listeners have together."""

    __slots__ = (
        "_pots",
        "bodies",
        "closing",
        "connections",
        "downloads",
        "empty",
        "fetches",
        "hosts",
        "limits",
        "lines",
        "requests",
        "unsent",
        "uploads",
        "waits",
    )

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self._pots: list[tuple[Pot, Callable[[LimitSettings], int]]] = []
        self.requests = self.pot("requests at work", lambda limits: limits.requests_in_admission)
        self.lines = self.pot("messages of batches at work", lambda limits: limits.waiting_messages)
        self.bodies = self.pot("bytes of message bodies", lambda limits: limits.bodies_in_flight_bytes)
        self.unsent = Unsent(self.pot("bytes of answers", lambda limits: limits.unsent_bytes))
        self.waits = self.pot("streams and requests that wait", lambda limits: limits.waiting_requests)
        self.uploads = self.pot("files on their way in", lambda limits: limits.uploads)
        self.downloads = self.pot("files on their way out", lambda limits: limits.downloads)
        self.fetches = self.pot("files fetched from elsewhere", lambda limits: limits.fetches)
        self.hosts = self.pot("files fetched from one host", lambda limits: limits.fetches)  # of that host
        self.closing = False
        self.connections = 0
        self.empty = asyncio.Event()
        self.empty.set()

    def pot(self, what: str, size: Callable[[LimitSettings], int]) -> Pot:
        """Makes a pot that follows the configuration."""
        pot = Pot(what, size(self.limits), shares_of(self.limits))
        self._pots.append((pot, size))
        return pot

    def adopt(self, limits: LimitSettings) -> None:
        """Applies changed limits."""
        self.limits = limits
        for pot, size in self._pots:
            pot.adopt(size(limits), shares_of(limits))

    def held(self) -> dict[str, int]:
        """Returns how much of each pot is in use."""
        return {
            "requests": self.requests.taken,
            "body_bytes": self.bodies.taken,
            "unsent_bytes": self.unsent.size,
            "waiting_requests": self.waits.taken,
            "uploads": self.uploads.taken,
            "downloads": self.downloads.taken,
            "fetches": self.fetches.taken,
        }

    def enter(self) -> None:
        """Counts one more connection."""
        self.connections += 1
        self.empty.clear()

    def leave(self) -> None:
        """Counts one connection less."""
        self.connections -= 1
        if not self.connections:
            self.empty.set()


def shares_of(limits: LimitSettings) -> Shares:
    """Returns the parts of every pot that the configuration gives to one address, one owner and all strangers."""
    return Shares(limits.address_share_percent, limits.owner_share_percent, limits.unproven_share_percent)


def body_pace(limits: LimitSettings) -> Pace:
    """Returns the least rate of bodies."""
    return Pace(limits.body_seconds, limits.bytes_per_second_min)


def reading_pace(limits: LimitSettings, manners: Manners) -> Pace:
    """Returns the least rate for clients that read answers."""
    return Pace(manners.write_seconds, limits.bytes_per_second_min)


class Lately:
    """A cached answer to a yes-or-no question, asked again only when it is old: each time costs a system call."""

    __slots__ = ("_ask", "_asked_at", "_seconds", "_true")

    def __init__(self, ask: Callable[[], bool], seconds: Callable[[], float] = monotonic) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asked_at = -math.inf
        self._true = False

    def __call__(self) -> bool:
        now = self._seconds()
        if now - self._asked_at >= LATELY_SECONDS:
            self._true, self._asked_at = self._ask(), now
        return self._true
