"""Times when agents were last seen and keys last used: noted in memory and written periodically, so a read writes no row."""

from gateway.store.database import Database

KEY_HOURS = 1  # how exactly it is known when a key was used


class Activity:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[int] = set()
        self._used: set[str] = set()

    def saw(self, agent: int) -> None:
        self._seen.add(agent)

    def used(self, key: str) -> None:
        self._used.add(key)

    async def write(self) -> None:
        """Writes the agents seen and keys used since the last call; run as a chore."""
        used, self._used = self._used, set()
        if used:
            await self._database.execute(_WRITE_KEYS, list(used), KEY_HOURS)
        seen, self._seen = self._seen, set()
        if seen:
            await self._database.execute(_WRITE, list(seen))


# A key's row is written once an hour, however often the key is used.
_WRITE_KEYS = """
update keys set last_used_at = amtp_now()
where id = any (array(
    select id from keys
    where id = any ($1::text[])
      and (last_used_at is null or last_used_at < amtp_now() - make_interval(hours => $2))
    for update skip locked
))
"""

# Rows locked by others are skipped, so this never waits: the agent will be seen again.
_WRITE = """
update agents set last_active_at = amtp_now()
where id = any (array(select id from agents where id = any ($1::bigint[]) for update skip locked))
"""
