"""The connections of one listener: which ones are accepted, and which one is closed when there is no room.

A connection counts for its address when it is accepted, and for the owner of a key once a request on it shows one.
When all places are taken, or all those for unproven connections, the unproven connection that has been idle longest is
closed: HTTP allows closing an idle connection at any time.
"""

import resource
import sys
from collections.abc import Collection, Sequence
from heapq import nsmallest
from time import monotonic
from typing import Any, Protocol

from gateway.http.limits import Load
from gateway.http.origin import Address, Network, is_trusted, parse_address
from gateway.net.shares import RETRY_AFTER_SECONDS, Holder, Pot, site_of
from gateway.protocol.errors import AMTPError, Code

DESCRIPTORS_KEPT_MAX = 2048  # for the database, requests to others, files, and listeners for operators
DESCRIPTORS_KEPT_ADMIN_MAX = 64  # of those, kept back from these listeners, too
CANDIDATES = 64  # found by one scan of all connections
LOOK_SECONDS_EACH = 5e-6  # between two scans, for each connection: scanning one takes a twentieth of it


class Place:
    """One connection's place: its address, and the address or owner it counts for."""

    __slots__ = ("address", "held", "holder", "trusted")

    def __init__(self, address: str, *, trusted: bool) -> None:
        self.address = address
        self.trusted = trusted
        self.holder = Holder() if trusted else Holder(site_of(address))
        self.held = False


NOWHERE = Place("", trusted=False)  # before it is known


class Guest(Protocol):
    """A connection, before or after its handshake."""

    since: float  # when its client's turn began

    @property
    def place(self) -> Place: ...

    @property
    def waits(self) -> bool:
        """Returns whether it waits for its client and no request is being handled."""

    def cut_off(self) -> None: ...


class Connected(Protocol):
    """A connected socket, or what an event loop shows of one."""

    def fileno(self) -> int: ...

    def getpeername(self) -> Any: ...


class Refusal(Exception):
    """The refusal of a connection for lack of room; `cause` is for the operator, `error` for the client."""

    def __init__(self, cause: str, place: Place, error: AMTPError) -> None:
        super().__init__(cause)
        self.cause, self.place, self.error = cause, place, error


class ConnectionPlaces:
    """The counts of one listener's connections."""

    def __init__(
        self, load: Load, guests: Collection[Guest], *, waited_seconds: float, descriptors_max: int
    ) -> None:
        """`descriptors_max`: a connection whose descriptor is this one or a later one is refused."""
        self._load = load
        self._waited_seconds = waited_seconds
        self._guests = guests
        self._descriptors_max = descriptors_max
        self._pot: Pot = load.pot("connections", lambda limits: limits.connections)
        self._candidates: list[tuple[float, Guest]] = []
        self._looked_at = 0.0
        self.closed_for_others = 0

    def enter(self, connected: Connected, trusted: Sequence[Network]) -> Place:
        """Gives a connection that was just accepted its place; raises Refusal."""
        address = _address_of(connected)
        place = Place(
            "" if address is None else str(address),
            trusted=address is not None and is_trusted(address, trusted),
        )
        if self._load.closing:
            raise Refusal("closing", place, _not_now("The gateway is closing."))
        # The system gives each descriptor the lowest free number: a high one says how many are open.
        if connected.fileno() >= self._descriptors_max:
            raise Refusal("descriptors", place, _not_now("The gateway has no room for more connections."))
        try:
            self._take(place)
        except AMTPError as error:
            cause = "address" if error.code is Code.RATE_LIMIT_EXCEEDED else "full"
            raise Refusal(cause, place, error) from None
        return place

    def _take(self, place: Place) -> None:
        try:
            self._pot.take(place.holder)
        except AMTPError as error:
            if error.code is not Code.QUEUE_FULL or not self._make_room():
                raise
            self._pot.take(place.holder)
        place.held = True
        self._load.enter()

    def leave(self, place: Place) -> None:
        """Ends the counting of a connection that is over."""
        self._give(place)
        self._load.leave()

    def _give(self, place: Place) -> None:
        if place.held:
            place.held = False
            self._pot.give(place.holder)

    def prove(self, place: Place, holder: Holder) -> None:
        """Counts a connection for the owner whose key a request on it showed; a trusted proxy's stays as it is."""
        if place.held and not place.trusted and self._pot.move(place.holder, holder):
            place.holder = holder

    def _make_room(self) -> bool:
        """Closes the unproven connection that has waited longest; False where none has waited long."""
        now = monotonic()
        if not self._candidates and now - self._looked_at >= LOOK_SECONDS_EACH * len(self._guests):
            self._looked_at = now
            waiting = [(guest.since, guest) for guest in self._guests if _expendable(guest)]
            self._candidates = nsmallest(CANDIDATES, waiting, key=lambda each: each[0])[::-1]
        while self._candidates:
            since, guest = self._candidates.pop()
            if guest.since == since and _expendable(guest) and now - since >= self._waited_seconds:
                self._give(guest.place)
                guest.cut_off()
                self.closed_for_others += 1
                return True
        return False


def _address_of(connected: Connected) -> Address | None:
    try:
        return parse_address(connected.getpeername()[0])
    except OSError:  # the client is gone already
        return None


def _expendable(guest: Guest) -> bool:
    place = guest.place
    return place.held and place.holder.owner is None and not place.trusted and guest.waits


def descriptors_max(*, operators_alone: bool) -> int:
    """Returns the first descriptor that is kept back for others than connections of this kind of listener."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    kept = min(DESCRIPTORS_KEPT_MAX, limit // 2)
    return limit - (min(DESCRIPTORS_KEPT_ADMIN_MAX, kept // 2) if operators_alone else kept)


def _not_now(text: str) -> AMTPError:
    return AMTPError(Code.TEMPORARY_FAILURE, text, retry_after=RETRY_AFTER_SECONDS)
