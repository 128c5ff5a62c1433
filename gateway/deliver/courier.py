"""Parcels: deliveries that go to one destination in one attempt."""

from dataclasses import dataclass
from typing import Final

from gateway.store.queue.deliveries import Delivery, Letter

COURIER_SECONDS: Final = 20.0  # one attempt, whatever the parcel holds; a lease outlives it


@dataclass(frozen=True, slots=True)
class Consignment:
    """A letter with its deliveries to one destination."""

    letter: Letter
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Parcel:
    """The content of one attempt at a destination: one consignment, or several for a batch."""

    destination: str
    consignments: tuple[Consignment, ...]

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for consignment in self.consignments for delivery in consignment.deliveries]
