"""What strangers may occupy: the limits of the doors, and what this process carries of them now."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic
from types import TracebackType

from gateway.config_sections import Limits
from gateway.protocol.errors import AMTPError, Code

RETRY_AFTER_SECONDS = 1  # a process that is full now is rarely full a second later
BODY_PAUSES_MAX = 10  # a whole body may take this many of its longest pauses, so a trickle ends too
TICK_SECONDS_MAX = 1.0  # the date in answers is no older
LATELY_SECONDS = 0.25  # what arrives meanwhile is far less than the room that is kept free
TICKS_PER_LIMIT = 4  # so a deadline is noticed a quarter of its time late at most
IPV6_SITE_BITS = 64  # one host commands a whole /64, so it counts as one address


@dataclass(frozen=True, slots=True)
class Manners:
    """What no operator wants to turn, beside the limits of the configuration."""

    write_seconds: float = 60.0  # for a client to take anything of what we wrote
    linger_seconds: float = 2.0  # for a refused client to read why, before we hang up
    quiet_seconds: float = 15.0  # of silence on a stream before it says that it lives
    line_bytes_max: int = 8190  # request line; each header
    headers_max: int = 100
    read_bytes: int = 65_536  # of a body waiting in the parser, before the socket is left alone


def tick_seconds(limits: Limits, manners: Manners) -> float:
    """How often deadlines are looked at."""
    times = (
        limits.head_seconds,
        limits.body_seconds,
        limits.keep_alive_seconds,
        manners.write_seconds,
        manners.linger_seconds,
    )
    return min(TICK_SECONDS_MAX, min(times) / TICKS_PER_LIMIT)


class Load:
    """What all listeners of this process carry together."""

    __slots__ = ("body_bytes", "closing", "connections", "counts", "empty", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.closing = False
        self.connections = 0
        self.body_bytes = 0
        self.counts: Counter[str] = Counter()
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, site: str | None) -> bool:
        """Count one more connection, if it fits; a trusted proxy (None) has no share of its own."""
        if self.closing or self.connections >= self.limits.connections:
            return False
        if site is not None:
            if self.counts[site] >= self.limits.connections_per_address:
                return False
            self.counts[site] += 1
        self.connections += 1
        self.empty.clear()
        return True

    def leave(self, site: str | None) -> None:
        self.connections -= 1
        if not self.connections:
            self.empty.set()
        if site is not None:
            self.counts[site] -= 1
            if not self.counts[site]:
                del self.counts[site]

    def take_bytes(self, count: int) -> None:
        """Count these bytes of a body; the caller gives them back whether or not this raises."""
        self.body_bytes += count
        if self.body_bytes > self.limits.bodies_in_flight_bytes:
            raise AMTPError(
                Code.TEMPORARY_FAILURE,
                "The gateway holds as many message bodies as it may; send this one again shortly.",
                retry_after=RETRY_AFTER_SECONDS,
            )

    def give_bytes(self, count: int) -> None:
        self.body_bytes -= count


class Lately:
    """What was true a moment ago, for every request that asks: asking the system takes a call each time."""

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


class Slots:
    """A bounded number of requests at one place: `with slots:` enters, or answers 503 when all are taken."""

    __slots__ = ("_count", "_message", "taken")

    def __init__(self, count: int, message: str) -> None:
        self._count = count
        self._message = message
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._count:
            raise AMTPError(Code.QUEUE_FULL, self._message, retry_after=RETRY_AFTER_SECONDS)
        self.taken += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.taken -= 1


def site_of(address: str) -> str:
    """Who counts as one caller: an IPv4 address, or an IPv6 network of the size every host can get."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return address
