"""The local agents by name, cached."""

from collections.abc import Collection, Mapping, Sequence

from gateway.admit.remembered import DirectoryWatch, Remembered
from gateway.store.agents.agents import Resident, find_residents
from gateway.store.database import Database

__all__ = ["Resident", "Residents"]


class Residents:
    """The directory of local agents."""

    def __init__(self, database: Database, watch: DirectoryWatch) -> None:
        self._database = database
        self._remembered: Remembered[str, Resident] = Remembered(watch, self._find, lambda name, _: (name,))

    async def resolve(self, names: Sequence[str]) -> dict[str, Resident]:
        """Returns the agents among these names, including retired ones: their inboxes still accept."""
        return await self._remembered.find(names)

    async def _find(self, names: Collection[str]) -> tuple[int, Mapping[str, Resident]]:
        return await find_residents(self._database, list(names))
