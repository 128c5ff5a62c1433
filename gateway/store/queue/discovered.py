"""The DNS answers for domains and hosts, kept across restarts."""

from collections.abc import Sequence
from datetime import datetime

from gateway.store.database import Database


async def recall(database: Database, domain: str) -> tuple[str, datetime, datetime | None] | None:
    """Returns the last good record of a domain, when it was seen, and since when no record is found."""
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


async def recall_host(database: Database, host: str) -> tuple[tuple[str, ...], datetime] | None:
    """Returns the last known addresses of a host, and when they were looked up."""
    row = await database.fetchrow("select addresses, told_at from hosts where host = $1", host)
    return None if row is None else (tuple(row["addresses"]), row["told_at"])


async def remember_host(database: Database, host: str, addresses: Sequence[str], told_at: datetime) -> None:
    await database.execute(
        "insert into hosts (host, addresses, told_at) values ($1, $2, $3)"
        " on conflict (host) do update set addresses = excluded.addresses, told_at = excluded.told_at",
        host,
        list(addresses),
        told_at,
    )


async def forget_hosts(database: Database, days: int) -> None:
    """Deletes addresses that are too old to serve during a DNS outage."""
    await database.execute("delete from hosts where told_at < amtp_now() - make_interval(days => $1)", days)


async def forget_domains(database: Database, days: int) -> None:
    """Deletes domains not seen for so many days; until then a vanished record is noticed."""
    await database.execute(
        "delete from discovered where spoke_at < amtp_now() - make_interval(days => $1)", days
    )
