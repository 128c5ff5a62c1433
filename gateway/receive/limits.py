"""What strangers may occupy: the limits of the doors, and what this process carries of them now."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from types import TracebackType

from gateway.protocol.errors import AMTPError, Code

MIB = 1024 * 1024
RETRY_AFTER_SECONDS = 1  # a process that is full now is rarely full a second later
BODY_PAUSES_MAX = 10  # a whole body may take this many of its longest pauses, so a trickle ends too
TICK_SECONDS_MAX = 1.0  # the date in answers is no older
IPV6_SITE_BITS = 64  # one host commands a whole /64, so it counts as one address


@dataclass(frozen=True, slots=True)
class Limits:
    """Times and sizes of the HTTP doors of one process."""

    head_seconds: float = 10.0  # from connecting, or from the first byte of a further request
    body_pause_seconds: float = 60.0  # between two pieces of a body
    idle_seconds: float = 75.0  # between two requests; longer than the 60 s of common proxies
    write_seconds: float = 60.0  # for a client to take what we wrote
    linger_seconds: float = 2.0  # for a refused client to read why, before we hang up
    quiet_seconds: float = 15.0  # of silence on a stream before it says that it lives
    line_bytes_max: int = 8190  # request line; each header
    headers_max: int = 100
    read_bytes: int = 65_536  # of a body waiting in the parser, before the socket is left alone
    body_bytes_max: int = 256 * MIB  # of all bodies in flight
    connections_max: int = 10_000
    connections_per_address_max: int = 1_000

    @property
    def tick_seconds(self) -> float:
        """How often deadlines are looked at: each is noticed a quarter of its time late at most."""
        times = (self.head_seconds, self.body_pause_seconds, self.idle_seconds, self.write_seconds)
        return min(TICK_SECONDS_MAX, *(seconds / 4 for seconds in (*times, self.linger_seconds)))


class Load:
    """What all listeners of this process carry together."""

    __slots__ = ("_limits", "body_bytes", "closing", "connections", "counts", "empty")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.closing = False
        self.connections = 0
        self.body_bytes = 0
        self.counts: Counter[str] = Counter()
        self.empty = asyncio.Event()
        self.empty.set()

    def enter(self, site: str | None) -> bool:
        """Count one more connection, if it fits; a trusted proxy (None) has no share of its own."""
        if self.closing or self.connections >= self._limits.connections_max:
            return False
        if site is not None:
            if self.counts[site] >= self._limits.connections_per_address_max:
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
        if self.body_bytes > self._limits.body_bytes_max:
            raise AMTPError(
                Code.TEMPORARY_FAILURE,
                "The gateway holds as many message bodies as it may; send this one again shortly.",
                retry_after=RETRY_AFTER_SECONDS,
            )

    def give_bytes(self, count: int) -> None:
        self.body_bytes -= count


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
