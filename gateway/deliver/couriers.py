"""The seam for ways of delivering: one courier for each kind of way that a destination can have."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from gateway.deliver.courier import Parcel
from gateway.deliver.outcome import Deferred, Outcome, Placed, Refused
from gateway.protocol.address import tagged
from gateway.protocol.errors import Code
from gateway.route.ways import Here, NotNow, NoWay, Way

ThisWay = TypeVar("ThisWay", contravariant=True)


class Courier(Protocol[ThisWay]):
    """A way of handing parcels over. Expected failures are outcomes; no transaction is open while it waits."""

    async def deliver(self, parcel: Parcel, way: ThisWay, /) -> Sequence[Outcome]:
        """Returns an outcome for each of `parcel.deliveries`, in that order."""

    async def probe(self, way: ThisWay, /) -> str | None:
        """Returns why a troubled destination is not back yet; None if it is."""


class Couriers:
    """The couriers, by the kind of way they serve."""

    def __init__(self, couriers: Mapping[type[Way], Courier[Any]]) -> None:
        self._couriers = couriers

    async def deliver(self, parcel: Parcel, way: Way) -> Sequence[Outcome]:
        return await self._couriers[type(way)].deliver(parcel, way)

    async def probe(self, way: Way) -> str | None:
        return await self._couriers[type(way)].probe(way)


class InboxCourier:
    """The courier for inboxes here: the settling transaction makes the entry."""

    async def deliver(self, parcel: Parcel, way: Here, /) -> Sequence[Outcome]:
        agent = way.resident.id
        return [Placed(agent, tagged(each.address, each.recipient)) for each in parcel.deliveries]

    async def probe(self, way: Here, /) -> str | None:
        return None


class NowhereCourier:
    """The courier for destinations without a gateway: refuses the mail."""

    async def deliver(self, parcel: Parcel, way: NoWay, /) -> Sequence[Outcome]:
        return [Refused(Code.RECIPIENT_NOT_FOUND, way.reason)] * len(parcel.deliveries)

    async def probe(self, way: NoWay, /) -> str | None:
        return None


class LaterCourier:
    """The courier for destinations that can't be looked up at the moment: defers the mail."""

    async def deliver(self, parcel: Parcel, way: NotNow, /) -> Sequence[Outcome]:
        fault = Deferred(
            Code.RECIPIENT_UNAVAILABLE, way.reason, blames=True, unreachable=True, inside=way.inside
        )
        return [fault] * len(parcel.deliveries)

    async def probe(self, way: NotNow, /) -> str | None:
        return way.reason
