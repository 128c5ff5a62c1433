"""Chores, each at its own interval: partitions, retention, expired and late mail, the conservation laws.

Several processes may run them at once: running a chore twice does no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError


@dataclass(frozen=True, slots=True)
class Chore:
    """A periodic task; `do` raises AMTPError while the database is away."""

    name: str
    every_seconds: float
    do: Callable[[], Awaitable[object]]


class Housekeeping:
    def __init__(self, chores: Sequence[Chore], journal: Journal) -> None:
        self._chores = chores
        self._journal = journal
        self._at_it = {chore.name: asyncio.Lock() for chore in chores}

    async def run(self) -> None:
        """Runs the chores until cancelled. A chore that fails runs again at its next beat."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._keep(chore))

    async def once(self) -> None:
        """Runs every chore, one after the other, and returns when they are done."""
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
        """Runs a chore, never twice at a time: a second run would skip what the first has locked, and return too early."""
        async with self._at_it[chore.name]:
            await chore.do()
