"""Chores of the house, each on its own beat: partitions, retention, what expired or is late, the conservation law.

Several processes may do them at once: every chore is written so that doing it twice does no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError


@dataclass(frozen=True, slots=True)
class Chore:
    """What is done, how often; `do` raises AMTPError while the database is away."""

    name: str
    every_seconds: float
    do: Callable[[], Awaitable[object]]


class Housekeeping:
    def __init__(self, chores: Sequence[Chore], journal: Journal) -> None:
        self._chores = chores
        self._journal = journal
        self._at_it = {chore.name: asyncio.Lock() for chore in chores}

    async def run(self) -> None:
        """Until cancelled. A chore that fails is done at its next beat."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._keep(chore))

    async def once(self) -> None:
        """Every chore, one after the other: whoever comes back from here finds them done."""
        for chore in self._chores:
            await self._do(chore)

    async def _keep(self, chore: Chore) -> None:
        while True:
            try:
                await self._do(chore)
            except AMTPError:  # the database is away, which is told elsewhere
                pass
            except Exception as failure:  # noqa: BLE001 - one broken chore must not end the others
                self._journal.broke(f"housekeeping: {chore.name}", failure)
            await asyncio.sleep(chore.every_seconds)

    async def _do(self, chore: Chore) -> None:
        """Never twice at the same time: the second would pass by what the first holds, and come back too early."""
        async with self._at_it[chore.name]:
            await chore.do()
