"""The ways to a recipient: an agent here, another gateway, none, or unknown for now."""

from dataclasses import dataclass

from gateway.admit.residents import Resident, Residents
from gateway.protocol.discovery import Broken, Silent, Speaks
from gateway.route.decide import Temporary
from gateway.route.destination import Destination, destination_of
from gateway.route.directory import Directory


@dataclass(frozen=True, slots=True)
class Here:
    """An agent of ours that reads its inbox."""

    resident: Resident


@dataclass(frozen=True, slots=True)
class Pushed:
    """An agent of ours that has its mail posted to its own URL."""

    resident: Resident


@dataclass(frozen=True, slots=True)
class NoWay:
    """The lack of a way: no gateway takes mail for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """A way that can't be determined at the moment. `inside`: the reason for operators, where that says more."""

    reason: str
    inside: str | None = None


Way = Here | Pushed | Destination | NoWay | NotNow


class WayFinder:
    def __init__(self, residents: Residents, directory: Directory) -> None:
        self._residents = residents
        self._directory = directory

    async def way_to(self, destination: str) -> Way:
        """Returns the way to a destination of the queue."""
        if "@" in destination:  # an agent of ours by name; other gateways are known by their domain
            resident = (await self._residents.resolve([destination])).get(destination)
            if resident is None:
                return NoWay("The agent was removed.")
            return Pushed(resident) if resident.pushed else Here(resident)
        match await self._directory.lookup(destination):
            case Speaks(capabilities):
                return destination_of(destination, capabilities)
            case Silent():
                return NoWay(f"{destination} publishes no AMTP gateway (no TXT record _amtp.{destination}).")
            case Broken(reason):
                return NotNow(f"The record _amtp.{destination} is broken: {reason}.")
            case Temporary() as temporary:
                return NotNow(temporary.told(destination), temporary.told(destination, operator=True))
