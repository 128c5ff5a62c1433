"""The amount of stored mail from unproven senders that is not acknowledged or settled yet."""

from gateway.store.database import Database

# From the two partial indexes alone, where the rows are old enough. Acknowledged mail and what a worker gave up are gone.
_COUNT = """
select agent, null::text as recipient, sum(unproven)::bigint as bytes from entries
where unproven is not null and acknowledged_at is null group by agent
union all
select null, recipient, sum(unproven)::bigint from deliveries where unproven is not null group by recipient
"""


async def unproven_bytes(database: Database) -> dict[int | str, int]:
    """Returns the bytes by agent: its number for what lies in its inbox, its name for what is queued for it."""
    rows = await database.fetch(_COUNT)
    return {row["agent"] if row["recipient"] is None else row["recipient"]: row["bytes"] for row in rows}
