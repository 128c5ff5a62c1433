"""The check whether the database would accept a message now."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
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
    """Returns what keeps the database from accepting messages; None while it is healthy."""
    try:
        async with asyncio.timeout(LOOK_SECONDS_MAX):
            if await database.fetchval("select current_setting('transaction_read_only')::bool"):
                return Ailment.READ_ONLY
            return Ailment.BEHIND if await pending(database) else None
    except (AMTPError, TimeoutError):
        return Ailment.AWAY


@dataclass(frozen=True, slots=True)
class Vitals:
    """The release and clock of a healthy database."""

    release: str
    now: datetime  # by its own clock


async def vitals(database: Database) -> Vitals:
    row = await database.fetchrow(
        "select current_setting('server_version') as release, clock_timestamp() as now"
    )
    return Vitals(row["release"], row["now"])
