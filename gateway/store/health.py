"""Whether the database would take a message now."""

import asyncio
from enum import StrEnum

from gateway.protocol.errors import AMTPError
from gateway.store.database import Database
from gateway.store.migrate import pending

LOOK_SECONDS_MAX = 3.0  # a database that takes longer to answer is as good as away


class Ailment(StrEnum):
    AWAY = "database_away"
    READ_ONLY = "database_read_only"
    BEHIND = "schema_behind"


async def ailment(database: Database) -> Ailment | None:
    """What keeps the database from taking messages; None while it is well."""
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            if await database.fetchval("select current_setting('transaction_read_only')::bool"):
                return Ailment.READ_ONLY
            return Ailment.BEHIND if await pending(database) else None
    except (AMTPError, TimeoutError):
        return Ailment.AWAY
