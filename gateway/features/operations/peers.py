"""The domains this gateway knows: configured, found in the DNS, or in touch with it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Peer:
    """A domain, its last good record, and the last contacts with it."""

    domain: str
    record: str | None
    spoke_at: datetime | None
    silent_since: datetime | None
    answered_at: datetime | None
    heard_at: datetime | None


_KNOWN = """
select n.domain, d.record, d.spoke_at, d.silent_since, c.answered_at, c.heard_at
from (select unnest($1::text[]) collate "C" union select domain from discovered union select domain from contacts)
     as n (domain)
left join discovered d using (domain) left join contacts c using (domain)
where {which} order by n.domain limit $3
"""


async def peers(database: Database, configured: Collection[str], *, after: str, limit: int) -> list[Peer]:
    """Returns peers by name; `configured` are among them, with or without contact."""
    rows = await database.fetch(_KNOWN.format(which="n.domain > $2"), sorted(configured), after, limit)
    return [Peer(*row) for row in rows]


async def peer(database: Database, configured: Collection[str], domain: str) -> Peer | None:
    row = await database.fetchrow(_KNOWN.format(which="n.domain = $2"), sorted(configured), domain, 1)
    return None if row is None else Peer(*row)
