"""Shares: limits on what a process holds at once, in total, per client and for unproven callers together.

A `Pot` counts one thing: connections, requests at work, bytes of bodies, streams, uploads. Its size and the shares
come from the configuration. A caller that proved an identity counts for that owner, from whatever address it calls.
All others count by address and in one common share, so strangers can't use up what agents and peers need.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from types import TracebackType
from typing import NamedTuple

from gateway.protocol.errors import AMTPError, Code

RETRY_AFTER_SECONDS = 1  # a process that is full now is rarely full a second later
IPV6_SITE_BITS = 64  # one host controls a whole /64, so it counts as one address
SITES_KNOWN = 4096


class Holder(NamedTuple):
    """The account something counts for: an owner, or an unproven address (None: a trusted proxy's)."""

    address: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Shares:
    """The percentages of every pot for one address, one owner and all unproven callers together."""

    address_percent: int
    owner_percent: int
    unproven_percent: int


class Pot:
    """A bounded amount of one thing."""

    __slots__ = (
        "_address_max",
        "_addresses",
        "_owner_max",
        "_owners",
        "_unproven",
        "_unproven_max",
        "_what",
        "_whole",
        "taken",
    )

    def __init__(self, what: str, whole: int, shares: Shares) -> None:
        """`what` names the thing in answers, in the plural: "requests at work"."""
        self._what = what
        self._addresses: dict[str, int] = {}
        self._owners: dict[str, int] = {}
        self._unproven = 0
        self.taken = 0
        self.adopt(whole, shares)

    def adopt(self, whole: int, shares: Shares) -> None:
        """Applies changed limits; what is held already stays."""
        self._whole = whole
        self._address_max = max(1, whole * shares.address_percent // 100)
        self._owner_max = max(1, whole * shares.owner_percent // 100)
        self._unproven_max = max(1, whole * shares.unproven_percent // 100)

    def take(self, holder: Holder, amount: int = 1) -> None:
        """Counts this for its holder; raises, and counts nothing, over a limit."""
        address, owner = holder
        if owner is not None:
            if self._owners.get(owner, 0) + amount > self._owner_max:
                raise self._too_many("caller")
        elif address is not None and self._addresses.get(address, 0) + amount > self._address_max:
            raise self._too_many("address")
        elif self._unproven + amount > self._unproven_max:
            raise self._full(" for callers without a key")
        if self.taken + amount > self._whole:
            raise self._full("")
        self._count(address, owner, amount)

    def move(self, old: Holder, new: Holder, amount: int = 1) -> bool:
        """Counts for another holder what is held already; returns False, unchanged, if that one is at its limit."""
        self.give(old, amount)
        try:
            self.take(new, amount)
        except AMTPError:
            self._count(*old, amount)
            return False
        return True

    def _count(self, address: str | None, owner: str | None, amount: int) -> None:
        if owner is not None:
            self._owners[owner] = self._owners.get(owner, 0) + amount
        else:
            self._unproven += amount
            if address is not None:
                self._addresses[address] = self._addresses.get(address, 0) + amount
        self.taken += amount

    def give(self, holder: Holder, amount: int = 1) -> None:
        """Gives back what was taken for this holder."""
        address, owner = holder
        self.taken -= amount
        holders, name = (self._owners, owner) if owner is not None else (self._addresses, address)
        if owner is None:
            self._unproven -= amount
        if name is not None:
            left = holders[name] - amount
            if left:
                holders[name] = left
            else:
                del holders[name]  # holders of nothing are forgotten

    def held(self, holder: Holder, amount: int = 1) -> AbstractContextManager[None]:
        """Takes this for as long as the context lasts."""
        return _Held(self, holder, amount)

    def _full(self, whose: str) -> AMTPError:
        return AMTPError(
            Code.QUEUE_FULL,
            f"The limit of {self._what}{whose} is reached; try again shortly.",
            retry_after=RETRY_AFTER_SECONDS,
        )

    def _too_many(self, kind: str) -> AMTPError:
        return AMTPError(
            Code.RATE_LIMIT_EXCEEDED,
            f"One {kind} may not have more {self._what} here; wait until some of yours are done.",
            retry_after=RETRY_AFTER_SECONDS,
        )


class _Held:
    """One holding, as a context."""

    __slots__ = ("_amount", "_holder", "_pot")

    def __init__(self, pot: Pot, holder: Holder, amount: int) -> None:
        self._pot, self._holder, self._amount = pot, holder, amount

    def __enter__(self) -> None:
        self._pot.take(self._holder, self._amount)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pot.give(self._holder, self._amount)


@lru_cache(SITES_KNOWN)
def site_of(address: str) -> str:
    """Returns what counts as one address: an IPv4 address, or an IPv6 network of the size every host can get."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return address
