"""Where a recipient lives: in this house, behind another gateway, nowhere, or it can't be told now."""

from dataclasses import dataclass

from gateway.admit.residents import Resident, Residents
from gateway.protocol.discovery import Broken, Silent, Speaks
from gateway.route.decide import Temporary
from gateway.route.destination import Destination, destination_of
from gateway.route.directory import Directory


@dataclass(frozen=True, slots=True)
class Here:
    """An agent of ours."""

    resident: Resident


@dataclass(frozen=True, slots=True)
class There:
    """Another gateway."""

    destination: Destination


@dataclass(frozen=True, slots=True)
class NoWay:
    """Nobody takes mail for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """It can't be told at the moment."""

    reason: str


Way = Here | There | NoWay | NotNow


class Router:
    def __init__(self, residents: Residents, directory: Directory) -> None:
        self._residents = residents
        self._directory = directory

    async def way_to(self, destination: str) -> Way:
        """The way to a destination of the queue."""
        if "@" in destination:  # an agent of ours by name; other gateways are known by their domain
            resident = (await self._residents.resolve([destination])).get(destination)
            return Here(resident) if resident else NoWay("The agent was removed.")
        match await self._directory.lookup(destination):
            case Speaks(capabilities):
                return There(destination_of(destination, capabilities))
            case Silent():
                return NoWay(f"{destination} publishes no AMTP gateway (no TXT record _amtp.{destination}).")
            case Broken(reason):
                return NotNow(f"The record _amtp.{destination} is broken: {reason}.")
            case Temporary(reason):
                return NotNow(f"The DNS of {destination} can't be asked: {reason}.")
