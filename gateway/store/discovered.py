"""What domains said of themselves in DNS, kept across restarts."""

from datetime import datetime

from gateway.store.database import Database


async def recall(database: Database, domain: str) -> tuple[str, datetime, datetime | None] | None:
    """The last good record of a domain, when it spoke, and since when it is silent."""
    row = await database.fetchrow(
        "select record, spoke_at, silent_since from discovered where domain = $1", domain
    )
    return None if row is None else (row["record"], row["spoke_at"], row["silent_since"])


async def remember(
    database: Database, domain: str, record: str, spoke_at: datetime, silent_since: datetime | None
) -> None:
    await database.execute(
        "insert into discovered (domain, record, spoke_at, silent_since) values ($1, $2, $3, $4)"
        " on conflict (domain) do update set record = excluded.record, spoke_at = excluded.spoke_at,"
        " silent_since = excluded.silent_since",
        domain,
        record,
        spoke_at,
        silent_since,
    )
