"""The directory's memory in the database. Without the database, nothing is remembered and look-ups go on."""

from gateway.protocol.errors import AMTPError
from gateway.route.decide import HostMemory, Memory
from gateway.store.database import Database
from gateway.store.queue import discovered


class StoredMemories:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def recall(self, domain: str) -> Memory | None:
        try:
            found = await discovered.recall(self._database, domain)
        except AMTPError:
            return None
        return None if found is None else Memory(domain, *found)

    async def remember(self, memory: Memory) -> None:
        try:
            await discovered.remember(
                self._database, memory.domain, memory.record, memory.spoke_at, memory.silent_since
            )
        except AMTPError:
            return

    async def recall_host(self, host: str) -> HostMemory | None:
        try:
            found = await discovered.recall_host(self._database, host)
        except AMTPError:
            return None
        return None if found is None else HostMemory(host, *found)

    async def remember_host(self, memory: HostMemory) -> None:
        try:
            await discovered.remember_host(self._database, memory.host, memory.addresses, memory.told_at)
        except AMTPError:
            return
